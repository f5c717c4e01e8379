"""A finished run whose recipe gets more steps, against the real doit."""

from pathlib import Path

import pytest

from tests.helpers.project_copy import Copy

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

OUTPUTS = ("adapter/adapters.safetensors", "adapter/done.json", "last/adapters.safetensors")


def outputs(project: Copy) -> list[bytes]:
    """What a training leaves, without times."""
    return [(project.path / "runs/smoke" / name).read_bytes() for name in OUTPUTS]


def last(project: Copy) -> list[Path]:
    """Checkpoints that are kept of finished trainings."""
    return sorted((project.path / ".thunder/last").glob("*/*"))


def test_a_run_with_more_steps_goes_on_from_its_end(project: Copy) -> None:
    """
    And is, to the byte, the run that was trained at once. Any other change trains from the beginning.
    """
    assert ["0000004.safetensors"] == [path.name for path in last(project)]
    project.edit("recipes/smoke.toml", "num_iters = 4", "num_iters = 8")

    done = project.doit("train:smoke")

    assert (0, ["train:smoke"]) == (done.status, [name for name in done.ran if name.startswith("train")])
    assert "step 4/8  goes on from here, as a training of 4 steps left it\n" in done.output
    assert ["0000008.safetensors"] == [path.name for path in last(project)]
    extended = outputs(project)
    for path in last(project):
        path.unlink()
    project.forget_cache()
    (project.path / "runs/smoke/adapter/adapters.safetensors").unlink()
    whole = project.doit("train:smoke")
    assert (0, False) == (whole.status, "goes on from here" in whole.output)
    assert extended == outputs(project)

    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    changed = project.doit("train:smoke")
    assert (0, False) == (changed.status, "go" in changed.output.partition("rows are packed")[0].partition("train:")[2])
