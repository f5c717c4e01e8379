"""A real environment: its packages are enough, and no module of the user takes the place of one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, Copy


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
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}

    done = subprocess.run(
        ["bash", str(fresh.path / "doit"), "train:smoke"],
        env=environment, cwd=fresh.path / "recipes", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, True) == (done.returncode, ".  train:smoke\n" in done.stdout), done.stdout + done.stderr
    assert (fresh.path / "runs/smoke/adapter/adapters.safetensors").exists()
    by_hand = subprocess.run(
        ["bash", "runs/smoke/launch.sh", "--adapter-path", ".thunder/by_hand"],
        env=environment, cwd=fresh.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == by_hand.returncode, by_hand.stdout + by_hand.stderr
