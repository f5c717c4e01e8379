"""No worker outlives its launcher, and none stands still for ever.

The launcher holds the worker's stdin open, so even its kill -9 is seen. A thread ends a rank that finishes no step, and
tells the launcher every second that the rank lives: `thunder-beat STEP` on stdout, under THUNDER_BEATS=1.
"""

import contextlib
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from thunder_train.core.exit_codes import STALLED

BEAT_EVERY_S = 1.0
WAIT_LONGER_S = 3.0
"""A rank that waits for the others ends itself so much later, for the one they wait for is to be named."""


def follow_launcher() -> None:
    """Watch stdin in a daemon thread when THUNDER_STDIN=1, and end this process when it closes."""
    if os.environ.get("THUNDER_STDIN") == "1":
        threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()


def _exit_at_end_of_stdin() -> None:
    # os.read, not sys.stdin: a thread inside sys.stdin's lock would disturb the interpreter's own ending.
    while os.read(0, 4096):
        pass
    os._exit(1)


class Watchdog:
    """A context in which this process ends itself, with status 70 and one line, when it finishes no step for too long.

    stall_timeout_s: between two beats; start_timeout_s: until the first; 0: no limit. It works while MLX computes or
    communicates, which lets other threads run; joining does not, see there.
    """

    def __init__(self, stall_timeout_s: float, start_timeout_s: float) -> None:
        self.stall_timeout_s, self.start_timeout_s = stall_timeout_s, start_timeout_s
        self.step, self.since_s, self.is_waiting = 0, time.monotonic(), False
        self.ended, self.last_words = threading.Event(), threading.Lock()

    def __enter__(self) -> "Watchdog":
        self.since_s = time.monotonic()
        self._tell()  # now, for joining comes next and stops the thread
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()

    def beat(self, step: int) -> None:
        """A step (counted from 1) has ended; or, with the same number, a part of a long validation after it."""
        is_first = not self.step
        self.step, self.since_s = step, time.monotonic()
        if is_first:
            self._tell()  # the launcher's limit changes

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """For a collective: should it never end, the rank at fault ends itself first."""
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    @contextlib.contextmanager
    def joining(self) -> Iterator[None]:
        """For mx.distributed.init: it keeps other threads from running, so a signal ends it. Main thread only."""
        former = signal.signal(signal.SIGALRM, lambda *_: self._end())
        with self.waiting():
            left_s = self._left_s()
            signal.setitimer(signal.ITIMER_REAL, max(left_s, 0.001) if math.isfinite(left_s) else 0)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, former)

    def _watch(self) -> None:
        while not self.ended.wait(max(0.0, min(BEAT_EVERY_S, self._left_s()))):
            if self._left_s() <= 0:
                self._end()
            self._tell()

    def _tell(self) -> None:
        if os.environ.get("THUNDER_BEATS") == "1":
            _write(1, f"thunder-beat {self.step}\n")

    def _left_s(self) -> float:
        limit_s = self.stall_timeout_s if self.step else self.start_timeout_s
        if not limit_s:
            return math.inf
        return self.since_s + limit_s + WAIT_LONGER_S * self.is_waiting - time.monotonic()

    def _end(self) -> None:
        self.last_words.acquire()  # for good: thread and signal must not both speak
        when = f"after step {self.step}" if self.step else "since the start"
        doing = ""
        if self.is_waiting:
            silent = [f"; {address} does not answer" for address in silent_neighbours()]
            doing = f", while waiting for the other ranks{''.join(silent)}"
        seconds = time.monotonic() - self.since_s
        rank = os.environ.get("MLX_RANK", "0")
        _write(2, f"rank {rank}: no step ended for {seconds:.0f} s {when}{doing}; its watchdog ended it\n")
        os._exit(STALLED)


def silent_neighbours(within_s: float = 1.0) -> list[str]:
    """Addresses of the ring's neighbours that say nothing at all; a host that lives at least refuses a connection."""
    table = json.loads(os.environ.get("THUNDER_FILE_MLX_HOSTFILE", "[]"))
    mine = int(os.environ.get("MLX_RANK", "0"))
    links = {link for other in (mine - 1, mine + 1) if table for link in table[other % len(table)]}
    silent = []
    for ip, _, port in (link.rpartition(":") for link in sorted(links)):
        try:
            socket.create_connection((ip, int(port)), timeout=within_s).close()
        except ConnectionRefusedError:
            pass
        except OSError:
            silent.append(ip)
    return silent


def _write(number: int, text: str) -> None:
    # One write to the descriptor: it needs no lock that the main thread may hold, and nothing can come in between.
    with contextlib.suppress(OSError):
        os.write(number, text.encode())
