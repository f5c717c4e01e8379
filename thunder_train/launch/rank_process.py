"""A rank as a process: started here or over ssh, its output and its exit turned into events, ended with its children.

Appends to LOG_DIR/rank-N.log.
"""

import contextlib
import os
import re
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
from thunder_train.core.text import printable_lines

IMPORT_FOLDER = str(Path(__file__).resolve().parent.parent.parent)
"""The folder of the package thunder_train: local ranks start elsewhere and import it from here."""
START = (
    "import sys; sys.path = list(filter(None, sys.path)); import os, runpy; sys.path.append(os.getcwd()); "
    "del sys.argv[:2]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""How Python starts a module on another host, where it may find the package only in the folder that it starts in. That
folder comes last: a random.py of the user there does not stand in for Python's own. The words -m MODULE follow, by
which agent/main.py knows a worker."""
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_S = 2.0
"""Seconds to wait after SIGKILL: a process inside a broken driver may outlast even that."""
LAST_LINES = 3
"""Lines of a failed rank that its error message quotes."""
LONGEST_LINE = 2**16
"""Most bytes of a line: a rank that never ends one must not fill this machine's memory."""
MOST_EVENTS, EVENTS_CHECK_S = 10_000, 0.01
"""Events that wait for the launcher's main thread, and the time between two looks at their number."""
STEP_BYTES = 12
"""Most bytes of a step's number."""
GPU_WATCHDOG = re.compile("Impacting ?Interactivity")
"""What Metal says when macOS ends a computation of the GPU that kept the display waiting (mlx#3267)."""
GPU_WATCHDOG_HINT = (
    "macOS ended a computation because the display waited for the GPU: let the display sleep or work over ssh, and "
    "lower micro_tokens; the same training would end so again, so it is not restarted"
)
HEARTBEAT = b"thunder-beat "
"""Start of a heartbeat on a rank's stdout; worker/watchdog.py writes `thunder-beat STEP`."""


@dataclass(frozen=True)
class Command:
    """What every rank runs.

    folder, python: project folder and interpreter on other hosts; local ranks use this folder and this interpreter.
    silence_s: a rank on another host ends after so many seconds without a keep-alive from this launcher; 0: never.
    """

    module: str
    flags: tuple[str, ...]
    folder: str
    python: str
    silence_s: float = 0.0


@dataclass(frozen=True)
class Placement:
    """Where a rank runs, the environment variables that it gets, and its log file."""

    number: int
    host: str
    env: dict[str, str]
    log: Path


@dataclass(frozen=True, eq=False)
class Rank:
    """A started rank. threads: one reads its output, one waits for its exit. was_interrupted: by GPU_WATCHDOG."""

    placement: Placement
    child: subprocess.Popen[bytes]
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    threads: list[threading.Thread] = field(default_factory=list)
    was_interrupted: threading.Event = field(default_factory=threading.Event)

    @property
    def number(self) -> int:
        """The rank's number, from 0."""
        return self.placement.number

    @property
    def host(self) -> str:
        """The host's ssh name, or a name of this machine."""
        return self.placement.host


@dataclass(frozen=True)
class Line:
    """A line that a rank printed."""

    rank: Rank
    text: str


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life. step: the last step that the rank completed, 0 before the first."""

    rank: Rank
    step: int


@dataclass(frozen=True)
class Exited:
    """A rank's process has ended. status: as subprocess gives it, negative for a signal."""

    rank: Rank
    status: int


@dataclass(frozen=True)
class Signalled:
    """This launcher got a signal."""

    signal: int


Event = Line | Heartbeat | Exited | Signalled
Events = SimpleQueue[Event]


def start(placement: Placement, command: Command, events: Events) -> Rank:
    """Start a rank in a session of its own; its lines, heartbeats and exit become events."""
    is_here = is_local(placement.host)
    env = {"PYTHONUNBUFFERED": "1", "THUNDER_BEATS": "1", **placement.env}
    python = [sys.executable, "-m"] if is_here else [command.python, "-c", START, "-m"]
    argv = [*python, command.module, *command.flags]
    try:
        child = process.start(
            argv if is_here else ssh.script_argv(placement.host),
            env=_local_environment(env) if is_here else None,
            stdin=subprocess.PIPE,  # held open: when this launcher dies, the rank reads the end of its stdin and exits
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except FileNotFoundError as error:
        raise ThunderError(f"{error.filename} is not installed here", where=f"rank {placement.number}") from error
    rank = Rank(placement, child)
    if not is_here:
        _write(rank, ssh.script(argv, {**_secrets(), **env}, command.folder, command.silence_s))
        threading.Thread(target=_keep_alive, args=(rank,), daemon=True).start()
    for task in (_read_output, _wait_for_exit):
        rank.threads.append(threading.Thread(target=task, args=(rank, events), daemon=True))
        rank.threads[-1].start()
    return rank


def end(ranks: list[Rank]) -> None:
    """End every rank that still runs, with its children: SIGTERM, and SIGKILL after GRACE_S seconds."""
    running = [rank for rank in ranks if rank.child.poll() is None]
    for rank in running:
        if is_local(rank.host):
            process.signal_group(rank.child, signal.SIGTERM)
            process.signal_group(rank.child, signal.SIGCONT)  # a stopped process gets SIGTERM only once it continues
        else:
            _write(rank, ssh.TERMINATE)  # SIGTERM would end ssh, and so the rank before it saves a checkpoint
    limit = time.monotonic() + GRACE_S
    for rank in running:
        wait_thread = rank.threads[1]
        wait_thread.join(timeout=max(0.0, limit - time.monotonic()))
        if wait_thread.is_alive():
            process.signal_group(rank.child, signal.SIGKILL)
            wait_thread.join(timeout=KILL_S)


def describe(rank: Rank, failure: str, is_shown: bool = False) -> str:
    """A failed rank in one line: number, host, failure, its last lines unless they are shown already, its log."""
    lines = "" if is_shown else " | ".join(line for line in rank.last_lines if line)
    quoted = f"last lines: {lines}; " if lines else ""
    return f"rank {rank.number} ({rank.host}): {failure}; {quoted}read {rank.placement.log}"


def split_heartbeat(line: bytes) -> tuple[bytes, int | None]:
    """The output before a heartbeat, and its step; the whole line and None if the line holds no heartbeat."""
    output, mark, step = line.rpartition(HEARTBEAT)
    is_step = bool(mark) and len(step) <= STEP_BYTES and step.strip().isdigit()
    return (output, int(step)) if is_step else (line, None)


def _local_environment(extra: dict[str, str]) -> dict[str, str]:
    if sys.flags.safe_path:  # set by ./doit: the package was found without its folder, and a rank finds it as we did
        return {**os.environ, "THUNDER_STDIN": "1", **extra}
    folders = [IMPORT_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "THUNDER_STDIN": "1", **extra}


def _secrets() -> dict[str, str]:
    return {name: os.environ[name] for name in SECRETS if name in os.environ}


def _write(rank: Rank, text: bytes) -> None:
    """Write to a rank's stdin, unless the rank has ended."""
    with contextlib.suppress(OSError, ValueError):
        if rank.child.stdin:
            rank.child.stdin.write(text)
            rank.child.stdin.flush()


def _keep_alive(rank: Rank) -> None:
    """Send keep-alives to a rank on another host until it ends."""
    while rank.child.poll() is None:
        time.sleep(ssh.TICK_S)
        _write(rank, ssh.KEEP_ALIVE)


class _Log:
    """A rank's log, opened in append mode. A rank does not end, nor wait, because its log cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file, whatever that says."""
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, text: str) -> None:
        """Append text; say so once if the disk is full."""
        if self._file.closed:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            what = f"warning: {self._path}: cannot be written: {error.strerror}; the rank goes on without it"
            print(what, file=sys.stderr, flush=True)
            self.close()


def _read_output(rank: Rank, events: Events) -> None:
    """Turn a rank's output into events, and write it to its log. Neither can steer a terminal, `cat` of a log included.

    A line longer than LONGEST_LINE becomes several.
    """
    line_start = b""  # the rank's heartbeats come from a thread, so one may split a line
    with contextlib.closing(_Log(rank.placement.log)) as log:
        while rank.child.stdout and (line := rank.child.stdout.readline(LONGEST_LINE)):
            output, step = split_heartbeat(line)
            while events.qsize() > MOST_EVENTS:  # a rank that prints without end waits, and takes no memory here
                time.sleep(EVENTS_CHECK_S)
            line_start += output
            if step is not None:
                events.put(Heartbeat(rank, step))
                if len(line_start) < LONGEST_LINE:
                    continue
            text, line_start = _printable(line_start), b""
            log.write(f"{text}\n")
            rank.last_lines.append(text)
            if GPU_WATCHDOG.search(text):  # here, because a traceback follows it, longer than LAST_LINES
                rank.was_interrupted.set()
            events.put(Line(rank, text))
        log.write(_printable(line_start))


def _printable(line: bytes) -> str:
    return printable_lines(line.decode(errors="replace").rstrip())


def _wait_for_exit(rank: Rank, events: Events) -> None:
    status = rank.child.wait()
    process.signal_group(rank.child, signal.SIGKILL)  # children that the rank left behind
    rank.threads[0].join(timeout=1)  # put the last lines before the exit
    if not is_local(rank.host) and status - SIGNAL in signal.valid_signals():
        status = SIGNAL - status  # over ssh the shell reports signal n as 128 + n
    events.put(Exited(rank, status))
