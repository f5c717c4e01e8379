"""Large files from one host to another over the training link, by plain TCP: one serves named files, another fetches.

Only who has the key is served, and only what was named; the bytes travel in clear, as those of MLX's ring do, and are
hashed as they arrive. Sent to hosts: standard library and Python 3.9 only.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from thunder_train.agent.link import answering, receive

SILENT_S = 20.0
"""Without a byte for so long, a transfer is given up."""
CHALLENGE_BYTES = 32
NAME, SIZE = struct.Struct("!H"), struct.Struct("!q")
REFUSED = -1
"""In the place of a size: no key, or no such file."""
PART_BYTES = 1 << 20
DRAFT = ".draft"


def serve(address: str, key: str, files: dict[str, str]) -> dict[str, Any]:
    """Serve files on a free port of that address alone, until this process ends: {"port"} or {"error"}.

    files: {name: path from the home folder}.
    """
    places = {name: _at_home(path) for name, path in files.items()}
    return answering(address, lambda link: _serve(link, key.encode(), places))


def _serve(link: socket.socket, key: bytes, places: dict[str, str]) -> None:
    link.settimeout(SILENT_S)
    challenge = os.urandom(CHALLENGE_BYTES)
    link.sendall(challenge)
    name = receive(link, NAME.unpack(receive(link, NAME.size))[0])
    is_known = hmac.compare_digest(receive(link, len(challenge)), _proof(key, challenge, name))
    place = places.get(name.decode(errors="replace")) if is_known else None
    if place is None:
        link.sendall(SIZE.pack(REFUSED))
        return
    with open(place, "rb") as file:
        link.sendall(SIZE.pack(os.fstat(file.fileno()).st_size))
        link.sendfile(file)


def fetch(address: str, port: int, key: str, folder: str, hashes: dict[str, str]) -> dict[str, Any]:
    """Fetch files into folder, relative to the home folder: {"bytes", "seconds"}, or {"error"} at the first failure.

    hashes: {name: sha256}. A file gets its name when all of it is there and right. What breaks off gets it too if it is
    more than was there before: rsync goes on from it.
    """
    began, total = time.perf_counter(), 0
    try:
        for name, sha256 in hashes.items():
            target = os.path.join(_at_home(folder), name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with _longer_kept(target), socket.create_connection((address, port), timeout=SILENT_S) as link:
                total += _fetch(link, key.encode(), name, target + DRAFT, sha256)
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return {"bytes": total, "seconds": time.perf_counter() - began}


@contextlib.contextmanager
def _longer_kept(target: str) -> Iterator[None]:
    """Put the draft of a file in its place at the end; after a failure only when it is longer than what is there."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            if not os.path.exists(target) or os.path.getsize(target) < os.path.getsize(target + DRAFT):
                os.replace(target + DRAFT, target)
        raise
    os.replace(target + DRAFT, target)


def _fetch(link: socket.socket, key: bytes, name: str, target: str, sha256: str) -> int:
    challenge, word = receive(link, CHALLENGE_BYTES), name.encode()
    link.sendall(NAME.pack(len(word)) + word + _proof(key, challenge, word))
    size = SIZE.unpack(receive(link, SIZE.size))[0]
    if size == REFUSED:
        raise ConnectionError(f"{name} was refused")
    digest, left, part = hashlib.sha256(), size, memoryview(bytearray(PART_BYTES))
    with open(target, "wb") as file:
        while left:
            count = link.recv_into(part[:left])
            if not count:
                raise ConnectionError("the other side closed the connection")
            file.write(part[:count])
            digest.update(part[:count])
            left -= count
    if digest.hexdigest() != sha256:
        os.unlink(target)
        raise ConnectionError(f"{name} is another file there")
    return int(size)


def _at_home(path: str) -> str:
    return os.path.join(os.path.expanduser("~"), path)


def _proof(key: bytes, challenge: bytes, name: bytes) -> bytes:
    """What only a holder of the key can say, and only of this name on this connection."""
    return hmac.new(key, challenge + name, hashlib.sha256).digest()
