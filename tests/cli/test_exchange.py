"""`doit push` and `doit pull` between two clones."""

import json
import shutil
from pathlib import Path

from tests.helpers.project_copy import Copy, copy_sources

RECORDS = ("data/agp-nko-corrections/manifest.json", "runs/smoke/manifest.json", "runs/models/nano/model.lock.json")


def test_a_colleagues_clone_restores_instead_of_training(project: Copy, tmp_path: Path) -> None:
    """
    It has the sources and what is committed of the run, and nothing else.
    """
    store = str(tmp_path / "store")
    pushed = project.doit("push", "--to", store, "smoke")
    again = project.doit("push", "--to", store, "manifest:sm*")
    clone = copy_sources(tmp_path / "clone")
    for record in RECORDS:
        (clone.path / record).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project.path / record, clone.path / record)
    clone.edit("thunder.toml", 'recipes = ["smoke"]', f'recipes = ["smoke"]\nstore = "{store}"')
    pulled = clone.doit("pull", "--json")
    built = clone.doit()

    run_id = json.loads((project.path / RECORDS[1]).read_text())["run_id"]
    assert pushed.output.startswith(f"smoke, run {run_id}: ")
    assert f"smoke, run {run_id}: all of it was there\n" == again.output
    assert run_id == json.loads(pulled.output)["runs"][0]["run_id"]
    assert 0 == built.status, built.output
    assert {"model:nano", "data:agp-nko-corrections", "train:smoke", "evaluate:smoke"} == {*built.restored}
    assert (project.path / RECORDS[1]).read_bytes() == (clone.path / RECORDS[1]).read_bytes()


def test_mistakes_are_named(project: Copy, tmp_path: Path) -> None:
    """
    No store, no such recipe, stages that are stale: with what to do, and status 3.
    """
    hint = "set store in [project] of thunder.toml, or give --"
    for words, message in (
        (["push"], f"doit push: no store is named; {hint}to\n"),
        (["pull", "smoke"], f"doit pull: no store is named; {hint}from\n"),
        (["pull", "smok", "--from", "x"], "no recipe is named 'smok'; `./doit status` shows all\n"),
    ):
        done = project.doit(*words)
        assert (3, message) == (done.status, done.output)
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    assert "train:smoke" in project.doit("push", "--to", str(tmp_path / "x")).output
