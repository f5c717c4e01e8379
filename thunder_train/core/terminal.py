"""The boundary between what this program says and the terminal that shows it.

A program calls `guard` once, before it says anything. From then on no text that it prints, whoever wrote it, can move
the cursor, change the title, hide or reorder letters, or stop the program because the terminal lacks a letter.
"""

import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from thunder_train.core.text import printable_lines


class SafeStream:
    """Stands for a text stream: the same in all but what it writes."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream
        """The stream below, for rich, which draws with escapes of its own."""
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # LANG=C has no N'Ko

    def write(self, text: str) -> int:
        """Write the text, U+FFFD in place of each character that could steer a terminal."""
        self.unguarded.write(printable_lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line as `write` does."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard() -> None:
    """Let everything that this program prints pass through a SafeStream."""
    sys.stdout, sys.stderr = safe(sys.stdout), safe(sys.stderr)


def safe(stream: TextIO) -> TextIO:
    """The stream, guarded; None, for a stream that the caller has closed, stays None."""
    return stream if stream is None or isinstance(stream, SafeStream) else cast(TextIO, SafeStream(stream))


def unguarded(stream: TextIO) -> TextIO:
    """The stream without its guard, for text that was made printable already."""
    return stream.unguarded if isinstance(stream, SafeStream) else stream
