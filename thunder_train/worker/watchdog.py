"""No worker outlives its launcher, even one that died by kill -9: the launcher holds the worker's stdin open."""

import os
import threading


def follow_launcher() -> None:
    """Watch stdin in a daemon thread when THUNDER_STDIN=1, and end this process when it closes."""
    if os.environ.get("THUNDER_STDIN") == "1":
        threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()


def _exit_at_end_of_stdin() -> None:
    # os.read, not sys.stdin: a thread inside sys.stdin's lock would disturb the interpreter's own ending.
    while os.read(0, 4096):
        pass
    os._exit(1)
