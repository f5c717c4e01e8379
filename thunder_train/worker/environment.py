"""The environment that can change numbers: it goes into done.json and from there into the run's identity."""

import platform
import sys
from importlib.metadata import version

import mlx.core as mx

from thunder_train.worker.blas import preload


def environment() -> dict[str, str]:
    """Python minor, platform, device, mlx, mlx-lm, BLAS and its kernel; no host name, no path."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "platform": f"{sys.platform}-{platform.machine()}",
        "device": mx.default_device().type.name,
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
        **preload(),
    }
