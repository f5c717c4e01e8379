"""Ends a worker whose launcher is gone, or that finishes no step for too long; sends the launcher heartbeats.

The launcher holds the worker's stdin open, which closes however the launcher ends, even by kill -9. A heartbeat is a
line `thunder-beat STEP` on stdout each second, under THUNDER_BEATS=1.
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
"""Extra time for a rank that waits for others: so the rank that they wait for reaches its limit first, and is named."""


def follow_launcher() -> None:
    """With THUNDER_STDIN=1, end this process when its stdin closes."""
    if os.environ.get("THUNDER_STDIN") == "1":
        threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()


def _exit_at_end_of_stdin() -> None:
    # os.read, not sys.stdin: a thread that holds sys.stdin's lock would disturb the interpreter's shutdown.
    while os.read(0, 4096):
        pass
    os._exit(1)


class Watchdog:
    """A context in which this process ends itself, with status 70 and one line, when no step ends in time.

    stall_timeout_s: most seconds between two beats. start_timeout_s: until the first. 0: no limit. A thread watches,
    which works while MLX computes or communicates, for MLX then releases Python's global lock.
    """

    def __init__(self, stall_timeout_s: float, start_timeout_s: float) -> None:
        self.stall_timeout_s, self.start_timeout_s = stall_timeout_s, start_timeout_s
        self.step, self.since_s, self.is_waiting = 0, time.monotonic(), False
        self.ended, self.ending = threading.Event(), threading.Lock()

    def __enter__(self) -> "Watchdog":
        self.since_s = time.monotonic()
        self._send_beat()  # at once: the thread cannot while this rank joins the others
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.ended.set()

    def beat(self, step: int) -> None:
        """A step (counted from 1) has ended, or, with the same number, a part of the validation after it.

        0: a part of the validation before the first step. The limit of the start holds for each part.
        """
        is_first = step > 0 and not self.step
        self.step, self.since_s = step, time.monotonic()
        if is_first:
            self._send_beat()  # at once: from now on the launcher applies the stall timeout

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a collective: this rank waits for others, and gets WAIT_LONGER_S more."""
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    @contextlib.contextmanager
    def joining(self) -> Iterator[None]:
        """Around mx.distributed.init, in the main thread. It holds the global lock, so a signal must end it."""
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
            self._send_beat()

    def _send_beat(self) -> None:
        if os.environ.get("THUNDER_BEATS") == "1":
            _write(1, f"thunder-beat {self.step}\n")

    def _left_s(self) -> float:
        limit_s = self.stall_timeout_s if self.step else self.start_timeout_s
        if not limit_s:
            return math.inf
        return self.since_s + limit_s + WAIT_LONGER_S * self.is_waiting - time.monotonic()

    def _end(self) -> None:
        self.ending.acquire()  # and never released: thread and signal must not both print the line
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
    """Addresses of the ring's neighbours that do not answer a connection; a running host at least refuses it."""
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
    # A single write to the descriptor takes no lock that the main thread may hold, and is not interleaved with others.
    with contextlib.suppress(OSError):
        os.write(number, text.encode())
