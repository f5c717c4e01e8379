"""`doit why` and `doit status` tell the whole truth and run nothing."""

import json

import pytest

from tests.helpers.project_copy import Copy

pytestmark = pytest.mark.ranks


def test_a_fresh_stage_names_the_run_that_made_it(project: Copy) -> None:
    """
    The run id is that of the manifest.
    """
    run_id = json.loads((project.path / "runs/smoke/manifest.json").read_text())["run_id"]

    assert f"train:smoke: up to date, made by run {run_id}\n" in project.doit("why", "train:smoke").output


def test_every_reason_is_told_down_to_the_key(project: Copy) -> None:
    """
    Keys of the recipe, code, targets and inputs; and what waits for them.
    """
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    project.edit("thunder_train/worker/train/loop.py", "NAMED_ROWS = 20", "NAMED_ROWS = 21")
    project.edit("data/agp-nko-corrections/train.jsonl", "asr_text", "asr_texT")
    project.edit("templates/report.md.j2", "## Result", "## Results")
    adapter = project.path / "runs/smoke/adapter/adapters.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1])

    done = project.doit("why", "--json")
    told = json.loads(done.output)

    assert (0, [], []) == (done.status, done.ran, done.restored)
    assert [
        "train.learning_rate: 1e-06 -> 1e-05",
        "thunder_train/worker/train/loop.py: code changed",
        "runs/smoke/adapter/adapters.safetensors: edited since it was made",
    ] == told["train:smoke"]
    assert ["data/agp-nko-corrections/train.jsonl: edited since it was made"] == told["data:agp-nko-corrections"]
    assert ["train.learning_rate: 1e-06 -> 1e-05", "templates/report.md.j2: content changed"] == told["report:smoke"]
    assert [] == told["model:nano"]


def test_the_table_shows_each_recipe_by_stage(project: Copy) -> None:
    """
    Fresh, stale, waiting, never built and failed, with the run's id, loss and decision.
    """
    project.edit("recipes/smoke.toml", "max_seq_len = 512", "max_seq_len = 16")
    project.doit("train:smoke")
    rows = {row["recipe"]: row for row in json.loads(project.doit("status", "--json").output)}
    smoke, remote = rows["smoke"], rows["agp-nko-correction"]

    assert ("fresh", "fresh", "failed", "stale") == tuple(smoke[key] for key in ("data", "scripts", "train", "report"))
    assert ("never built", None) == (remote["train"], remote["run_id"])
    assert ("NO-GO", 12) == (smoke["decision"], len(smoke["run_id"]))
    assert "failed" in project.doit("status").output
