"""kill -9 at random moments of a build of two recipes, again and again: of all, of doit, the launcher or one rank.

After each kill the build is started again. No stage that had finished may run a second time, and in the end every file
that does not hold a time is byte-identical to that of an undisturbed build.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.outputs import results
from tests.helpers.project_copy import Copy, copy_sources, start_doit, wait_for

pytestmark = pytest.mark.ranks

RECIPES = ("smoke", "second")
SEED = int(os.environ.get("CAMPAIGN_SEED", "20261122"))
KILLS = int(os.environ.get("KILLS", "40"))
MOMENTS_S = (0.1, float(os.environ.get("KILL_WITHIN_S", "4.5")))
VICTIMS = {"group": "", "doit": "thunder_train.cli", "launcher": "thunder_train.launch", "rank": "thunder_train.worker"}
"""What is killed: all of a terminal, or one process, by a word of its command line."""


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


def processes(project: Copy, word: str = "") -> list[int]:
    """Processes whose folder is the project and whose command line holds a word."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                is_here = os.readlink(process / "cwd") == str(project.path)
                if is_here and word.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def kill_after(project: Copy, seconds: float, victim: str) -> tuple[str, str]:
    """Build for some seconds, then kill -9 a victim. What was killed, "" if nothing was, and the output.

    Whatever is killed, no process of the build may be left when doit has ended.
    """
    doit = start_doit(project)
    try:
        output = doit.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        found = processes(project, VICTIMS[victim]) if VICTIMS[victim] else []
        if victim == "group" or not found:
            victim = "group"
            os.killpg(doit.pid, signal.SIGKILL)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(doit.pid if victim == "doit" else found[-1], signal.SIGKILL)
        output = doit.communicate(timeout=120)[0]
        assert "Traceback" not in output, output
        wait_for(lambda: processes(project) == [], 60)
        return victim if doit.returncode else "", output
    assert 0 == doit.returncode, output
    return "", output


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_corrupt_nothing(tmp_path: Path) -> None:
    """
    The moments are spread over all stages, because the build goes on after each kill.
    """
    undisturbed = two_recipes(tmp_path / "undisturbed")
    assert 0 == undisturbed.doit().status
    expected = results(undisturbed)
    moments = random.Random(SEED)  # noqa: S311  (moments, not secrets)
    killed, builds = Counter[str](), 0
    while killed.total() < KILLS:
        builds += 1
        project, over = two_recipes(tmp_path / f"build{builds}"), False
        while not over:
            before, is_enough = finished(project), killed.total() >= KILLS
            seconds = 300 if is_enough else moments.uniform(*MOMENTS_S)
            what, output = kill_after(project, seconds, moments.choice([*VICTIMS]))
            over = not what
            killed.update([what] if what else [])
            assert set() == before & started(output)
        assert expected == results(project)
        shutil.rmtree(project.path)
        print(builds, "builds", dict(killed), flush=True)
