"""How every worker program starts and ends: the launcher's files, a fast BLAS, and one line for a mistake.

Nothing here may import mlx at the top: OpenBLAS must be loaded before the first `import mlx`.
"""

import contextlib
import ctypes
import functools
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from thunder_train import ThunderError
from thunder_train.core import blas, terminal
from thunder_train.core.exit_codes import MISTAKE, RANKS_LOST, SIGNAL
from thunder_train.worker.errors import RanksLostError
from thunder_train.worker.open_files import allow_a_lower_limit
from thunder_train.worker.watchdog import follow_launcher

FILE_PREFIX = "THUNDER_FILE_"
MPI_RANK = "OMPI_COMM_WORLD_RANK"
"""Set in every rank of Open MPI."""
TRACKERS = ("wandb", "swanlab")
"""Packages that mlx-lm imports if it can."""
CACHE_BYTES = 2_000_000_000
"""Most freed memory that MLX keeps on a GPU."""
KERNELS = {"x86_64": "Haswell", "aarch64": "ARMV8"}
"""{processor: the kernel of OpenBLAS for all of its machines, so that all add the sums of a product in one order}."""


def enter(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a worker program's main with the command line and exit.

    0; 2 for a ThunderError or a file that cannot be used, with a line each on stderr; 75 when other ranks are lost.
    """
    terminal.guard()
    follow_launcher()
    with _failing_at_once():
        try:
            unpack_files()
            hide_trackers()
            preload()
            allow_a_lower_limit()
            main(sys.argv[1:])
        except ThunderError as error:
            sys.stdout.flush()
            print(error, file=sys.stderr, flush=True)
            sys.exit(RANKS_LOST if isinstance(error, RanksLostError) else MISTAKE)
        except OSError as error:
            if error.filename is None:
                raise
            sys.stdout.flush()
            print(f"{error.filename}: {error.strerror}", file=sys.stderr, flush=True)
            sys.exit(MISTAKE)
        except KeyboardInterrupt:
            sys.exit(SIGNAL + signal.SIGINT)
        finally:
            remove_files()
    sys.exit(0)


def hide_trackers() -> None:
    """Keep mlx-lm from importing wandb and swanlab wherever they are installed: each costs seconds and makes folders.

    trackers.tracker shows those that a recipe names.
    """
    for name in TRACKERS:
        # None is Python's own mark of a module that cannot be imported.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


@contextlib.contextmanager
def _failing_at_once() -> Iterator[None]:
    """Ends a failed MPI rank without Python's own clean-up, in which MLX's MPI_Finalize waits for all other ranks."""
    try:
        yield
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if MPI_RANK not in os.environ or not isinstance(status, int) or status == 0:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def unpack_files() -> None:
    """For each THUNDER_FILE_NAME=content write a temporary file and set NAME to its path.

    MLX reads addresses from files; this way the launcher need not write any on another machine.
    """
    for name in _file_names():
        number, path = tempfile.mkstemp(prefix="thunder-")
        with open(number, "w", encoding="utf-8") as file:
            file.write(os.environ[FILE_PREFIX + name])
        os.environ[name] = path


def remove_files() -> None:
    """Remove what unpack_files wrote. Called as soon as MLX has read it, so that a killed rank leaves no file."""
    for name in _file_names():
        Path(os.environ[name]).unlink(missing_ok=True)


def _file_names() -> list[str]:
    return sorted(name.removeprefix(FILE_PREFIX) for name in os.environ if name.startswith(FILE_PREFIX))


@functools.cache
def preload() -> dict[str, str]:
    """Load OpenBLAS on Linux; {"blas", "blas_kernel", "blas_threads"}: which BLAS computes.

    Only the one of this environment (core/blas.py): another machine's may add in another order. OPENBLAS_CORETYPE and
    OPENBLAS_NUM_THREADS are left as they are if set. Without OpenBLAS rank 0 warns, and MLX uses its reference BLAS.
    """
    if sys.platform == "darwin":
        return {"blas": "accelerate", "blas_kernel": "", "blas_threads": ""}
    # One kernel for all processors of a kind, and one thread: otherwise the sums of a product are added in an order
    # that depends on the machine, and its last bits differ.
    if platform.machine() in KERNELS and (platform.machine() != "x86_64" or _has_avx2()):
        os.environ.setdefault("OPENBLAS_CORETYPE", KERNELS[platform.machine()])
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _describe(_loaded(blas.library()))
    except ThunderError as error:
        if os.environ.get("MLX_RANK", os.environ.get(MPI_RANK, "0")) == "0":
            blas.warn(error)
        return {"blas": "reference", "blas_kernel": "", "blas_threads": "1"}


def _loaded(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        hint = f"remove {library}, and it will be made again"
        raise ThunderError(f"OpenBLAS cannot be loaded ({error})", where=sys.prefix, hint=hint) from error


def _has_avx2() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx2 " in cpuinfo.read_text(encoding="utf-8", errors="replace")


def _describe(library: ctypes.CDLL) -> dict[str, str]:
    return {
        "blas": " ".join(_ask(library, "config").lower().split()[:2]),
        "blas_kernel": _ask(library, "corename"),
        "blas_threads": str(library[f"{blas.PREFIX}openblas_get_num_threads"]()),
    }


def _ask(library: ctypes.CDLL, what: str) -> str:
    function = library[f"{blas.PREFIX}openblas_get_{what}"]
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()


def limit_gpu_memory() -> None:
    """On a GPU: keep the model's memory wired, as mlx-lm's trainer does, and freed memory below CACHE_BYTES.

    Each width of a batch leaves buffers of its own sizes behind, which MLX keeps for the next of that size; without a
    limit they add up to several times what a step needs (mlx-lm clears them after each step). Untested on a Mac.
    """
    import mlx.core as mx
    from mlx_lm.utils import maybe_set_recommended_wired_limit

    if mx.default_device().type == mx.gpu:
        maybe_set_recommended_wired_limit()
        mx.set_cache_limit(CACHE_BYTES)


def environment() -> dict[str, str]:
    """What can change numbers on this machine, for done.json: Python, platform, device, mlx, mlx-lm, BLAS.

    No host name and no path, for equal runs give equal bytes.
    """
    import mlx.core as mx  # late: BLAS must be loaded first

    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "platform": f"{sys.platform}-{platform.machine()}",
        "device": mx.default_device().type.name,
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
        **preload(),
    }
