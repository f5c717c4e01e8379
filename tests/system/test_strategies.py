"""The same recipe in both strategies through the real doit, and a split that cannot be refused before a rank starts."""

import pytest

from tests.helpers.project_copy import Copy
from thunder_train.core import files

pytestmark = pytest.mark.ranks


@pytest.mark.slow
def test_a_recipe_trains_in_parts_of_the_model(project: Copy) -> None:
    """
    `strategy = "tensor"` is one key; the adapter has the ordinary form, and base and adapter are evaluated as ever.
    """
    before = files.read_json(project.path / "runs/smoke/adapter/done.json")["losses"]["valid"]
    project.edit("recipes/smoke.toml", 'strategy = "data"', 'strategy = "tensor"\nglobal_batch_size = 2')
    done = project.doit()
    facts = files.read_json(project.path / "runs/smoke/adapter/done.json")

    assert 0 == done.status, done.output
    assert ("tensor", 2, 2) == (facts["strategy"], facts["world_size"], facts["rows_per_step"])
    assert [pytest.approx(loss, rel=1e-4) for _, loss in before] == [loss for _, loss in facts["losses"]["valid"]]


def test_a_model_that_the_ranks_cannot_split_is_refused_before_they_start(project: Copy) -> None:
    """
    Four query heads cannot be split over three ranks; the error lists the numbers of ranks that work.
    """
    project.edit("recipes/smoke.toml", 'strategy = "data"', 'strategy = "tensor"')
    project.edit("thunder.toml", "ranks = 2", "ranks = 3")
    done = project.doit("train:smoke")

    assert 1 == done.status
    assert "--strategy tensor: " in done.output
    assert "use 2 or 4 ranks" in done.output
    assert "step 1/" not in done.output
