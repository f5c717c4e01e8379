"""What a run says while it goes: lines for people, events for the report. Rank 0 alone speaks."""

import time
from pathlib import Path
from typing import Any

from thunder_train import files


class Journal:
    """Writes events to metrics.jsonl and lines to stdout; silent where path is None.

    losses: {"train": [[step, loss], ...], "valid": [...]}, kept on every rank.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.start = path, time.perf_counter()
        self.losses: dict[str, list[list[float]]] = {"train": [], "valid": []}
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")

    def loss(self, event: str, step: int, loss: float, tokens: int, line: str, **more: Any) -> None:
        """Note a training or validation loss in nats per target token."""
        self.losses[event].append([step, round(loss, 6)])
        self.event(event, step, line, loss=round(loss, 6), tokens=tokens, **more)

    def event(self, event: str, step: int, line: str, **more: Any) -> None:
        """Append one event and print its line. seconds: since the run began."""
        if self.path:
            seconds = round(time.perf_counter() - self.start, 3)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(files.json_line({"event": event, "step": step, "seconds": seconds, **more}))
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line at once."""
        if self.path:
            print(line, flush=True)
