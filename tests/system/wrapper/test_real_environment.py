"""A real environment: its packages are enough, and no module of the user takes the place of one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import users_environment
from tests.helpers.project_copy import PROJECT, Copy, environment


@pytest.mark.ranks
def test_the_packages_of_users_are_enough(fresh: Copy, tmp_path: Path) -> None:
    """
    Tests run with the developers' packages; a module that imports one of those would fail at every user's.
    """
    python = users_environment.make(tmp_path / "environment")
    variables = environment(fresh.path)

    for module in ("pytest", "pyarrow", "playwright"):
        absent = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
        assert f"No module named '{module}'" in absent.stderr
    done = subprocess.run(
        [python, "-m", "thunder_train.cli"], env=variables, cwd=fresh.path, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert (fresh.path / "runs/smoke/report.html").exists()


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_one_command_makes_everything_in_a_bare_clone(tmp_path: Path, installer: str) -> None:
    """
    A newcomer has Python, an empty home and a network. What is committed stays, and nothing else is left to commit.
    """
    subprocess.run(["git", "clone", "-q", PROJECT, tmp_path / "clone"], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(Path(sys.executable).resolve())
    if installer == "uv":
        (tmp_path / "bin/uv").symlink_to(Path(sys.prefix) / "bin/uv")
    own = {name: text for name, text in os.environ.items() if "CERT" in name or name.lower().endswith("_proxy")}
    variables = {**own, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}

    done = subprocess.run(
        ["bash", "doit", "manifest:smoke"],
        cwd=tmp_path / "clone",
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    status = ["git", "status", "--porcelain", "--", ".", ":!data", ":!runs"]  # code in work gives other manifests
    changed = subprocess.run(status, cwd=tmp_path / "clone", capture_output=True, text=True, check=True)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "./doit: made it in " in done.stderr
    assert "" == changed.stdout


@pytest.mark.ranks
@pytest.mark.slow
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
    variables = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}

    done = subprocess.run(
        ["bash", str(fresh.path / "doit"), "train:smoke"],
        env=variables, cwd=fresh.path / "recipes", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, True) == (done.returncode, ".  train:smoke\n" in done.stdout), done.stdout + done.stderr
    assert (fresh.path / "runs/smoke/adapter/adapters.safetensors").exists()
    by_hand = subprocess.run(
        ["bash", "runs/smoke/launch.sh", "--adapter-path", ".thunder/by_hand"],
        env=variables, cwd=fresh.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == by_hand.returncode, by_hand.stdout + by_hand.stderr
