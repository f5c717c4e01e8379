"""Follow the ranks of one attempt until all succeed, one fails, one falls silent, or the launcher gets a signal.

A rank sends `thunder-beat STEP` every second (worker/watchdog.py). A rank that runs but makes no progress ends itself;
one that cannot even do that (stopped, frozen, never started, host unreachable) is detected here by its silence.
"""

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import Empty

from thunder_train.agent import client
from thunder_train.config.project import is_local
from thunder_train.core.console import Terminal
from thunder_train.core.exit_codes import MISTAKE, MPI_DAEMON_LOST, RANKS_LOST, SIGNAL, SSH_FAILED, STALLED
from thunder_train.core.progress import Progress
from thunder_train.launch.rank_process import (
    GPU_WATCHDOG_HINT,
    Event,
    Events,
    Exited,
    Heartbeat,
    Line,
    Rank,
    Signalled,
    describe,
)

CHECK_EVERY_S = 1.0
"""Seconds between two checks for a silent rank."""
PAUSE_S = 2.0
"""A longer time between two checks means that this launcher itself was stopped and read no heartbeat."""
SETTLE_S = 2.0
"""Seconds to wait for the failure that caused another one, and for other ranks that stalled together."""
LOST_CONNECTION = (RANKS_LOST, MPI_DAEMON_LOST)
"""Statuses of a rank that failed because of another rank."""


@dataclass(frozen=True)
class Limits:
    """Seconds of silence allowed, 0 for no limit. stall_s: after a rank's first step; start_s: before it."""

    stall_s: float
    start_s: float

    @property
    def check_every_s(self) -> float | None:
        """Seconds between two checks for a silent rank; None without any limit."""
        return CHECK_EVERY_S if self.stall_s or self.start_s else None


@dataclass(frozen=True)
class Silence:
    """A rank without a heartbeat for too long, and its last completed step; 0 before the first."""

    rank: int
    step: int
    seconds: float


class Heartbeats:
    """The last heartbeat of every running rank. Times are arguments, in seconds of any one clock."""

    def __init__(self, limits: Limits, ranks: Iterable[int], now_s: float) -> None:
        self.limits, self.checked_s = limits, now_s
        self.last = dict.fromkeys(ranks, (0, now_s))
        """{rank: (step, time of its last heartbeat)}"""

    def add(self, rank: int, step: int, now_s: float) -> None:
        """Note a heartbeat and the step in it."""
        self.last[rank] = (step, now_s)

    def remove(self, rank: int) -> None:
        """Expect no more heartbeats of a rank that has ended."""
        del self.last[rank]

    def silent(self, now_s: float) -> Silence | None:
        """A rank that is silent for too long. Of several: the lowest step, then the longest silence."""
        if now_s - self.checked_s > PAUSE_S:
            self.last = {rank: (step, now_s) for rank, (step, _) in self.last.items()}
        self.checked_s = now_s
        late = [(step, heard_s, rank) for rank, (step, heard_s) in self.last.items() if self._is_late(step, heard_s)]
        if not late:
            return None
        step, heard_s, rank = min(late)
        return Silence(rank, step, now_s - heard_s)

    def _is_late(self, step: int, heard_s: float) -> bool:
        limit_s = self.limits.stall_s if step else self.limits.start_s
        return bool(limit_s) and self.checked_s - heard_s >= limit_s


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. is_final: it succeeded, or another attempt would not help."""

    status: int
    is_final: bool


def follow(ranks: list[Rank], events: Events, terminal: Terminal, limits: Limits, progress: Progress) -> Outcome:
    """Handle events until all ranks have succeeded, one has failed or fallen silent, or a signal came."""
    running = {rank.number for rank in ranks}
    heartbeats = Heartbeats(limits, running, time.monotonic())
    while running:
        event = _next(events, limits.check_every_s)
        if event and not isinstance(event, Signalled) and event.rank not in ranks:
            continue  # of an earlier attempt
        if isinstance(event, Exited) and event.status in LOST_CONNECTION:
            event = _cause(event, ranks, events)
        if isinstance(event, Signalled):
            terminal.problem(f"ended by {signal.Signals(event.signal).name}; ending {len(running)} ranks")
            return Outcome(SIGNAL + event.signal, is_final=True)
        if isinstance(event, Exited):
            running.discard(event.rank.number)
            heartbeats.remove(event.rank.number)
            if event.status:
                return _failed(event, ranks, events, terminal)
        elif isinstance(event, Heartbeat):
            heartbeats.add(event.rank.number, event.step, time.monotonic())
            if event.rank is ranks[0]:
                progress.beat(event.step, time.monotonic())
                terminal.step(progress)
        elif isinstance(event, Line) and event.rank is ranks[0]:
            terminal.line(event.text)
            if progress.line(event.text):
                terminal.step(progress)
        if silence := heartbeats.silent(time.monotonic()):
            since = f"after step {silence.step}" if silence.step else "before its first step"
            terminal.problem(describe(ranks[silence.rank], f"silent for {silence.seconds:.0f} s {since}"))
            return Outcome(STALLED, is_final=False)
    return Outcome(0, is_final=True)


def signalled(events: Events, within_s: float) -> Signalled | None:
    """The first signal to this launcher within some seconds; all other events are dropped."""
    return next((event for event in _all(events, within_s) if isinstance(event, Signalled)), None)


def _next(events: Events, within_s: float | None) -> Event | None:
    try:
        return events.get(timeout=within_s)
    except Empty:
        return None


def _all(events: Events, within_s: float) -> Iterator[Event]:
    """Every event of the next seconds."""
    limit = time.monotonic() + within_s
    while (left_s := limit - time.monotonic()) > 0:
        if event := _next(events, left_s):
            yield event


def _cause(lost: Exited, ranks: list[Rank], events: Events) -> Exited | Signalled:
    """The exit that made a rank lose its connection, if it comes within SETTLE_S; else that rank's own exit."""
    for event in _all(events, SETTLE_S):
        if isinstance(event, Signalled):
            return event
        if isinstance(event, Exited) and event.rank in ranks and event.status not in (0, *LOST_CONNECTION):
            return event
    return lost


def _failed(event: Exited, ranks: list[Rank], events: Events, terminal: Terminal) -> Outcome:
    """Report a failed rank. After a link failure several ranks stall together; report all of them."""
    _report(event, ranks, terminal)
    if event.status == STALLED:
        for other in _all(events, SETTLE_S):
            if isinstance(other, Signalled):
                return Outcome(SIGNAL + other.signal, is_final=True)
            if isinstance(other, Exited) and other.rank in ranks and other.status == STALLED:
                _report(other, ranks, terminal)
    status = event.status if event.status > 0 else SIGNAL - event.status
    interrupted = [rank for rank in ranks if rank.was_interrupted.is_set()]
    for rank in interrupted:
        terminal.problem(f"rank {rank.number} ({rank.host}): {GPU_WATCHDOG_HINT}")
    return Outcome(status, is_final=status == MISTAKE or bool(interrupted))


def _report(event: Exited, ranks: list[Rank], terminal: Terminal) -> None:
    """Show how a rank failed. The lines of rank 0 are on the terminal already; on this machine they say all there is
    to say of a mistake.
    """
    is_shown = event.rank is ranks[0] and any(event.rank.last_lines)
    if not (is_shown and event.status == MISTAKE and is_local(event.rank.host)):
        terminal.problem(describe(event.rank, _failure(event), is_shown))


def _failure(event: Exited) -> str:
    host = event.rank.host
    if event.status == SSH_FAILED and not is_local(host):
        message = next(reversed(event.rank.last_lines), "")  # ssh says last what was wrong
        return f"ssh failed or lost its connection; {client.ssh_problem(host, message).hint}"
    return f"ended with exit status {event.status}" if event.status > 0 else f"ended by signal {-event.status}"
