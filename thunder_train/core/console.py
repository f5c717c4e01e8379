"""What a person watches: a table, a count of rows during a long read, the progress bar of a training; and JSON.

On a terminal rich draws them; in a pipe or a log the same text comes out as plain lines. Rich is imported late, because
a pipe needs none of it and short work never shows it. It writes past core/terminal.py's guard, since it draws with
escapes, so each text is made printable here first.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from thunder_train.core import progress, speaker
from thunder_train.core.terminal import unguarded
from thunder_train.core.text import printable, printable_json

Item = TypeVar("Item")

COUNTER_AFTER_S = 2.0
"""Shorter work shows no counter."""
ITEMS_PER_UPDATE = 4096
"""Items between two looks at the clock, which costs more than an item."""
BATCH_LINE = re.compile(r"^(\w+): (\d+) of (\d+) batches answered")
"""How a line of rank 0 about the answers of an evaluation begins."""


def print_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows below their titles, columns aligned. Cells may hold any text: none of it can control a terminal."""
    lines = [tuple(map(printable, row)) for row in (titles, *rows)]
    if sys.stdout.isatty() and not speaker.name_here():
        draw_table(lines[0], [[(cell, "") for cell in line] for line in lines[1:]])
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        speaker.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def draw_table(titles: Sequence[str], rows: Iterable[Sequence[tuple[str, str]]], width: int | None = None) -> None:
    """Print a table with lines around its cells. A cell is its text and a style, as "red", or "" for none.

    width: in characters; by default that of the terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title in titles:
        table.add_column(Text(printable(title)), overflow="fold")
    for row in rows:  # Text, because rich reads markup and emoji codes in a plain string
        table.add_row(*(Text(printable(text), style) for text, style in row))
    Console(file=unguarded(sys.stdout), width=width).print(table)


def width() -> int | None:
    """Columns of the terminal; None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_json(value: Any, indent: int | None = None) -> None:
    """Print JSON, on one line unless an indent is given."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=indent is None, allow_nan=False)
    print(printable_json(text))


def counted(items: Iterable[Item], label: str) -> Iterator[Item]:
    """Yield the items. On a terminal their count and rate appear on stderr after two seconds. label: as "data:nko"."""
    start_s, status = time.monotonic(), None
    try:
        for number, item in enumerate(items, start=1):
            yield item
            if number % ITEMS_PER_UPDATE or not sys.stderr.isatty() or speaker.name_here():
                continue
            seconds = time.monotonic() - start_s
            if status is None and seconds > COUNTER_AFTER_S:
                from rich.console import Console
                from rich.text import Text

                status = Console(file=unguarded(sys.stderr)).status("")
                status.start()
            if status:
                status.update(Text(f"{label}: {number:,} rows, {number / seconds:,.0f} a second"))
    finally:
        if status:
            status.stop()


def download_bars() -> type[Any]:
    """The class of the bars that huggingface_hub draws; their labels are its own words, so they pass the guard."""
    from huggingface_hub.utils.tqdm import tqdm  # it knows whether stderr is a terminal, and the hub's own switches

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"file": unguarded(sys.stderr)}))  # type: ignore[no-untyped-call]

    return Bar


class Terminal:
    """A context that shows rank 0's lines, and on a terminal a bar with step, rate and time left."""

    def __init__(self) -> None:
        self.progress: Any = None
        """rich's Progress; None unless stdout is a terminal."""
        self.task: Any = None
        """The bar inside it, from the first step or answer on."""

    def __enter__(self) -> "Terminal":
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
            )
            self.progress = Progress(*columns, transient=True, console=Console(file=unguarded(sys.stdout)))
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()

    def line(self, text: str) -> None:
        """Show a line on stdout; if it counts the answers of an evaluation, set the bar to it."""
        text = printable(text)
        if not self.progress:
            print(text, flush=True)
            return
        self.progress.console.print(text, markup=False, highlight=False, emoji=False)
        if match := BATCH_LINE.match(text):
            self._bar(match[1], int(match[2]), int(match[3]), "")

    def step(self, now: progress.Progress) -> None:
        """Set the bar to how far a training is."""
        if self.progress and now.steps:
            self._bar("train", now.step, now.steps, progress.in_words(now.steps_per_s, now.seconds_left))

    def _bar(self, what: str, done: int, total: int, pace: str) -> None:
        if self.task is None:
            self.task = self.progress.add_task(what, total=total, pace=pace)
        self.progress.update(self.task, description=what, completed=done, total=total, pace=pace)

    def problem(self, text: str) -> None:
        """Show a line on stderr."""
        print(printable(text), file=sys.stderr, flush=True)
