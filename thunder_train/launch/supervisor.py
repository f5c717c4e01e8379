"""Which rank has fallen silent. Pure: the clock is an argument.

worker/watchdog.py says `thunder-beat STEP` every second. A rank that cannot (stopped, frozen, never started, host gone)
is found here; one that can, but gets nowhere, ends itself.

One attempt of a launch: its ranks followed until all have ended well, one has not, or one has fallen silent.
"""

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import Empty

from thunder_train.config.project import is_local
from thunder_train.core.console import Terminal
from thunder_train.core.exit_codes import MISTAKE, MPI_DAEMON_LOST, RANKS_LOST, SIGNAL, SSH_FAILED, STALLED
from thunder_train.launch.rank_process import Asked, Beat, Ended, Event, Events, Line, Rank, describe

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


SETTLE_S = 2.0
"""Seconds to look for the cause of a lost rank, and for others that fell silent with it."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. is_final: all went well, or no further attempt could mend it."""

    status: int
    is_final: bool


def follow(ranks: list[Rank], events: Events, terminal: Terminal, limits: Limits) -> Outcome:
    """Wait for events until all ranks ended well, one did not, one fell silent, or a signal came."""
    running = {rank.seat.number for rank in ranks}
    pulse = Pulse(limits, running, time.monotonic())
    while running:
        event = _next(events, limits.look_every_s)
        if event and not isinstance(event, Asked) and event.rank not in ranks:
            continue  # of an earlier attempt
        if isinstance(event, Ended) and event.status in (RANKS_LOST, MPI_DAEMON_LOST):
            event = _cause(event, ranks, events)
        if isinstance(event, Asked):
            terminal.problem(f"ended by {signal.Signals(event.signal).name}; ending {len(running)} ranks")
            return Outcome(SIGNAL + event.signal, is_final=True)
        if isinstance(event, Ended):
            running.discard(event.rank.seat.number)
            pulse.forget(event.rank.seat.number)
            if event.status:
                return _failed(event, ranks, events, terminal)
        elif isinstance(event, Beat):
            pulse.beat(event.rank.seat.number, event.step, time.monotonic())
        elif isinstance(event, Line) and event.rank is ranks[0]:
            terminal.line(event.text)
        if silence := pulse.silent(time.monotonic()):
            since = f"after step {silence.step}" if silence.step else "before its first step"
            terminal.problem(describe(ranks[silence.rank], f"silent for {silence.seconds:.0f} s {since}"))
            return Outcome(STALLED, is_final=False)
    return Outcome(0, is_final=True)


def asked(events: Events, within_s: float) -> Asked | None:
    """A signal to this launcher within some seconds; all other events are dropped."""
    return next((event for event in _all(events, within_s) if isinstance(event, Asked)), None)


def _next(events: Events, within_s: float | None) -> Event | None:
    try:
        return events.get(timeout=within_s)
    except Empty:
        return None


def _all(events: Events, within_s: float) -> Iterator[Event]:
    """What happens within some seconds."""
    limit = time.monotonic() + within_s
    while (left_s := limit - time.monotonic()) > 0:
        if event := _next(events, left_s):
            yield event


def _cause(lost: Ended, ranks: list[Rank], events: Events) -> Ended | Asked:
    """The end of a rank that made this one lose the others; it may come a moment later. Without any, this one's."""
    for event in _all(events, SETTLE_S):
        if isinstance(event, Asked):
            return event
        if isinstance(event, Ended) and event.rank in ranks and event.status not in (0, RANKS_LOST, MPI_DAEMON_LOST):
            return event
    return lost


def _failed(event: Ended, ranks: list[Rank], events: Events, terminal: Terminal) -> Outcome:
    terminal.problem(describe(event.rank, _how(event)))
    if event.status == STALLED:  # when a link is cut, all wait and end within a moment, and each knows a part of it
        for other in _all(events, SETTLE_S):
            if isinstance(other, Asked):
                return Outcome(SIGNAL + other.signal, is_final=True)
            if isinstance(other, Ended) and other.rank in ranks and other.status == STALLED:
                terminal.problem(describe(other.rank, _how(other)))
    status = event.status if event.status > 0 else SIGNAL - event.status
    return Outcome(status, is_final=status == MISTAKE)


def _how(event: Ended) -> str:
    host = event.rank.seat.host
    if event.status == SSH_FAILED and not is_local(host):
        return f"ssh did not get there or was cut off; make `ssh {host} true` work without a question"
    return f"ended with exit status {event.status}" if event.status > 0 else f"ended by signal {-event.status}"
