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
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from thunder_train import ThunderError, files, raise_all
from thunder_train.backends import environments
from thunder_train.pulse import Limits, Pulse
from thunder_train.rank import Asked, Beat, Command, Ended, Event, Events, Line, Rank, Seat, describe, end, start
from thunder_train.terminal import Terminal

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MISTAKE = 2
"""Exit status of a user's mistake."""
STALLED = 70
"""Exit status when a rank fell silent; a rank that ends itself has the same."""
LOST = 75
"""Exit status of a rank that lost the others: most often one of those is the cause."""
SETTLE_S = 2.0
"""Seconds to look for the cause of a lost rank."""


@dataclass(frozen=True)
class Job:
    """Everything that stays the same from one attempt to the next. description: the hostfile's content."""

    hostfile: Path
    description: Any
    log_dir: Path
    command: Command
    limits: Limits


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. is_final: all went well, or no further attempt could mend it."""

    status: int
    is_final: bool


def launch(job: Job, max_restarts: int) -> int:
    """Run one process per host and return the exit status: 0 only when every rank ended with 0.

    Else the status of the first rank to fail, 128 + its signal, or 128 + the signal that this process got.
    """
    job.log_dir.mkdir(parents=True, exist_ok=True)
    events: Events = SimpleQueue()
    _follow_starter(events)
    with _signals_as_events(events), Terminal() as terminal:
        outcome = _attempt(job, 1, events, terminal)
        for restart in range(1, max_restarts + 1):
            if outcome.is_final:
                break
            terminal.problem(f"starting all ranks again, from the last checkpoint: restart {restart} of {max_restarts}")
            outcome = _attempt(job, restart + 1, events, terminal)
        if max_restarts and not outcome.is_final:
            terminal.problem(f"giving up: restart {max_restarts} of {max_restarts} failed too")
    return outcome.status


def _attempt(job: Job, attempt: int, events: Events, terminal: Terminal) -> Outcome:
    """Start all ranks and follow them to the end of the first that fails, or of all."""
    extra = environments(job.description, str(job.hostfile), attempt)
    ranks: list[Rank] = []
    try:
        for number, host in enumerate(job.description["hosts"]):
            log = job.log_dir / f"rank-{number}.log"
            with log.open("w" if attempt == 1 else "a", encoding="utf-8") as file:
                file.write("" if attempt == 1 else f"--- attempt {attempt} ---\n")
            ranks.append(start(Seat(number, host["ssh"], extra[number], log), job.command, events))
        return follow(ranks, events, terminal, job.limits)
    finally:
        end(ranks)


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


def follow(ranks: list[Rank], events: Events, terminal: Terminal, limits: Limits) -> Outcome:
    """Wait for events until all ranks ended well, one did not, one fell silent, or a signal came."""
    running = {rank.seat.number for rank in ranks}
    pulse = Pulse(limits, running, time.monotonic())
    while running:
        event = _next(events, limits.look_every_s)
        if event and not isinstance(event, Asked) and event.rank not in ranks:
            continue  # of an earlier attempt
        if isinstance(event, Ended) and event.status == LOST:
            event = _cause(event, events)
        if isinstance(event, Asked):
            terminal.problem(f"ended by {signal.Signals(event.signal).name}; ending {len(running)} ranks")
            return Outcome(128 + event.signal, is_final=True)
        if isinstance(event, Ended):
            running.discard(event.rank.seat.number)
            pulse.forget(event.rank.seat.number)
            if event.status:
                return _failed(event, terminal)
        elif isinstance(event, Beat):
            pulse.beat(event.rank.seat.number, event.step, time.monotonic())
        elif isinstance(event, Line) and event.rank is ranks[0]:
            terminal.line(event.text)
        if silence := pulse.silent(time.monotonic()):
            since = f"after step {silence.step}" if silence.step else "before its first step"
            terminal.problem(describe(ranks[silence.rank], f"silent for {silence.seconds:.0f} s {since}"))
            return Outcome(STALLED, is_final=False)
    return Outcome(0, is_final=True)


def _next(events: Events, within_s: float | None) -> Event | None:
    try:
        return events.get(timeout=within_s)
    except Empty:
        return None


def _cause(lost: Ended, events: Events) -> Ended | Asked:
    """The end of a rank that made this one lose the others; it may come a moment later. Without any, this one's."""
    limit = time.monotonic() + SETTLE_S
    while (left_s := limit - time.monotonic()) > 0:
        event = _next(events, left_s)
        if isinstance(event, Asked) or (isinstance(event, Ended) and event.status not in (0, LOST)):
            return event
    return lost


def _failed(event: Ended, terminal: Terminal) -> Outcome:
    how = f"ended with exit status {event.status}" if event.status > 0 else f"ended by signal {-event.status}"
    terminal.problem(describe(event.rank, how))
    status = event.status if event.status > 0 else 128 - event.status
    return Outcome(status, is_final=status == MISTAKE)


def _job(flags: argparse.Namespace, rest: list[str]) -> Job:
    """What the flags ask for. Raises ThunderError with every bad one."""
    numbers = {name: getattr(flags, name) for name in ("stall_timeout", "start_timeout", "max_restarts")}
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
    command = Command(flags.module, (*rest, *passed_on), flags.folder, flags.python)
    description = files.read_json(flags.hostfile, mend="run `./doit hostfile`")
    return Job(flags.hostfile, description, flags.log_dir, command, limits)


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
