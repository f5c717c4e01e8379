"""How far a training is: its step, steps a second, and the time left, from the heartbeats of rank 0.

Whoever looks from a second terminal reads them in LOG_DIR/progress.json (build/running.py).
"""

import contextlib
import json
import os
import re
from collections import deque
from pathlib import Path

STEP_LINE = re.compile(r"^step (\d+)/(\d+)\b")
"""How a line of rank 0 about a step begins. It alone says how many steps there are."""
WINDOW = 50
"""Steps over which the rate is measured, so that it counts validations and follows a machine that slows down."""


class Progress:
    """The progress of one launch. Times are arguments, in seconds of any one clock. folder: of progress.json."""

    def __init__(self, folder: Path | None = None) -> None:
        self.step, self.steps = 0, 0
        """The last step that ended, and all; 0 steps until rank 0 has named them."""
        self._ends: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)
        """(time, step) of each step's end, or of the end of several where they take less than a heartbeat."""
        self._file = folder / "progress.json" if folder else None

    def line(self, text: str) -> bool:
        """Learn from a line of rank 0; whether it says anything of a step."""
        match = STEP_LINE.match(text)
        if match:
            self.step, self.steps = int(match[1]), int(match[2])
        return match is not None

    def beat(self, step: int, now_s: float) -> None:
        """Note a heartbeat of rank 0. After a restart the steps begin again at the last checkpoint."""
        if not self._ends or step < self._ends[-1][1]:
            self._ends.clear()
        if not self._ends or step > self._ends[-1][1]:
            self._ends.append((now_s, step))
        self.step = step
        self._write()

    @property
    def steps_per_s(self) -> float | None:
        """Steps a second; None until two ends of steps were seen. The start, of which the time is no step's, is not."""
        ends = [(time_s, step) for time_s, step in self._ends if step]
        if len(ends) < 2 or ends[-1][0] <= ends[0][0]:
            return None
        return (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0])

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step, at the present rate."""
        rate = self.steps_per_s
        return (self.steps - self.step) / rate if rate and self.steps else None

    def _write(self) -> None:
        """Write progress.json, without waiting for the disk: it is worth nothing after a power cut."""
        if not self._file or not self.steps:
            return
        facts = {
            "step": self.step,
            "steps": self.steps,
            "steps_per_s": self.steps_per_s,
            "seconds_left": self.seconds_left,
        }
        beside = self._file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk ends no training that it does not have to
            beside.write_text(json.dumps(facts), encoding="utf-8")
            os.replace(beside, self._file)


def in_words(steps_per_s: float | None, seconds_left: float | None) -> str:
    """Rate and time left, as `1.53 steps/s, 12 min left` or `8.1 s/step, 3 h 5 min left`; "" if they are not known."""
    if not steps_per_s or seconds_left is None:
        return ""
    rate = f"{steps_per_s:.3g} steps/s" if steps_per_s >= 1 else f"{1 / steps_per_s:.3g} s/step"
    minutes = round(seconds_left / 60)
    if seconds_left < 100:
        left = f"{seconds_left:.0f} s"
    elif minutes < 100:
        left = f"{minutes} min"
    else:
        left = f"{minutes // 60} h {minutes % 60} min"
    return f"{rate}, {left} left"
