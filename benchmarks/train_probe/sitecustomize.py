"""Python loads this module in every process of the training benchmark: same BLAS for both sides, peak memory.

Reads BENCH_PIN (any value: each rank runs on its own core) and BENCH_PROBE, a folder for one JSON file per process.
"""

import atexit
import ctypes
import json
import os
import resource
import sys
from pathlib import Path

RANK = int(os.environ.get("MLX_RANK", "0"))


def write_peak() -> None:
    """Write the peak memory of this process if it used MLX."""
    if "mlx.core" not in sys.modules:
        return
    import mlx.core as mx

    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = {"rank": RANK, "mlx_bytes": mx.get_peak_memory(), "rss_bytes": rss}
    (Path(os.environ["BENCH_PROBE"]) / f"{os.getpid()}.json").write_text(json.dumps(peak))


if "BENCH_PROBE" in os.environ:
    from thunder_train.core import blas

    ctypes.CDLL(str(blas.library()), mode=ctypes.RTLD_GLOBAL)
    atexit.register(write_peak)
if "BENCH_PIN" in os.environ:
    os.sched_setaffinity(0, {RANK % (os.cpu_count() or 1)})
