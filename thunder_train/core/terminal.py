"""Rank 0's lines for people: a progress bar on a terminal, plain lines in a pipe or a log."""

import re
import sys
from types import TracebackType
from typing import Any

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
