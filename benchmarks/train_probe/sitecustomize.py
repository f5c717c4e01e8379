"""Loaded by every Python that the training benchmark starts: one BLAS for both sides, and their peak memory.

Reads BENCH_PIN (any value: each rank keeps to a core of its own) and BENCH_PROBE, a folder for one JSON file a process.
"""

import atexit
import ctypes
import json
import os
import resource
import sys
from pathlib import Path

RANK = int(os.environ.get("MLX_RANK", "0"))


def tell() -> None:
    """Write what a process that used MLX had needed at its peak."""
    if "mlx.core" not in sys.modules:
        return
    import mlx.core as mx

    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = {"rank": RANK, "mlx_bytes": mx.get_peak_memory(), "rss_bytes": rss}
    (Path(os.environ["BENCH_PROBE"]) / f"{os.getpid()}.json").write_text(json.dumps(peak))


if "BENCH_PROBE" in os.environ:
    ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
    atexit.register(tell)
if "BENCH_PIN" in os.environ:
    os.sched_setaffinity(0, {RANK % (os.cpu_count() or 1)})
