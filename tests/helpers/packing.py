"""Packed files, as tests write them."""

import importlib
import sys
from collections.abc import Callable

Pack = Callable[[bytes], bytes]


def zstd(content: bytes) -> bytes:
    """Bytes as a .zst file holds them."""
    module = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    packed: bytes = module.compress(content)
    return packed
