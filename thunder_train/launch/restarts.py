"""A run of all ranks: one attempt after another until one succeeds, fails for good, or no restart is left.

MLX cannot replace a lost rank: after a failure all ranks start again and resume from the last checkpoint.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from thunder_train import ThunderError
from thunder_train.agent.client import UnreachableError
from thunder_train.config.project import is_local
from thunder_train.core import ssh
from thunder_train.core.console import Terminal
from thunder_train.core.exit_codes import RANKS_LOST, SIGNAL, SSH_FAILED
from thunder_train.core.progress import Progress
from thunder_train.launch import backends, mpi
from thunder_train.launch.rank_process import Command, Events, Placement, Rank, Signalled, end, start
from thunder_train.launch.supervisor import Limits, Outcome, follow, signalled

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RETRY_EVERY_S = 3.0
"""Seconds between two attempts to reach an unreachable host."""
LOCAL_SILENCE_S = 120.0
"""Longest silence of a rank before its first step where all ranks run here. It is silent only while it connects to the
others, which takes a second; loading a model and its first step may take their whole start timeout."""
SIGNAL_CHECK_S = 0.01
"""Seconds to wait for a signal that may already be in the queue of events."""


@dataclass(frozen=True)
class Job:
    """What every attempt has in common. description: the hostfile's content.

    host_timeout_s: how long a restart waits for unreachable hosts.
    """

    hostfile: Path
    description: Any
    log_dir: Path
    command: Command
    limits: Limits
    host_timeout_s: float


def run(job: Job, max_restarts: int) -> int:
    """Run one process per rank, restart all after a failure, and return the exit status: 0 only if every rank had 0.

    Otherwise it is the status of the first rank that failed, 128 + its signal, or 128 + the signal to this process.
    """
    job.log_dir.mkdir(parents=True, exist_ok=True)
    events: Events = SimpleQueue()
    _watch_stdin(events)
    with _signals_as_events(events), Terminal() as terminal:
        outcome = _attempt(job, 1, events, terminal)
        for restart in range(1, max_restarts + 1):
            if not outcome.is_final:
                outcome = _wait_for_hosts(job, outcome, events, terminal)
            if outcome.is_final:
                break
            terminal.problem(f"starting all ranks again, from the last checkpoint: restart {restart} of {max_restarts}")
            outcome = _attempt(job, restart + 1, events, terminal)
        if max_restarts and not outcome.is_final:
            terminal.problem(f"giving up: restart {max_restarts} of {max_restarts} failed too")
    return outcome.status


def _wait_for_hosts(job: Job, failure: Outcome, events: Events, terminal: Terminal) -> Outcome:
    """Return the failure once ssh reaches every host. A host unreachable for too long, or a signal, makes it final."""
    hosts = [host["ssh"] for host in job.description["hosts"] if not is_local(host["ssh"])]
    limit = time.monotonic() + job.host_timeout_s
    reported: list[str] = []
    while unreachable := ssh.unreachable(hosts):
        names = ", ".join(unreachable)
        if unreachable != reported:
            terminal.problem(f"{names}: no answer to ssh; waiting at most {job.host_timeout_s:g} s")
        reported = unreachable
        if event := signalled(events, RETRY_EVERY_S):
            return Outcome(SIGNAL + event.signal, is_final=True)
        if time.monotonic() > limit:
            terminal.problem(f"giving up: still no answer from {names}")
            return Outcome(failure.status, is_final=True)
    return failure


def _attempt(job: Job, attempt: int, events: Events, terminal: Terminal) -> Outcome:
    """Start all ranks and follow them until one fails or all have ended; then end the others."""
    ranks: list[Rank] = []
    try:
        with _environments(job, attempt, events) as environments:
            try:
                for number, host in enumerate(job.description["hosts"]):
                    log = job.log_dir / f"rank-{number}.log"
                    with log.open("w" if attempt == 1 else "a", encoding="utf-8") as file:
                        file.write("" if attempt == 1 else f"--- attempt {attempt} ---\n")
                    ranks.append(start(Placement(number, host["ssh"], environments[number], log), job.command, events))
                return follow(ranks, events, terminal, _limits(job), Progress(job.log_dir))
            finally:
                end(ranks)
    except (mpi.LostError, UnreachableError) as error:
        return _failed_before_start(error, events, terminal)


def _limits(job: Job) -> Limits:
    """The limits of an attempt: ranks on this machine need no more than LOCAL_SILENCE_S to connect to each other."""
    are_here = all(is_local(host["ssh"]) for host in job.description["hosts"])
    return replace(job.limits, start_s=min(job.limits.start_s, LOCAL_SILENCE_S)) if are_here else job.limits


def _failed_before_start(error: ThunderError, events: Events, terminal: Terminal) -> Outcome:
    """The outcome of an attempt that failed before any rank started."""
    if event := signalled(events, SIGNAL_CHECK_S):
        terminal.problem(f"ended by {signal.Signals(event.signal).name}; no rank had started")
        return Outcome(SIGNAL + event.signal, is_final=True)
    terminal.problem(str(error))
    return Outcome(SSH_FAILED if isinstance(error, UnreachableError) else RANKS_LOST, is_final=False)


@contextlib.contextmanager
def _environments(job: Job, attempt: int, events: Events) -> Iterator[list[dict[str, str]]]:
    """Yields one dict of environment variables per rank, valid inside the with block."""
    # The process id gives two launches at once different ports.
    environments = backends.environments(job.description, str(job.hostfile), attempt + os.getpid())
    if job.description["backend"] != "mpi" or len(environments) == 1:
        yield environments
        return

    def is_stopped() -> bool:
        if event := signalled(events, SIGNAL_CHECK_S):
            events.put(event)
        return event is not None

    with mpi.places(job.description["hosts"], job.command, is_stopped) as places:
        yield [{**place, **environment} for place, environment in zip(places, environments, strict=True)]


def _watch_stdin(events: Events) -> None:
    """Under THUNDER_STDIN=1 stdin is a pipe from the build; its end means that the build has ended: end the ranks."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        events.put(Signalled(signal.SIGTERM))

    if os.environ.get("THUNDER_STDIN") == "1":
        threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _signals_as_events(events: Events) -> Iterator[None]:
    """Turn signals that end a program into events; an ignored one, such as SIGHUP under nohup, stays ignored."""
    # A SimpleQueue: its put may be interrupted by another put, as here by a signal. Queue.put would deadlock.
    handlers = {number: signal.getsignal(number) for number in END_SIGNALS}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda received, _: events.put(Signalled(received)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
