"""A copy of this project, and the real doit in it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from thunder_train.core import paths

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Built:
    """The result of one run of doit."""

    status: int
    ran: list[str]
    restored: list[str]
    output: str


@dataclass(frozen=True)
class Copy:
    """A project folder, and doit in it."""

    path: Path

    def doit(self, *arguments: str) -> Built:
        """Run doit as ./doit does, without the environment's set-up."""
        done = subprocess.run(
            [sys.executable, "-m", "thunder_train.cli", *arguments],
            cwd=self.path,
            env=environment(self.path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        ran, restored = (
            [line[3:] for line in done.stdout.splitlines() if line.startswith(mark)] for mark in (".  ", "+  ")
        )
        return Built(done.returncode, ran, restored, done.stdout)

    def forget_cache(self) -> None:
        """Empty the run cache, so that a stale stage runs and is not restored."""
        shutil.rmtree(self.path / ".thunder/cache")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that must be there."""
        text = (self.path / file).read_text(encoding="utf-8")
        assert old in text
        (self.path / file).write_text(text.replace(old, new), encoding="utf-8")


def environment(project: Path) -> dict[str, str]:
    """This process's variables, with the package of the copy before that of the environment."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"} | {"PYTHONPATH": str(project)}


def copy_sources(target: Path) -> Copy:
    """A clone of the project made without git. Its default recipe is smoke alone, which takes seconds.

    It has the compiled modules, too, or else its first command would compile them; without those that another process
    is writing now.
    """
    ignored = shutil.ignore_patterns("*.pyc.*", ".*", "*.egg-info")
    for name in ("thunder_train", "recipes", "templates", "data/sources", "models"):
        shutil.copytree(PROJECT / name, target / name, ignore=ignored)
    for name in ("dodo.py", "thunder.toml", "pyproject.toml"):
        shutil.copy(PROJECT / name, target / name)
    Copy(target).edit("thunder.toml", 'recipes = ["smoke", "nko-nano"]', 'recipes = ["smoke"]')
    return Copy(target)


def warm(project: Copy, built: Copy) -> Copy:
    """The copy with the memory of file hashes of a built one: else its first command reads every module, in 3 seconds.

    The memory tells files apart by their content, so it holds nothing that is not true of the copy.
    """
    (project.path / paths.STATE).mkdir(exist_ok=True)
    shutil.copy(built.path / paths.STATS, project.path / paths.STATS)
    return project


def add_lock(project: Path) -> None:
    """Give a copy the lock of its packages. Without it a sync leaves the hosts' environments alone."""
    shutil.copy(PROJECT / "requirements.lock", project)


def start_doit(project: Copy, *arguments: str, program: str = "thunder_train.cli") -> "subprocess.Popen[str]":
    """doit in a process group of its own, as a terminal would start it, to be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", program, *arguments],
        cwd=project.path,
        env=environment(project.path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Check every 50 ms until it holds."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, "it did not hold in time"
        time.sleep(0.05)
