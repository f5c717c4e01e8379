"""A clone with ./doit alone, whose Python, pip and uv are fakes that install nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.helpers.project_copy import PROJECT

VENV = """\
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" "$3/lib/python${MINOR:-3.11}/site-packages"
  cp "$0.made" "$3/bin/python"
  exit
fi
"""
"""What a fake interpreter does for `-m venv FOLDER`."""
MADE = f"""\
case "$*" in
  *-m\\ pip*) echo "$*" >>"$HOME/installed"; [ ! -f "$HOME/pip" ] || . "$HOME/pip" ;;
  *thunder_train.cli*) echo "$0" >>"$HOME/ran"; exit 7 ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
"""What the interpreter of a fake environment does: pip installs nothing, and the command ends with status 7."""


def make_clone(tmp_path: Path) -> Path:
    """A project folder with the wrapper, an empty home, and an environment whose doit only prints its arguments."""
    project = tmp_path / "a project"
    project.mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(PROJECT / "doit", project / "doit")
    (project / "requirements.lock").write_text("# nothing\n")
    fake_program(project, "python3", f'{VENV}exec {sys.executable} "$@"')
    fake_program(project, "python3.made", MADE)
    return project


def environ(clone: Path, **env: str) -> dict[str, str]:
    """The test's folder first on PATH, no uv, and a home of its own."""
    return {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent), **env}


def run(clone: Path, *arguments: str, cwd: Path | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run ./doit with the fake interpreter, unless PYTHON names another."""
    command = ["bash", str(clone / "doit"), *arguments]
    return subprocess.run(
        command, cwd=cwd or clone, env=environ(clone, **env), capture_output=True, text=True, check=False
    )


def fake_program(clone: Path, name: str, script: str) -> None:
    """Write a program that is first on PATH."""
    (clone.parent / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (clone.parent / "bin" / name).chmod(0o755)


def fake_pip(clone: Path, script: str) -> None:
    """What pip does in every environment that is made from now on."""
    (clone.parent / "pip").write_text(f"{script}\n")


def lines(clone: Path, name: str) -> list[str]:
    """What the fake interpreters noted: a line in `installed` per call of pip, one in `ran` per command."""
    path = clone.parent / name
    return path.read_text().splitlines() if path.exists() else []


def sources(clone: Path) -> list[list[str]]:
    """The requirement files that each call of pip was given."""
    return [[word for word in line.split() if word.endswith(".lock")] for line in lines(clone, "installed")]


def environments(clone: Path) -> list[Path]:
    """Every whole environment."""
    return sorted(path.parent for path in clone.glob(".venv-*/requirements.lock"))


def lock(clone: Path, text: str, name: str = "requirements.lock") -> None:
    """Write another lock."""
    (clone / name).write_text(text)


def make_environment(clone: Path, status: int = 0) -> None:
    """A current environment whose interpreter prints its folder and its arguments."""
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").write_text(f'#!/bin/sh\necho "$PWD: $@"\nexit {status}\n')
    (clone / ".venv/bin/python").chmod(0o755)
    shutil.copy(clone / "requirements.lock", clone / ".venv/requirements.lock")
