"""Which rank has fallen silent. Pure: the clock is an argument.

worker/watchdog.py says `thunder-beat STEP` every second. A rank that cannot (stopped, frozen, never started, host gone)
is found here; one that can, but gets nowhere, ends itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass

LOOK_EVERY_S = 1.0
PAUSE_S = 2.0
"""A longer time between two looks means that the launcher itself was stopped, and has heard nobody."""


@dataclass(frozen=True)
class Limits:
    """Seconds of silence that are too long, 0 for no limit. stall_s: after a rank's first step; start_s: before it."""

    stall_s: float
    start_s: float

    @property
    def look_every_s(self) -> float | None:
        """Seconds between two looks; None when there is nothing to look for."""
        return LOOK_EVERY_S if self.stall_s or self.start_s else None


@dataclass(frozen=True)
class Silence:
    """A rank not heard for too long, and the last step that it told of; 0 before the first."""

    rank: int
    step: int
    seconds: float


class Pulse:
    """The last beat of every rank that runs."""

    def __init__(self, limits: Limits, ranks: Iterable[int], now_s: float) -> None:
        self.limits, self.looked_s = limits, now_s
        self.last = dict.fromkeys(ranks, (0, now_s))

    def beat(self, rank: int, step: int, now_s: float) -> None:
        """Note that a rank lives and which step it finished last."""
        self.last[rank] = (step, now_s)

    def forget(self, rank: int) -> None:
        """A rank that has ended owes no beat."""
        del self.last[rank]

    def silent(self, now_s: float) -> Silence | None:
        """A rank that has been silent for too long; of several the one that came least far, then the longest silent."""
        if now_s - self.looked_s > PAUSE_S:
            self.last = {rank: (step, now_s) for rank, (step, _) in self.last.items()}
        self.looked_s = now_s
        late = [(step, heard_s, rank) for rank, (step, heard_s) in self.last.items() if self._is_late(step, heard_s)]
        if not late:
            return None
        step, heard_s, rank = min(late)
        return Silence(rank, step, now_s - heard_s)

    def _is_late(self, step: int, heard_s: float) -> bool:
        limit_s = self.limits.stall_s if step else self.limits.start_s
        return bool(limit_s) and self.looked_s - heard_s >= limit_s
