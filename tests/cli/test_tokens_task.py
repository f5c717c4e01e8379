"""`doit tokens:<recipe>`: the worker's preview, with the recipe's own flags."""

import json

import pytest

from tests.helpers.project_copy import Copy


@pytest.mark.ranks
def test_tokens_tells_of_a_recipe_that_was_never_built(fresh: Copy) -> None:
    """
    It makes the rows and the nano model, and nothing of the training.
    """
    done = fresh.doit("tokens:smoke", "--json", "--rows", "1")

    assert 0 == done.status, done.output
    assert ["data:agp-nko-corrections", "model:nano", "tokens:smoke"] == sorted(done.ran)
    found = json.loads(done.output.splitlines()[-1])
    assert ("thunder.tokens/1", 2, 2, 1) == (
        found["schema"],
        found["ranks"],
        found["rows_per_step"],
        len(found["preview"]),
    )
    assert [16, 4] == [split["training"]["rows"] for split in found["splits"].values()]
    assert "data/agp-nko-corrections/train.jsonl" == found["splits"]["train"]["path"]


@pytest.mark.ranks
def test_tokens_that_cannot_be_told_fail_the_task(fresh: Copy) -> None:
    """
    One clean line of the worker's, and the status of a failed task.
    """
    done = fresh.doit("tokens:smoke", "--rows", "-1")

    assert 1 == done.status
    assert "--rows: must be 0 or more, not -1" in done.output.splitlines()
    assert "tokens smoke: ended with status 2; read the lines above" in done.output
    assert "Traceback" not in done.output
