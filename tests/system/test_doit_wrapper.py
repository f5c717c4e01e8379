"""./doit makes the environment once, runs doit from any folder, and reports what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, Copy


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A project folder with the wrapper, an empty home, and an environment whose doit only prints its arguments."""
    project = tmp_path / "a project"
    project.mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(PROJECT / "doit", project / "doit")
    (project / "requirements.lock").write_text("# nothing\n")
    return project


def run(clone: Path, *arguments: str, cwd: Path | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run ./doit with the test's folder first on PATH."""
    path = f"{clone.parent / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(clone.parent), **env}
    command = ["bash", str(clone / "doit"), *arguments]
    return subprocess.run(command, cwd=cwd or clone, env=environment, capture_output=True, text=True, check=False)


def fake_program(clone: Path, name: str, script: str) -> None:
    """Write a program that is first on PATH."""
    (clone.parent / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (clone.parent / "bin" / name).chmod(0o755)


def make_environment(clone: Path, status: int = 0) -> None:
    """A current environment whose interpreter prints its folder and its arguments."""
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").write_text(f'#!/bin/sh\necho "$PWD: $@"\nexit {status}\n')
    (clone / ".venv/bin/python").chmod(0o755)
    shutil.copy(clone / "requirements.lock", clone / ".venv/requirements.lock")


def test_it_runs_doit_from_any_directory_with_the_same_arguments_and_status(clone: Path, tmp_path: Path) -> None:
    """
    A space in the path and in an argument must survive.
    """
    make_environment(clone, status=7)

    done = run(clone, "train:smoke", "a b", cwd=tmp_path)

    assert (7, f"{clone}: -P -m thunder_train.cli train:smoke a b\n") == (done.returncode, done.stdout)


def test_a_python_that_is_too_old_is_reported(clone: Path) -> None:
    """
    tomllib came with 3.11.
    """
    fake_program(clone, "old", '[ "$1" = --version ] && echo "Python 3.9.6" && exit 0; exit 1')

    done = run(clone, PYTHON="old")

    assert 3 == done.returncode
    assert "./doit: Python 3.11 or newer is needed; found: Python 3.9.6" in done.stderr


def test_a_python_without_venv_is_reported(clone: Path) -> None:
    """
    Debian ships Python without it.
    """
    fake_program(clone, "bare", f'[ "$1" = -m ] && exit 1; exec {sys.executable} "$@"')

    done = run(clone, PYTHON="bare", PATH=f"{clone.parent / 'bin'}:/usr/bin:/bin")

    assert 3 == done.returncode
    assert "./doit: this Python has no venv module" in done.stderr
    assert "python3-venv" in done.stderr


def test_packages_that_cannot_be_fetched_are_reported_and_tried_again(clone: Path) -> None:
    """
    Without a network or with a wrong hash the environment stays unfinished, and the next ./doit starts over.
    """
    (clone / "requirements.lock").write_text(f"rapidfuzz==3.14.6 --hash=sha256:{'0' * 64}\n")
    offline = {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "PIP_NO_INDEX": "1", "UV_NO_INDEX": "1"}

    done = run(clone, PYTHON=sys.executable, **offline)

    assert 3 == done.returncode
    assert "./doit: the packages of requirements.lock could not be installed, see above" in done.stderr
    assert "connect and run ./doit again" in done.stderr
    assert not (clone / ".venv/requirements.lock").exists()
    assert not (clone / ".venv.lock").exists()


def test_an_environment_is_made_when_the_lock_has_changed(clone: Path) -> None:
    """
    The lock is empty here, so nothing is fetched. The path to the project's folder is relative.
    """
    make_environment(clone)
    (clone / "requirements.lock").write_text("# another lock\n")

    done = run(clone, "list", PYTHON=sys.executable, PATH="/usr/bin:/bin")

    assert "./doit: making .venv from requirements.lock with Python 3." in done.stderr
    assert "No module named 'thunder_train'" in done.stderr
    assert "# another lock\n" == (clone / ".venv/requirements.lock").read_text()
    assert "../../../..\n" == next((clone / ".venv").rglob("thunder_train.pth")).read_text()


def test_a_lock_left_by_a_killed_run_is_taken_over(clone: Path) -> None:
    """
    A kill -9 during the set-up must not block every later ./doit.
    """
    (clone / ".venv.lock").mkdir()
    (clone / ".venv.lock/pid").write_text("999999\n")

    run(clone, "list", PYTHON=sys.executable, PATH="/usr/bin:/bin")

    assert (clone / ".venv/requirements.lock").exists()


def test_the_lock_names_no_registry_and_hashes_every_package() -> None:
    """
    One lock serves Linux and macOS; the address of a mirror would not work elsewhere.
    """
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]

    assert not [line for line in lines if "://" in line or line.startswith("-")]
    assert all(line.endswith("\\") for line in packages)
    assert {"mlx-cpu==0.32.4", "mlx-metal==0.32.4"} <= {line.split(" ")[0] for line in packages}


@pytest.mark.ranks
def test_modules_of_the_user_do_not_stand_in_for_others(fresh: Copy) -> None:
    """
    A random.py beside dodo.py is the user's affair: doit, the preflight's ranks and the workers import Python's own.
    """
    if not (Path(sys.prefix) / "requirements.lock").exists():
        pytest.skip("needs the environment that ./doit makes")
    (fresh.path / ".venv").symlink_to(sys.prefix)
    for name in ("doit", "requirements.lock"):
        shutil.copy(PROJECT / name, fresh.path / name)
    for name in ("random", "types", "typing", "warnings", "json", "tempfile", "numpy", "doit", "toml"):
        (fresh.path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\n")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}

    done = subprocess.run(
        ["bash", str(fresh.path / "doit"), "train:smoke"],
        env=environment, cwd=fresh.path / "recipes", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, True) == (done.returncode, ".  train:smoke\n" in done.stdout), done.stdout + done.stderr
    assert (fresh.path / "runs/smoke/adapter/adapters.safetensors").exists()
