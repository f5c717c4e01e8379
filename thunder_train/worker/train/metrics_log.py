"""The metrics of a training, on rank 0: lines on stdout, metrics.jsonl for the report, events for trackers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.train.checkpoint import Progress


def memory_bytes() -> int:
    """Bytes of arrays that this process has needed so far.

    On a GPU, MLX keeps the memory of freed arrays for later ones, up to a limit (worker/bootstrap.py), and no other
    process can use it: so it counts, after a step when most of it is there. Untested on a Mac. A CPU's is given back.
    """
    peak: int = mx.get_peak_memory()
    if mx.default_device().type == mx.cpu:
        return peak
    held: int = mx.get_active_memory() + mx.get_cache_memory()
    return max(peak, held)


class MetricsLog:
    """Appends events to metrics.jsonl and prints a line for each. path: None on all ranks but the first.

    Events and losses are also kept in the progress, and so in checkpoints: a resumed run first writes the events up to
    its checkpoint again, and drops those that came after. track: takes each event, as wandb or swanlab do.
    """

    def __init__(
        self, path: Path | None, progress: Progress, track: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.path, self.progress, self._track, self._start = path, progress, track, time.perf_counter()
        if path:
            files.write_text(path, "".join(progress.metrics))

    def loss(self, event: str, step: int, loss: float, tokens: int, line: str, **more: Any) -> None:
        """Log a training or validation loss in nats per target."""
        self.progress.losses[event].append([step, round(loss, 6)])
        self.event(event, step, line, loss=round(loss, 6), tokens=tokens, **more)

    def event(self, event: str, step: int, line: str, **more: Any) -> None:
        """Append one event and print its line. The event's seconds count from the start of this process's training."""
        seconds = round(time.perf_counter() - self._start, 3)
        entry = {"event": event, "step": step, "seconds": seconds, **more}
        # On every rank, also where nothing is written: any rank's checkpoint may be the one to resume from.
        self.progress.metrics.append(files.json_line(entry))
        if not self.path:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self.progress.metrics[-1])
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise ThunderError(what, where=str(self.path), hint="free or unlock it") from error
        if self._track:
            self._track(entry)
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line at once."""
        if self.path:
            print(line, flush=True)
