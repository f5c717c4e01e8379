"""Latency and bandwidth of a link, by plain TCP: one host listens on its own address there, another connects.

Sent to hosts that may have neither the project nor its environment: standard library and Python 3.9 only.
"""

from __future__ import annotations

import select
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

ROUND_TRIPS = 10
MESSAGE_BYTES = 16_000_000
MESSAGE_WITHIN_S = 2.0
ANSWER_WITHIN_S = 3.0
"""Until a connection stands; and for any byte of it to come. Three resent packets of a bad link need less."""
PART_BYTES = 1 << 18
RESULT = struct.Struct("!Qd")
"""What the listener says at the end: bytes that came, and the seconds they took."""
_OPEN: list[socket.socket] = []
"""Listening sockets, kept until this process ends."""


def listen(address: str) -> dict[str, Any]:
    """Answer measurements on a free port of that address alone, until this process ends: {"port"} or {"error"}."""
    return answering(address, _answer)


def answering(address: str, answer: Callable[[socket.socket], None]) -> dict[str, Any]:
    """The same with any answer to a connection, which is closed behind it."""
    if not address:  # to the system, any address would do
        return {"error": "no address to listen on"}
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.bind((address, 0))
    except OSError as error:
        server.close()
        return {"error": error.strerror}
    server.listen(8)
    _OPEN.append(server)
    threading.Thread(target=_accept, args=(server, answer), daemon=True).start()
    return {"port": server.getsockname()[1]}


def _accept(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    def one(link: socket.socket) -> None:
        with link, suppress(OSError):  # who connected notices it too
            answer(link)

    while True:
        threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()


def _answer(link: socket.socket) -> None:
    """Echo the round trips, then count what comes: the receiver's figures, for a sender sees only its own buffers."""
    _prepare(link)
    for _ in range(ROUND_TRIPS):
        link.sendall(receive(link, 1))
    got, start = 0, time.perf_counter()
    while got < MESSAGE_BYTES and time.perf_counter() - start < MESSAGE_WITHIN_S:
        part = link.recv(PART_BYTES)
        if not part:
            return
        got += len(part)
    link.sendall(RESULT.pack(got, time.perf_counter() - start))
    link.recv(1)  # the sender closes; closing here first would take the figures back


def measure(address: str, port: int) -> dict[str, Any]:
    """The link to a listener: source (own address), latency_ms (median round trip), bytes_per_second; or error.

    Connects as MLX's ring does, without an address of its own: so it takes the way that MLX would take.
    """
    try:
        with socket.create_connection((address, port), timeout=ANSWER_WITHIN_S) as link:
            _prepare(link)
            latency_ms = statistics.median(_round_trip_ms(link) for _ in range(ROUND_TRIPS))
            got, seconds = _send(link)
            # What still waits to be sent on a slow link is thrown away, not sent for minutes.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            source = link.getsockname()[0]
    except socket.timeout:  # noqa: UP041  (TimeoutError is another class before Python 3.10)
        return {"error": f"no answer within {ANSWER_WITHIN_S:g} s"}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return {"source": source, "latency_ms": round(latency_ms, 3), "bytes_per_second": round(got / seconds)}


def _prepare(link: socket.socket) -> None:
    link.settimeout(ANSWER_WITHIN_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _round_trip_ms(link: socket.socket) -> float:
    start = time.perf_counter()
    link.sendall(b"?")
    receive(link, 1)
    return 1000 * (time.perf_counter() - start)


def _send(link: socket.socket) -> tuple[int, float]:
    """Send until the listener has enough: bytes that came there, seconds it took. Raises OSError, also on silence."""
    part, left = memoryview(bytes(PART_BYTES)), MESSAGE_BYTES
    limit_s = time.perf_counter() + MESSAGE_WITHIN_S + ANSWER_WITHIN_S
    link.setblocking(False)
    while time.perf_counter() < limit_s:
        readable, writable, _ = select.select([link], [link] if left else [], [], 0.5)
        if readable:
            link.settimeout(ANSWER_WITHIN_S)
            got, seconds = RESULT.unpack(receive(link, RESULT.size))
            return got, max(seconds, 1e-6)
        if writable:
            left -= link.send(part[:left])
    raise socket.timeout  # noqa: UP041


def receive(link: socket.socket, count: int) -> bytes:
    """Exactly so many bytes. Raises ConnectionError when the other side closes before."""
    found = b""
    while len(found) < count:
        part = link.recv(count - len(found))
        if not part:
            raise ConnectionError("the other side closed the connection")
        found += part
    return found
