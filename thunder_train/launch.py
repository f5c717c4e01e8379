"""Start the ranks of a hostfile, follow them, end them all together, and tell the truth in the exit status.

Reads hostfile.json; writes LOG_DIR/rank-N.log. mlx.launch exits 0 when every rank has failed and spins while it waits,
so this file starts the processes; what moves tensors between them is MLX's own backend.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

from thunder_train import ThunderError, cluster, files
from thunder_train.backends import environments
from thunder_train.config import is_local
from thunder_train.terminal import Terminal

PACKAGE_FOLDER = str(Path(__file__).resolve().parent.parent)
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
LAST_LINES = 3
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MISTAKE = 2
"""Exit status of a user's mistake."""


@dataclass(frozen=True)
class Command:
    """What every rank runs. folder, python: where and with what on other hosts; here: this folder, this Python."""

    module: str
    flags: tuple[str, ...]
    folder: str
    python: str


@dataclass(frozen=True)
class Line:
    """A line that a rank printed."""

    rank: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A rank's process ended; status as subprocess gives it, negative for a signal."""

    rank: int
    status: int


@dataclass(frozen=True)
class Asked:
    """This launcher got a signal."""

    signal: int


Events = SimpleQueue[Line | Ended | Asked]


@dataclass(frozen=True)
class Rank:
    """A started rank, its last lines, and the threads that read its output and wait for its end."""

    number: int
    host: str
    process: subprocess.Popen[bytes]
    log: Path
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    threads: list[threading.Thread] = field(default_factory=list)


def launch(hostfile: Path, log_dir: Path, command: Command) -> int:
    """Run one process per host and return the exit status: 0 only when every rank ended with 0.

    Else the status of the first rank to fail, 128 + its signal, or 128 + the signal that this process got.
    """
    description = files.read_json(hostfile, mend="run `./doit hostfile`")
    extra = environments(description, where=str(hostfile))
    log_dir.mkdir(parents=True, exist_ok=True)
    events: Events = SimpleQueue()
    ranks: list[Rank] = []
    _follow_starter(events)
    with _signals_as_events(events), Terminal() as terminal:
        try:
            for number, host in enumerate(description["hosts"]):
                ranks.append(start(number, host["ssh"], extra[number], log_dir, command, events))
            return follow(ranks, events, terminal)
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


def start(number: int, host: str, extra: dict[str, str], log_dir: Path, command: Command, events: Events) -> Rank:
    """Start a rank in a session of its own; its lines and its end become events."""
    here = is_local(host)
    env = {"PYTHONUNBUFFERED": "1", "THUNDER_STDIN": "1", **extra}
    argv = [sys.executable if here else command.python, "-m", command.module, *command.flags]
    log = log_dir / f"rank-{number}.log"
    log.write_bytes(b"")
    process = subprocess.Popen(
        cluster.argv_on(host, argv, env, command.folder),
        env=_environment_here(env) if here else None,
        stdin=subprocess.PIPE,  # held open: when this process dies, the rank reads its end and dies too
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    rank = Rank(number, host, process, log)
    for task in (_read, _wait):
        rank.threads.append(threading.Thread(target=task, args=(rank, events), daemon=True))
        rank.threads[-1].start()
    return rank


def _environment_here(extra: dict[str, str]) -> dict[str, str]:
    paths = [PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **extra}


def _read(rank: Rank, events: Events) -> None:
    with rank.log.open("ab") as log:
        for line in rank.process.stdout or ():
            log.write(line)
            log.flush()
            text = line.decode(errors="replace").rstrip()
            rank.tail.append(text)
            events.put(Line(rank.number, text))


def _wait(rank: Rank, events: Events) -> None:
    status = rank.process.wait()
    _signal_group(rank, signal.SIGKILL)  # children that it left behind
    rank.threads[0].join(timeout=1)  # its last lines come before its end
    events.put(Ended(rank.number, status))


def follow(ranks: list[Rank], events: Events, terminal: Terminal) -> int:
    """Wait for events until all ranks ended well, one did not, or a signal came; the exit status."""
    running = {rank.number for rank in ranks}
    while running:
        event = events.get()
        if isinstance(event, Asked):
            terminal.problem(f"ended by {signal.Signals(event.signal).name}; ending {len(running)} ranks")
            return 128 + event.signal
        if isinstance(event, Ended):
            running.discard(event.rank)
            if event.status:
                terminal.problem(describe(ranks[event.rank], event.status))
                return event.status if event.status > 0 else 128 - event.status
        elif event.rank == 0:
            terminal.line(event.text)
    return 0


def describe(rank: Rank, status: int) -> str:
    """The failed rank in one line: who, how, its last words, where to read more."""
    how = f"ended with exit status {status}" if status > 0 else f"ended by signal {-status}"
    words = " | ".join(line for line in rank.tail if line)
    last = f"last lines: {words}; " if words else ""
    return f"rank {rank.number} ({rank.host}): {how}; {last}read {rank.log}"


def end(ranks: list[Rank]) -> None:
    """End every rank that still runs, with its children: SIGTERM, then SIGKILL for those that outlast the grace."""
    running = [rank for rank in ranks if rank.process.poll() is None]
    for rank in running:
        _signal_group(rank, signal.SIGTERM)
    limit = time.monotonic() + GRACE_S
    for rank in running:
        rank.threads[1].join(timeout=max(0.0, limit - time.monotonic()))
        if rank.threads[1].is_alive():
            _signal_group(rank, signal.SIGKILL)
            rank.threads[1].join()


def _signal_group(rank: Rank, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(rank.process.pid, number)


def main(argv: list[str]) -> NoReturn:
    """Launch as the flags say and exit with the ranks' status, or with 2 and one line for a mistake."""
    parser = argparse.ArgumentParser(
        prog="thunder_train.launch",
        description="start one rank per host; other flags go to the module",
        allow_abbrev=False,
    )
    parser.add_argument("--hostfile", type=Path, required=True, help="hosts and backend; passed on to the module")
    parser.add_argument("--log-dir", type=Path, required=True, help="folder of rank-N.log")
    parser.add_argument("--module", default="thunder_train.worker", help="what each rank runs")
    parser.add_argument("--folder", default=".", help="project folder on other hosts")
    parser.add_argument("--python", default="python3", help="interpreter on other hosts, relative to their folder")
    flags, rest = parser.parse_known_args(argv)
    command = Command(flags.module, (*rest, "--hostfile", str(flags.hostfile)), flags.folder, flags.python)
    try:
        sys.exit(launch(flags.hostfile, flags.log_dir, command))
    except ThunderError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main(sys.argv[1:])
