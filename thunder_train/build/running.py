"""Which stage runs now, since when, and at which step: for whoever looks from a second terminal.

A stage that begins leaves a mark in the state that names its process. A mark whose process has ended means that the
stage was interrupted, however that process ended.
"""

import json
import os
import subprocess
import time
from pathlib import Path

from thunder_train.core import files, paths, progress

INTERRUPTED = "was interrupted"
RUNNING = "running"


def mark() -> str:
    """The mark of a stage that this process begins."""
    return json.dumps({"process": os.getpid(), "began": _began(os.getpid()), "since": time.time()})


def describe(mark: str, stage: str) -> str:
    """A stage's mark in words: `running since 14:03:07, step 12/200, 2 s/step, 6 min left`, or why it failed."""
    if not mark.startswith("{"):
        return mark
    try:
        entry = json.loads(mark)
        process, began, since = int(entry["process"]), str(entry["began"]), float(entry["since"])
    except (ValueError, KeyError, TypeError):
        return INTERRUPTED
    if not began or _began(process) != began:
        return INTERRUPTED
    return ", ".join([f"{RUNNING} since {_clock(since)}", *_progress(stage, since)])


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


def _progress(stage: str, since: float) -> list[str]:
    """How far a training is, if this run of the stage has said it: step, then rate and time left."""
    kind, _, recipe = stage.partition(":")
    file = Path(paths.run(recipe)) / "logs" / "progress.json"
    try:
        if kind != "train" or file.stat().st_mtime < since:
            return []
        facts = json.loads(files.read_text(file))
        pace = progress.in_words(facts["steps_per_s"], facts["seconds_left"])
        return [f"step {int(facts['step'])}/{int(facts['steps'])}", *[pace] * bool(pace)]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _clock(since: float) -> str:
    then, now = time.localtime(since), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)
