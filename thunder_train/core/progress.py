"""A line that moves while rows are read: only after two seconds, and only where somebody looks."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
