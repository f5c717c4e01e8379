"""The commit of a project's folder, for people who look at a run later; no part of what a run is known by.

Input: the folder, in a checkout of git or not.  Output: the commit, and whether its own files were changed since.
"""

import subprocess
from pathlib import Path

BUILT = (":(exclude)runs", ":(exclude)data/*/manifest.json", ":(exclude)data/*/accepted.json")
"""What a build itself changes among tracked files."""


def commit(folder: Path = Path()) -> str:
    """ "0123456789ab", "0123456789ab and changes"; "" outside a checkout, without commits or without git."""
    head = _git(folder, "rev-parse", "--verify", "--short=12", "HEAD").strip()
    if not head:
        return ""
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *BUILT)
    return f"{head} and changes" if changes.strip() else head


def _git(folder: Path, *words: str) -> str:
    """What git answers; "" if it fails."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=folder, capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
