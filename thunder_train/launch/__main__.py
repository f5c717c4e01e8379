"""`python -m thunder_train.launch`: start the ranks of a hostfile, end them together, restart them after a failure.

Reads hostfile.json; writes LOG_DIR/rank-N.log. Exits with 0 only if every rank did. mlx.launch exits with 0 even when
every rank has failed, and uses a whole core while it waits; hence this launcher. MLX's own backend moves the tensors.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

from thunder_train import ThunderError, raise_all
from thunder_train.agent.client import UnreachableError
from thunder_train.config.project import is_local
from thunder_train.core import files, ssh
from thunder_train.core.console import Terminal
from thunder_train.core.exit_codes import MISTAKE, RANKS_LOST, SIGNAL, SSH_FAILED
from thunder_train.launch import backends, mpi
from thunder_train.launch.rank_process import Command, Events, Placement, Rank, Signalled, end, start
from thunder_train.launch.supervisor import Limits, Outcome, follow, signalled

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RETRY_EVERY_S = 3.0
"""Seconds between two attempts to reach an unreachable host."""
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


def launch(job: Job, max_restarts: int) -> int:
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
                return follow(ranks, events, terminal, job.limits)
            finally:
                end(ranks)
    except (mpi.LostError, UnreachableError) as error:
        return _failed_before_start(error, events, terminal)


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


def _job(flags: argparse.Namespace, rest: list[str]) -> Job:
    """The job that the flags describe. Raises ThunderError with every bad flag."""
    numbers = {
        name: getattr(flags, name) for name in ("stall_timeout", "start_timeout", "max_restarts", "host_timeout")
    }
    raise_all(
        [
            ThunderError(f"must be 0 or more, not {value:g}", where=f"--{name.replace('_', '-')}")
            for name, value in numbers.items()
            if value is not None and not 0 <= value < float("inf")
        ]
    )
    limits = Limits(flags.stall_timeout or 0.0, flags.start_timeout or 0.0)
    passed_on = ["--hostfile", str(flags.hostfile)]
    for name, seconds in (("--stall-timeout", flags.stall_timeout), ("--start-timeout", flags.start_timeout)):
        passed_on += [name, f"{seconds:g}"] if seconds is not None else []
    command = Command(flags.module, (*rest, *passed_on), flags.folder, flags.python, flags.host_timeout)
    description = files.read_json(flags.hostfile, hint="run `./doit hostfile`")
    return Job(flags.hostfile, description, flags.log_dir, command, limits, flags.host_timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thunder_train.launch",
        description="start one rank per host; all other flags go to the module",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--hostfile", type=Path, required=True, help="hosts and backend; passed on to the module")
    add("--log-dir", type=Path, required=True, help="folder of rank-N.log")
    add("--module", default="thunder_train.worker", help="what each rank runs")
    add("--folder", default=".", help="project folder on other hosts")
    add("--python", default="python3", help="interpreter on other hosts, relative to their folder")
    add("--stall-timeout", type=float, help="longest step in seconds, 0 = no limit; passed on to the module if given")
    add("--start-timeout", type=float, help="the same until the first step completes")
    add("--max-restarts", type=int, default=0, help="restarts after a failure other than a mistake")
    text = "seconds that a restart waits for unreachable hosts, and that their ranks run on without this launcher"
    add("--host-timeout", type=float, default=300.0, help=text)
    return parser


def main(argv: list[str]) -> NoReturn:
    """Launch as the flags say; exit with the ranks' status, or with 2 and one line per mistake."""
    flags, rest = _parser().parse_known_args(argv)
    try:
        sys.exit(launch(_job(flags, rest), flags.max_restarts))
    except ThunderError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main(sys.argv[1:])
