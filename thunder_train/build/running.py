"""Which stage runs now, since when, and at which step: for whoever looks from a second terminal.

A stage that begins leaves a mark in the state that names its process. A mark whose process has ended means that the
stage was interrupted, however that process ended.
"""

import json
import os
import re
import subprocess
import time
from pathlib import Path

from thunder_train.core import paths

INTERRUPTED = "was interrupted"
RUNNING = "running"
STEP = re.compile(rb"step (\d+/\d+) ")
TAIL_BYTES = 1 << 16
"""How much of a log is searched for its last step."""


def mark() -> str:
    """The mark of a stage that this process begins."""
    return json.dumps({"process": os.getpid(), "began": _began(os.getpid()), "since": time.time()})


def describe(mark: str, stage: str) -> str:
    """A stage's mark in words: `running since 14:03:07, step 12/200`, `was interrupted`, or why it failed."""
    if not mark.startswith("{"):
        return mark
    try:
        entry = json.loads(mark)
        process, began, since = int(entry["process"]), str(entry["began"]), float(entry["since"])
    except (ValueError, KeyError, TypeError):
        return INTERRUPTED
    if not began or _began(process) != began:
        return INTERRUPTED
    step = _step(stage, since)
    return f"{RUNNING} since {_clock(since)}" + (f", step {step}" if step else "")


def _began(process: int) -> str:
    """When a process began, as its system tells; "" if it is gone. A number alone may have been given again."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if os.path.exists("/proc/self/stat"):
        return ""
    try:  # macOS has no /proc
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _step(stage: str, since: float) -> str:
    """The last step in the log of rank 0, if this run of the stage has written it."""
    kind, _, recipe = stage.partition(":")
    log = Path(paths.run(recipe)) / "logs" / "rank-0.log"
    try:
        if kind != "train" or log.stat().st_mtime < since:
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            steps = STEP.findall(file.read())
    except OSError:
        return ""
    return steps[-1].decode() if steps else ""


def _clock(since: float) -> str:
    then, now = time.localtime(since), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)
