"""A rank as a process: started here or over ssh, its lines and its end made events, ended with all its children.

Writes rank-N.log.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from thunder_train import ThunderError
from thunder_train.config.project import SECRETS, is_local
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SIGNAL

PACKAGE_FOLDER = str(Path(__file__).resolve().parent.parent.parent)
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_S = 2.0
"""Seconds to wait after SIGKILL: a process inside a broken driver may outlast even that."""
LAST_LINES = 3
BEAT = b"thunder-beat "


@dataclass(frozen=True)
class Command:
    """What every rank runs. folder, python: where and with what on other hosts; here: this folder, this Python.

    silence_s: how long a rank on another host goes on when it hears nothing of this launcher; 0: for ever.
    """

    module: str
    flags: tuple[str, ...]
    folder: str
    python: str
    silence_s: float = 0.0


@dataclass(frozen=True)
class Seat:
    """Where a rank runs, with which environment, and its log, to which it appends."""

    number: int
    host: str
    env: dict[str, str]
    log: Path


@dataclass(frozen=True, eq=False)
class Rank:
    """A started rank, its last lines, and the threads that read its output and wait for its end."""

    seat: Seat
    process: subprocess.Popen[bytes]
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    threads: list[threading.Thread] = field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """A line that a rank printed."""

    rank: Rank
    text: str


@dataclass(frozen=True)
class Beat:
    """A rank lives; the last step that it finished, 0 before the first."""

    rank: Rank
    step: int


@dataclass(frozen=True)
class Ended:
    """A rank's process ended; status as subprocess gives it, negative for a signal."""

    rank: Rank
    status: int


@dataclass(frozen=True)
class Asked:
    """This launcher got a signal."""

    signal: int


Event = Line | Beat | Ended | Asked
Events = SimpleQueue[Event]


def start(seat: Seat, command: Command, events: Events) -> Rank:
    """Start a rank in a session of its own; its lines, its beats and its end become events."""
    here = is_local(seat.host)
    env = {"PYTHONUNBUFFERED": "1", "THUNDER_BEATS": "1", **seat.env}
    argv = [sys.executable if here else command.python, "-m", command.module, *command.flags]
    try:
        child = process.start(
            argv if here else ssh.run_script(seat.host),
            env=_environment_here(env) if here else None,
            stdin=subprocess.PIPE,  # held open: when this process dies, the rank reads its end and dies too
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except FileNotFoundError as error:
        raise ThunderError(f"{error.filename} is not installed here", where=f"rank {seat.number}") from error
    rank = Rank(seat, child)
    if not here:
        _say(rank, ssh.script(argv, {**_secrets(), **env}, command.folder, command.silence_s))
        threading.Thread(target=_say_here, args=(rank,), daemon=True).start()
    for task in (_read, _wait):
        rank.threads.append(threading.Thread(target=task, args=(rank, events), daemon=True))
        rank.threads[-1].start()
    return rank


def _secrets() -> dict[str, str]:
    return {name: os.environ[name] for name in SECRETS if name in os.environ}


def _say(rank: Rank, words: bytes) -> None:
    """Write to a rank's stdin; one that has ended hears nothing."""
    with contextlib.suppress(OSError, ValueError):
        if rank.process.stdin:
            rank.process.stdin.write(words)
            rank.process.stdin.flush()


def _say_here(rank: Rank) -> None:
    """Tell a rank on another host, as long as it runs, that its launcher does."""
    while rank.process.poll() is None:
        time.sleep(ssh.TICK_S)
        _say(rank, ssh.HERE)


def _environment_here(extra: dict[str, str]) -> dict[str, str]:
    paths = [PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "THUNDER_STDIN": "1", **extra}


def _read(rank: Rank, events: Events) -> None:
    begun = b""  # a beat comes from a thread of the rank, perhaps in the middle of a line
    with rank.seat.log.open("ab") as log:
        for line in rank.process.stdout or ():
            said, step = without_beat(line)
            log.write(said)
            log.flush()
            begun += said
            if step is not None:
                events.put(Beat(rank, step))
                continue
            text, begun = begun.decode(errors="replace").rstrip(), b""
            rank.tail.append(text)
            events.put(Line(rank, text))


def without_beat(line: bytes) -> tuple[bytes, int | None]:
    """What a rank said before its beat, and the beat's step; the line itself and None when it holds no beat."""
    said, mark, step = line.rpartition(BEAT)
    return (said, int(step)) if mark and step.strip().isdigit() else (line, None)


def _wait(rank: Rank, events: Events) -> None:
    status = rank.process.wait()
    process.signal_group(rank.process, signal.SIGKILL)  # children that it left behind
    rank.threads[0].join(timeout=1)  # its last lines come before its end
    if not is_local(rank.seat.host) and status - SIGNAL in signal.valid_signals():
        status = SIGNAL - status  # as the shell there tells a signal
    events.put(Ended(rank, status))


def describe(rank: Rank, how: str) -> str:
    """The failed rank in one line: who, how, its last words, where to read more."""
    words = " | ".join(line for line in rank.tail if line)
    last = f"last lines: {words}; " if words else ""
    return f"rank {rank.seat.number} ({rank.seat.host}): {how}; {last}read {rank.seat.log}"


def end(ranks: list[Rank]) -> None:
    """End every rank that still runs, with its children: SIGTERM, then SIGKILL for those that outlast the grace."""
    running = [rank for rank in ranks if rank.process.poll() is None]
    for rank in running:
        if is_local(rank.seat.host):
            process.signal_group(rank.process, signal.SIGTERM)
            process.signal_group(rank.process, signal.SIGCONT)  # a stopped process hears SIGTERM only when it goes on
        else:
            _say(rank, ssh.END)  # SIGTERM would end ssh, and the rank with it before it could save
    limit = time.monotonic() + GRACE_S
    for rank in running:
        rank.threads[1].join(timeout=max(0.0, limit - time.monotonic()))
        if rank.threads[1].is_alive():
            process.signal_group(rank.process, signal.SIGKILL)
            rank.threads[1].join(timeout=KILL_S)
