"""Running commands whose life is bound to ours: no child outlives a signal, an error or a kill -9 of this process."""

import os
import signal
import subprocess
import sys
from typing import Any

from thunder_train import ThunderError

_LIVE: set["subprocess.Popen[bytes]"] = set()
"""Children that run now. Under `doit -n` several threads wait, and a signal reaches only the main one."""
GRACE_S = 15
"""Seconds between SIGTERM and SIGKILL: the launcher needs five to end its ranks."""


def command(argv: list[str], where: str, hint: str) -> None:
    """Run one of our own programs with our output; ThunderError when it fails.

    Its stdin is a pipe from us, and it ends when that closes (THUNDER_STDIN): not even kill -9 leaves it behind.
    """
    # Rendered scripts run our own interpreter, whatever environment we were started from.
    environment = {**os.environ, "THUNDER_PYTHON": sys.executable, "THUNDER_STDIN": "1"}
    _finish(argv, subprocess.PIPE, environment, where, hint)


def tool(argv: list[str], where: str, hint: str) -> None:
    """Run another program, as pytest, to its end; ThunderError when it fails."""
    _finish(argv, subprocess.DEVNULL, dict(os.environ), where, hint)


def interrupt(*_: Any) -> None:
    """Signal handler: ask every child to end, then end as Ctrl-C does."""
    for child in list(_LIVE):
        child.send_signal(signal.SIGTERM)
    raise KeyboardInterrupt


def _finish(argv: list[str], stdin: int, environment: dict[str, str], where: str, hint: str) -> None:
    sys.stdout.flush()  # into a pipe, our own lines would follow the child's
    child = subprocess.Popen(argv, start_new_session=True, stdin=stdin, env=environment)
    _LIVE.add(child)
    try:
        status = child.wait()
    except BaseException:
        child.send_signal(signal.SIGTERM)  # the launcher ends its ranks on this, remote ones too
        try:
            child.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        _LIVE.discard(child)
        if child.stdin:
            child.stdin.close()
    if status:
        raise ThunderError(_how(status), where=where, hint=hint)


def _how(status: int) -> str:
    return f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
