"""`doit why` gives every reason and runs nothing."""

import json

import pytest

from tests.helpers.project_copy import Copy

pytestmark = pytest.mark.ranks


def test_every_reason_is_shown_down_to_the_key(project: Copy) -> None:
    """
    Keys of the recipe, code, targets and inputs.
    """
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    project.edit("thunder_train/worker/train/step.py", "norm + 1e-6", "norm + 1e-5")
    project.edit("data/agp-nko-corrections/train.jsonl", "asr_text", "asr_texT")
    project.edit("templates/report.md.j2", "## Result", "## Results")
    adapter = project.path / "runs/smoke/adapter/adapters.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1])

    done = project.doit("why", "--json")
    reasons = json.loads(done.output)

    assert (0, [], []) == (done.status, done.ran, done.restored)
    assert [
        "train.learning_rate: 1e-06 -> 1e-05",
        "thunder_train/worker/train/step.py: code changed",
        "runs/smoke/adapter/adapters.safetensors: edited since it was made",
    ] == reasons["train:smoke"]
    assert ["data/agp-nko-corrections/train.jsonl: edited since it was made"] == reasons["data:agp-nko-corrections"]
    assert ["train.learning_rate: 1e-06 -> 1e-05", "templates/report.md.j2: content changed"] == reasons["report:smoke"]
    assert [] == reasons["model:nano"]
