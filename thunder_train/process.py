"""Running a command whose life is bound to ours."""

import os
import signal
import subprocess
import sys

from thunder_train import ThunderError


def command(argv: list[str], where: str, mend: str) -> None:
    """Run a command with our own input and output; ThunderError when it fails. It never outlives us."""
    # Rendered scripts run our own interpreter, whatever environment we were started from.
    environment = {**os.environ, "THUNDER_PYTHON": sys.executable}
    sys.stdout.flush()  # into a pipe, our own lines would follow the child's
    child = subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, env=environment)
    try:
        status = child.wait()
    except BaseException:
        child.send_signal(signal.SIGTERM)  # the launcher ends its ranks on this, remote ones too
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
        raise
    if status:
        raise ThunderError(f"ended with status {status}", where=where, mend=mend)
