"""Rows that wait on disk for their place: a million of them do not fit in memory as objects."""

import os
import tempfile
from array import array
from pathlib import Path
from types import TracebackType


class Shelf:
    """Lines in the order in which they were put there, each fetched by its number.

    A file without a name on the disk of `folder`, which need not exist yet: whatever happens, nothing is left behind.
    """

    def __init__(self, folder: Path) -> None:
        there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
        self._file = tempfile.TemporaryFile(dir=there, buffering=1 << 20)  # noqa: SIM115  (closed by __exit__)
        self._starts = array("q", [0])

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def put(self, line: bytes) -> None:
        """Add a line."""
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))

    def flush(self) -> None:
        """Make what was put there ready to be fetched."""
        self._file.flush()

    def get(self, number: int) -> bytes:
        """A line by its number."""
        start = self._starts[number]
        return os.pread(self._file.fileno(), self._starts[number + 1] - start, start)
