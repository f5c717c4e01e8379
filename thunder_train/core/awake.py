"""Keeps a Mac awake while something runs. Untested on a Mac."""

import contextlib
import os
import shutil
import subprocess
import sys
from typing import Any

from thunder_train.core import process


def kept_awake() -> contextlib.AbstractContextManager[Any]:
    """While the block runs this Mac does not sleep when idle; its display may. Untested on a Mac.

    `caffeinate` ends with this process too, however that ends (-w). Nothing happens on another system, and on a Mac
    without it.
    """
    if sys.platform != "darwin" or not shutil.which("caffeinate"):
        return contextlib.nullcontext()
    silent: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return process.started(["caffeinate", "-is", "-w", str(os.getpid())], **silent)
