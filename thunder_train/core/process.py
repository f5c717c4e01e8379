"""Child processes: started in a session of their own, and ended with all that they started.

No child outlives a signal to this process or an error in it; our own programs do not even outlive its kill -9.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

from thunder_train import ThunderError
from thunder_train.core import speaker

GRACE_S = 15.0
"""Seconds between SIGTERM and SIGKILL: the launcher needs five to end its ranks."""
COPY_S = 5.0
"""Seconds to wait for a child's last lines, if a process that it left behind holds its output open."""

is_interrupted = threading.Event()
"""Whether a signal has ended this process: nothing may begin any more."""
_running: set["subprocess.Popen[bytes]"] = set()
"""Children inside `started`. Under `doit -n` several threads wait, and a signal reaches only the main one."""


def command(argv: list[str], where: str, hint: str) -> None:
    """Run one of our own programs with our output; ThunderError when it fails.

    Its stdin is a pipe from us, and it ends when that closes (THUNDER_STDIN): not even kill -9 leaves it behind.
    """
    from thunder_train.core import blas  # late: a build in which nothing runs must stay fast

    blas.check()
    # Rendered scripts run our own interpreter, whatever environment we were started from.
    environment = {**os.environ, "THUNDER_PYTHON": sys.executable, "THUNDER_STDIN": "1"}
    _run(argv, where, hint, stdin=subprocess.PIPE, env=environment)


def tool(argv: list[str], where: str, hint: str) -> None:
    """Run another program, such as pytest, to its end; ThunderError when it fails."""
    _run(argv, where, hint, stdin=subprocess.DEVNULL)


def start(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a command in a session, and so a process group, of its own. options: those of Popen. Raises OSError."""
    return subprocess.Popen(argv, start_new_session=True, **options)


@contextlib.contextmanager
def started(argv: Sequence[str], grace_s: float = GRACE_S, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command as `start` does; `end_group` it and close its pipes when the block ends, however it ends."""
    child = start(argv, **options)
    _running.add(child)
    try:
        yield child
    finally:
        end_group(child, grace_s)
        _running.discard(child)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                with contextlib.suppress(OSError):  # text that a child no longer reads
                    pipe.close()


def end_group(child: "subprocess.Popen[bytes]", grace_s: float = GRACE_S) -> None:
    """End a child that still runs, with all of its group: SIGTERM, and SIGKILL after grace_s seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            signal_group(child, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace_s)


def signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to all processes of a child's group; nothing happens if none of them is left."""
    # Of a group that has just ended Linux says ESRCH and macOS EPERM.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def follow_signals() -> None:
    """From now on a signal that would end this process ends every child first. nohup's ignored SIGHUP stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def interrupt(number: int = signal.SIGINT, *_: Any) -> None:
    """Signal handler: ask every child inside `started` to end, then end as Ctrl-C does."""
    is_interrupted.set()
    for child in list(_running):
        child.send_signal(signal.SIGTERM)
    raise KeyboardInterrupt(number)


def failure(status: int) -> str:
    """A child's exit status, which subprocess gives as a negative number for a signal, in words."""
    return f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"


def _run(argv: list[str], where: str, hint: str, **options: Any) -> None:
    sys.stdout.flush()  # into a pipe, our own lines would follow the child's
    name = speaker.name_here()
    if name:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(argv, **options) as child:
        copies = [_copy(out, name, is_error) for out, is_error in ((child.stdout, False), (child.stderr, True)) if out]
        child.stdout = child.stderr = None  # the copies read and close them
        status = child.wait()
        for copy in copies:
            copy.join(COPY_S)
    if status:
        raise ThunderError(failure(status), where=where, hint=hint)


def _copy(out: IO[bytes], name: str, is_error: bool) -> threading.Thread:
    """A thread that says every line of a child under a name. When nobody listens, the child learns it: EPIPE."""

    def copy() -> None:
        with out, contextlib.suppress(KeyboardInterrupt, OSError, ValueError):
            for line in out:
                speaker.say(line.decode("utf-8", errors="replace").rstrip("\n"), name, is_error)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread
