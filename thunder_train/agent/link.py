"""Latency and bandwidth of a link between two hosts, over plain TCP: one listens on its address there, one connects.

Sent to hosts that may have neither the project nor its environment: standard library and Python 3.9 only.
"""

from __future__ import annotations

import select
import socket
import statistics
import struct
import threading
import time
from contextlib import suppress
from typing import Any

ROUND_TRIPS = 10
MESSAGE_BYTES = 16_000_000
MESSAGE_WITHIN_S = 2.0
ANSWER_WITHIN_S = 3.0
"""Limit for connecting and for each read: longer than a bad link needs to send a packet three times."""
PART_BYTES = 1 << 18
RESULT = struct.Struct("!Qd")
"""The listener's result: bytes received, and the seconds they took."""
_OPEN: list[socket.socket] = []
"""Listening sockets; they stay open until this process ends."""


def listen(address: str) -> dict[str, Any]:
    """Answer measurements on a free port of that address alone, until this process ends: {"port"} or {"error"}."""
    if not address:  # the system would listen on every address
        return {"error": "no address to listen on"}
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.bind((address, 0))
    except OSError as error:
        server.close()
        return {"error": error.strerror}
    server.listen(8)
    _OPEN.append(server)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    return {"port": server.getsockname()[1]}


def _accept(server: socket.socket) -> None:
    while True:
        threading.Thread(target=_answer, args=(server.accept()[0],), daemon=True).start()


def _answer(link: socket.socket) -> None:
    with link, suppress(OSError):  # the side that connected sees the same error and reports it
        _echo_and_count(link)


def _echo_and_count(link: socket.socket) -> None:
    """Echo the round trips, then count received bytes and seconds: a sender sees only its own buffers fill."""
    _prepare(link)
    for _ in range(ROUND_TRIPS):
        link.sendall(_receive(link, 1))
    received, start = 0, time.perf_counter()
    while received < MESSAGE_BYTES and time.perf_counter() - start < MESSAGE_WITHIN_S:
        part = link.recv(PART_BYTES)
        if not part:
            return
        received += len(part)
    link.sendall(RESULT.pack(received, time.perf_counter() - start))
    link.recv(1)  # wait until the sender closes: closing first would discard the result


def measure(address: str, port: int) -> dict[str, Any]:
    """Measure the link to a listener: source (own address), latency_ms (median round trip), bytes_per_second; or error.

    Binds no source address, as MLX's ring does not, so the connection takes the route that MLX would take.
    """
    try:
        with socket.create_connection((address, port), timeout=ANSWER_WITHIN_S) as link:
            _prepare(link)
            latency_ms = statistics.median(_round_trip_ms(link) for _ in range(ROUND_TRIPS))
            received, seconds = _send(link)
            # Discard what is still buffered: on a slow link, sending it would take minutes.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            source = link.getsockname()[0]
    except socket.timeout:  # noqa: UP041  (TimeoutError is another class before Python 3.10)
        return {"error": f"no answer within {ANSWER_WITHIN_S:g} s"}
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return {"source": source, "latency_ms": round(latency_ms, 3), "bytes_per_second": round(received / seconds)}


def _prepare(link: socket.socket) -> None:
    link.settimeout(ANSWER_WITHIN_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _round_trip_ms(link: socket.socket) -> float:
    start = time.perf_counter()
    link.sendall(b"?")
    _receive(link, 1)
    return 1000 * (time.perf_counter() - start)


def _send(link: socket.socket) -> tuple[int, float]:
    """Send until the listener reports the bytes it received and the seconds. Raises OSError, on a timeout too."""
    part, left = memoryview(bytes(PART_BYTES)), MESSAGE_BYTES
    limit_s = time.perf_counter() + MESSAGE_WITHIN_S + ANSWER_WITHIN_S
    link.setblocking(False)
    while time.perf_counter() < limit_s:
        readable, writable, _ = select.select([link], [link] if left else [], [], 0.5)
        if readable:
            link.settimeout(ANSWER_WITHIN_S)
            received, seconds = RESULT.unpack(_receive(link, RESULT.size))
            return received, max(seconds, 1e-6)
        if writable:
            left -= link.send(part[:left])
    raise socket.timeout  # noqa: UP041


def _receive(link: socket.socket, count: int) -> bytes:
    """Exactly count bytes. Raises ConnectionError when the other side closes earlier."""
    data = b""
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            raise ConnectionError("the other side closed the connection")
        data += part
    return data
