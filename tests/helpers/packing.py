"""Packed files, as tests write them."""

from collections.abc import Callable

import pyarrow as pa

Pack = Callable[[bytes], bytes]


def zstd(content: bytes) -> bytes:
    """Bytes as a .zst file holds them."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed
