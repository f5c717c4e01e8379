"""What a run says while it goes: lines for people, events for the report and trackers. Rank 0 alone speaks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thunder_train.core import files
from thunder_train.worker.train.checkpoint import Progress

Tracker = Callable[[dict[str, Any]], None]
"""Takes each event, as wandb or swanlab do through mlx-lm's callbacks."""


class Journal:
    """Writes events to metrics.jsonl and lines to stdout; silent where path is None.

    The events and losses so far live in the progress, so that a run that goes on tells them from the beginning.
    """

    def __init__(self, path: Path | None, progress: Progress, tracker: Tracker | None = None) -> None:
        self.path, self.progress, self._tracker, self._start = path, progress, tracker, time.perf_counter()
        if path:
            files.write_text(path, "".join(progress.metrics))

    def loss(self, event: str, step: int, loss: float, tokens: int, line: str, **more: Any) -> None:
        """Note a training or validation loss in nats per target token."""
        self.progress.losses[event].append([step, round(loss, 6)])
        self.event(event, step, line, loss=round(loss, 6), tokens=tokens, **more)

    def event(self, event: str, step: int, line: str, **more: Any) -> None:
        """Append one event and print its line. seconds: since this process began to train."""
        seconds = round(time.perf_counter() - self._start, 3)
        entry = {"event": event, "step": step, "seconds": seconds, **more}
        # On every rank: a checkpoint of any of them must be able to tell the whole story.
        self.progress.metrics.append(files.json_line(entry))
        if not self.path:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self.progress.metrics[-1])
        if self._tracker:
            self._tracker(entry)
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line at once."""
        if self.path:
            print(line, flush=True)
