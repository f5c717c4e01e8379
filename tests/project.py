"""A copy of this project, and the real doit in it."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Built:
    """What one run of doit said."""

    status: int
    ran: list[str]
    output: str


@dataclass(frozen=True)
class Copy:
    """A project folder, and doit in it."""

    path: Path

    def doit(self, *words: str) -> Built:
        """Run doit as ./doit does, without the environment's set-up."""
        done = subprocess.run(
            [sys.executable, "-m", "doit", *words],
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        ran = [line[3:] for line in done.stdout.splitlines() if line.startswith(".  ")]
        return Built(done.returncode, ran, done.stdout)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that must be there."""
        text = (self.path / file).read_text(encoding="utf-8")
        assert old in text
        (self.path / file).write_text(text.replace(old, new), encoding="utf-8")


def copy_sources(target: Path) -> Copy:
    """What git would give a new user, without needing git."""
    ignored = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
    for name in ("thunder_train", "recipes", "templates", "data/sources"):
        shutil.copytree(PROJECT / name, target / name, ignore=ignored)
    for name in ("dodo.py", "thunder.toml", "pyproject.toml"):
        shutil.copy(PROJECT / name, target / name)
    return Copy(target)
