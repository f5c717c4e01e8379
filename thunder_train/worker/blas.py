"""A fast BLAS for Linux CPUs: must run before the first `import mlx`.

The Linux CPU wheel of mlx links the reference BLAS. OpenBLAS, loaded first with global symbols, takes its place.
Pinning the kernel gives every x86-64 machine with AVX2 the same bits.
"""

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path

WARNING = (
    "thunder: OpenBLAS is missing, so float32 products run about 30-70 times slower; "
    "mend: apt-get install -y libopenblas0-pthread"
)


@functools.cache
def preload() -> dict[str, str]:
    """Load OpenBLAS on Linux and say what computes: {"blas", "blas_kernel", "blas_threads"}.

    Values already in OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS stand. Without OpenBLAS rank 0 warns once on stderr.
    """
    if sys.platform == "darwin":
        return {"blas": "accelerate", "blas_kernel": "", "blas_threads": ""}
    if platform.machine() == "x86_64" and _has_avx2():
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _describe(ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL))
    except OSError:
        if os.environ.get("MLX_RANK", "0") == "0":
            print(WARNING, file=sys.stderr)
        return {"blas": "reference", "blas_kernel": "", "blas_threads": "1"}


def _has_avx2() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx2 " in cpuinfo.read_text(encoding="utf-8", errors="replace")


def _describe(library: ctypes.CDLL) -> dict[str, str]:
    return {
        "blas": " ".join(_ask(library, "config").lower().split()[:2]),
        "blas_kernel": _ask(library, "corename"),
        "blas_threads": str(library.openblas_get_num_threads()),  # another number adds up in another order
    }


def _ask(library: ctypes.CDLL, what: str) -> str:
    function = library[f"openblas_get_{what}"]
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()
