"""Whether processes of a test still run. Their ids are in files, which the processes write."""

import os
import time
from collections.abc import Iterable
from pathlib import Path


def alive(file: Path) -> bool:
    """Whether the process whose id is in a file runs; a zombie does not."""
    pid = int(file.read_text())
    try:
        os.kill(pid, 0)
        if not Path("/proc/self").exists():  # macOS
            return True
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def all_end(files: Iterable[Path], within_s: float = 2) -> bool:
    """Whether the processes whose ids are in these files end in time: SIGKILL takes a busy machine a moment."""
    limit, running = time.monotonic() + within_s, list(files)
    while any(alive(file) for file in running):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True
