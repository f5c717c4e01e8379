"""What of this machine can change numbers: versions, platform and BLAS, as far as they are known without loading mlx.

A stage that computes with mlx records all of it. Which part is compared is the recipe's choice.
"""

import importlib.metadata
import os
import sys
from functools import cache

COMPARED = {
    "none": (),
    "mlx": ("mlx", "mlx-lm"),
    "strict": ("mlx", "mlx-lm", "python", "platform", "blas"),
}
"""{[build] environment: facts whose change makes a result stale}."""
VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS")


@cache
def whole() -> dict[str, str]:
    """Every fact."""
    return part(COMPARED["strict"])


@cache
def part(names: tuple[str, ...]) -> dict[str, str]:
    """The facts of these names. A build in which nothing runs asks for few, and each costs time."""
    return {name: _fact(name) for name in names}


def _fact(name: str) -> str:
    if name == "python":
        return ".".join(map(str, sys.version_info[:3]))
    if name == "platform":
        return f"{sys.platform}-{os.uname().machine}"
    return _blas() if name == "blas" else _version(name)


@cache
def _version(package: str) -> str:
    """The version of an installed package. importlib.metadata.version parses the whole file: a millisecond each."""
    lines = (importlib.metadata.distribution(package).read_text("METADATA") or "").splitlines()
    return next(line.removeprefix("Version: ") for line in lines if line.startswith("Version: "))


def _blas() -> str:
    """The BLAS that a rank on this machine loads, and what chooses its kernel. done.json has what it really was."""
    from thunder_train.core import blas  # late: few builds ask

    if sys.platform == "darwin":
        return "accelerate"
    try:
        library = f"{blas.PACKAGE} {_version(blas.PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        library = "reference"
    return " ".join([library, *(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)])
