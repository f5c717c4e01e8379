"""Rows of text as people read them: columns in a pipe, a table on a terminal."""

import sys
from collections.abc import Sequence


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
