"""Rows of text as people read them: columns in a pipe, a table on a terminal.

A line that moves while rows are read: only after two seconds, and only where somebody looks.

Rank 0's lines for people: a progress bar on a terminal, plain lines in a pipe or a log.
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar


def show(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table. Cells may hold anything: nothing in them can steer a terminal."""
    lines = [tuple(map(plain, row)) for row in (titles, *rows)]
    if sys.stdout.isatty():
        _show_rich(lines)
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """The text on one line, and each letter that cannot be printed as a mark."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _show_rich(lines: list[tuple[str, ...]]) -> None:
    from rich.console import Console  # late: a pipe needs none of it
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title in lines[0]:
        table.add_column(title, overflow="fold")
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    Console().print(table)


Item = TypeVar("Item")
PATIENCE_S = 2.0
"""Shorter work shows nothing."""
LOOK = 4096
"""Items between two looks at the clock."""


def counted(items: Iterable[Item], what: str) -> Iterator[Item]:
    """The items; on a terminal their count and rate from the third second on. what: "data:nko", told before them."""
    start, status = time.monotonic(), None
    try:
        for number, item in enumerate(items, start=1):
            yield item
            if number % LOOK or not sys.stderr.isatty():
                continue
            seconds = time.monotonic() - start
            if status is None and seconds > PATIENCE_S:
                from rich.console import Console  # late, both: short work never shows it
                from rich.text import Text

                status = Console(stderr=True).status("")
                status.start()
            if status:  # as Text, for rich reads markup and smileys into a dataset's name
                status.update(Text(f"{what}: {number:,} rows, {number / seconds:,.0f} a second"))
    finally:
        if status:
            status.stop()


STEP = re.compile(r"^step (\d+)/(\d+)\b")


class Terminal:
    """A context in which lines are shown. On a terminal `step i/n` moves a bar, which is gone at the end."""

    def __init__(self) -> None:
        self.progress: Any = None
        self.task: Any = None

    def __enter__(self) -> "Terminal":
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, transient=True)
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()

    def line(self, text: str) -> None:
        """Show a line; move the bar if it tells of a step."""
        if not self.progress:
            print(text, flush=True)
            return
        self.progress.console.print(text, markup=False, highlight=False)
        if found := STEP.match(text):
            step, steps = int(found[1]), int(found[2])
            if self.task is None:
                self.task = self.progress.add_task("train", total=steps)
            self.progress.update(self.task, completed=step)

    def problem(self, text: str) -> None:
        """Show a line on stderr."""
        print(text, file=sys.stderr, flush=True)
