"""kill -9 of the whole process group at random moments of a build of two recipes, again and again.

After each kill the build is started again. No stage that had finished may run a second time, and in the end every file
that does not hold a time is byte-identical to that of an undisturbed build.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.helpers.outputs import results
from tests.helpers.project_copy import Copy, copy_sources, start_doit

pytestmark = pytest.mark.ranks

RECIPES = ("smoke", "second")
KILLS = 40


def two_recipes(folder: Path) -> Copy:
    """A project that builds two recipes by default, the second with one rank."""
    project = copy_sources(folder)
    project.edit("thunder.toml", 'recipes = ["smoke"]', f"recipes = {list(RECIPES)}".replace("'", '"'))
    project.edit(
        "thunder.toml", "[clusters.local]", '[clusters.single]\nbackend = "ring"\nranks = 1\n\n[clusters.local]'
    )
    text = (project.path / "recipes/smoke.toml").read_text(encoding="utf-8")
    text = text.replace('cluster = "local"', 'cluster = "single"').replace("num_iters = 4", "num_iters = 2")
    (project.path / "recipes/second.toml").write_text(text, encoding="utf-8")
    return project


def finished(project: Copy) -> set[str]:
    """Stages that the state on disk holds as succeeded."""
    path = project.path / ".thunder/state.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(path) as connection:
        if not connection.execute("select name from sqlite_master where name = 'tasks'").fetchone():
            return set()
        return {name for (name,) in connection.execute("select task_id from tasks")}


def started(output: str) -> set[str]:
    """Stages that a run began or restored, by what it printed."""
    return {line[3:] for line in output.splitlines() if line.startswith((".  ", "+  "))}


def kill_after(project: Copy, seconds: float) -> tuple[bool, str]:
    """Build for some seconds, then kill -9 doit and its whole group. Whether it ended by itself, and its output."""
    doit = start_doit(project)
    try:
        output = doit.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(doit.pid, signal.SIGKILL)
        return False, doit.communicate()[0]
    assert 0 == doit.returncode, output
    return True, output


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_corrupt_nothing(tmp_path: Path) -> None:
    """
    The moments are spread over all stages, because the build goes on after each kill.
    """
    undisturbed = two_recipes(tmp_path / "undisturbed")
    assert 0 == undisturbed.doit().status
    expected = results(undisturbed)
    moments = random.Random(20261122)  # noqa: S311  (moments, not secrets)
    done, builds = 0, 0
    while done < KILLS:
        builds += 1
        project, over = two_recipes(tmp_path / f"build{builds}"), False
        while not over:
            before = finished(project)
            if done < KILLS:
                over, output = kill_after(project, moments.uniform(0.1, 4.5))
                done += not over
            else:
                over, output = kill_after(project, 120)
            assert set() == before & started(output)
        assert expected == results(project)
        shutil.rmtree(project.path)
