"""Start the ranks of a hostfile, follow them, end them all together, start again what may be, and exit with the truth.

Reads hostfile.json; writes LOG_DIR/rank-N.log. mlx.launch exits 0 when every rank has failed and spins while it waits,
so this file starts the processes; what moves tensors between them is MLX's own backend.
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
from thunder_train.launch import mpi
from thunder_train.launch.backends import environments
from thunder_train.launch.rank_process import Asked, Command, Events, Rank, Seat, end, start
from thunder_train.launch.supervisor import Limits, Outcome, asked, follow

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ASK_EVERY_S = 3.0
"""Seconds between two tries to reach a host that has gone."""


@dataclass(frozen=True)
class Job:
    """Everything that stays the same from one attempt to the next. description: the hostfile's content."""

    hostfile: Path
    description: Any
    log_dir: Path
    command: Command
    limits: Limits
    host_timeout_s: float
    """How long a restart waits for hosts that have gone, and those for a launcher that has."""


def launch(job: Job, max_restarts: int) -> int:
    """Run one process per host and return the exit status: 0 only when every rank ended with 0.

    Else the status of the first rank to fail, SIGNAL + its signal, or SIGNAL + the signal that this process got.
    """
    job.log_dir.mkdir(parents=True, exist_ok=True)
    events: Events = SimpleQueue()
    _follow_starter(events)
    with _signals_as_events(events), Terminal() as terminal:
        outcome = _attempt(job, 1, events, terminal)
        for restart in range(1, max_restarts + 1):
            if not outcome.is_final:
                outcome = _when_all_answer(job, outcome, events, terminal)
            if outcome.is_final:
                break
            terminal.problem(f"starting all ranks again, from the last checkpoint: restart {restart} of {max_restarts}")
            outcome = _attempt(job, restart + 1, events, terminal)
        if max_restarts and not outcome.is_final:
            terminal.problem(f"giving up: restart {max_restarts} of {max_restarts} failed too")
    return outcome.status


def _when_all_answer(job: Job, failure: Outcome, events: Events, terminal: Terminal) -> Outcome:
    """The failure, once ssh reaches every host; made final when one stays away for too long, or a signal came."""
    hosts = [host["ssh"] for host in job.description["hosts"] if not is_local(host["ssh"])]
    limit, told = time.monotonic() + job.host_timeout_s, [""]
    while absent := ssh.unreachable(hosts):
        if absent != told:
            terminal.problem(f"{', '.join(absent)}: no answer to ssh; waiting {job.host_timeout_s:g} s at most")
        told = absent
        if event := asked(events, ASK_EVERY_S):
            return Outcome(SIGNAL + event.signal, is_final=True)
        if time.monotonic() > limit:
            terminal.problem(f"giving up: still no answer from {', '.join(absent)}")
            return Outcome(failure.status, is_final=True)
    return failure


def _attempt(job: Job, attempt: int, events: Events, terminal: Terminal) -> Outcome:
    """Start all ranks and follow them to the end of the first that fails, or of all."""
    ranks: list[Rank] = []
    try:
        with _environments(job, attempt, events) as extra:
            try:
                for number, host in enumerate(job.description["hosts"]):
                    log = job.log_dir / f"rank-{number}.log"
                    with log.open("w" if attempt == 1 else "a", encoding="utf-8") as file:
                        file.write("" if attempt == 1 else f"--- attempt {attempt} ---\n")
                    ranks.append(start(Seat(number, host["ssh"], extra[number], log), job.command, events))
                return follow(ranks, events, terminal, job.limits)
            finally:
                end(ranks)
    except (mpi.LostError, UnreachableError) as error:
        return _not_placed(error, events, terminal)


def _not_placed(error: ThunderError, events: Events, terminal: Terminal) -> Outcome:
    """An attempt that ended before its ranks began."""
    if event := asked(events, 0.01):
        terminal.problem(f"ended by {signal.Signals(event.signal).name}; no rank had started")
        return Outcome(SIGNAL + event.signal, is_final=True)
    terminal.problem(str(error))
    return Outcome(SSH_FAILED if isinstance(error, UnreachableError) else RANKS_LOST, is_final=False)


@contextlib.contextmanager
def _environments(job: Job, attempt: int, events: Events) -> Iterator[list[dict[str, str]]]:
    """What each rank's environment must hold; worth something until the end of the with block."""
    # Two launches at once have other process numbers, and so other ports.
    extra = environments(job.description, str(job.hostfile), attempt + os.getpid())
    if job.description["backend"] != "mpi" or len(extra) == 1:
        yield extra
        return

    def is_stopped() -> bool:
        if event := asked(events, 0.01):
            events.put(event)
        return event is not None

    with mpi.places(job.description["hosts"], job.command, is_stopped) as places:
        yield [{**place, **own} for place, own in zip(places, extra, strict=True)]


def _follow_starter(events: Events) -> None:
    """Under THUNDER_STDIN=1 stdin is a pipe from the build, and its end is the build's: end the ranks too."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        events.put(Asked(signal.SIGTERM))

    if os.environ.get("THUNDER_STDIN") == "1":
        threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _signals_as_events(events: Events) -> Iterator[None]:
    """Turn the signals that end a program into events; one that is ignored, as under nohup, stays ignored."""
    # SimpleQueue, for its put may interrupt itself; Queue's would wait for its own lock.
    kept = {number: signal.getsignal(number) for number in ENDINGS}
    for number, handler in kept.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda got, _: events.put(Asked(got)))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _job(flags: argparse.Namespace, rest: list[str]) -> Job:
    """What the flags ask for. Raises ThunderError with every bad one."""
    numbers = {
        name: getattr(flags, name) for name in ("stall_timeout", "start_timeout", "max_restarts", "host_timeout")
    }
    raise_all(
        [
            ThunderError(f"must be 0 or more, not {value:g}", where=f"--{name.replace('_', '-')}")
            for name, value in numbers.items()
            if not 0 <= value < float("inf")
        ]
    )
    limits = Limits(flags.stall_timeout, flags.start_timeout)
    passed_on = ["--hostfile", str(flags.hostfile)]
    for name, seconds in (("--stall-timeout", limits.stall_s), ("--start-timeout", limits.start_s)):
        passed_on += [name, f"{seconds:g}"] if seconds else []
    command = Command(flags.module, (*rest, *passed_on), flags.folder, flags.python, flags.host_timeout)
    description = files.read_json(flags.hostfile, hint="run `./doit hostfile`")
    return Job(flags.hostfile, description, flags.log_dir, command, limits, flags.host_timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thunder_train.launch",
        description="start one rank per host; other flags go to the module",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--hostfile", type=Path, required=True, help="hosts and backend; passed on to the module")
    add("--log-dir", type=Path, required=True, help="folder of rank-N.log")
    add("--module", default="thunder_train.worker", help="what each rank runs")
    add("--folder", default=".", help="project folder on other hosts")
    add("--python", default="python3", help="interpreter on other hosts, relative to their folder")
    add("--stall-timeout", type=float, default=0.0, help="longest step in seconds; passed on unless 0, which means any")
    add("--start-timeout", type=float, default=0.0, help="the same until the first step has ended")
    add("--max-restarts", type=int, default=0, help="how often to start again after a failure that is no mistake")
    words = "seconds that a restart waits for hosts that have gone, and their ranks for this launcher"
    add("--host-timeout", type=float, default=300.0, help=words)
    return parser


def main(argv: list[str]) -> NoReturn:
    """Launch as the flags say and exit with the ranks' status, or with 2 and one line for a mistake."""
    flags, rest = _parser().parse_known_args(argv)
    try:
        sys.exit(launch(_job(flags, rest), flags.max_restarts))
    except ThunderError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main(sys.argv[1:])
