"""`doit tokens:<recipe>`: the worker's preview, with the flags of the recipe."""

import json

import pytest

from tests.helpers.project_copy import Copy


@pytest.mark.ranks
def test_tokens_describes_a_recipe_that_was_never_built(fresh: Copy) -> None:
    """
    It makes the rows and the nano model, and does not train.
    """
    done = fresh.doit("tokens:smoke", "--json", "--rows", "1")

    assert 0 == done.status, done.output
    assert ["data:agp-nko-corrections", "model:nano", "tokens:smoke"] == sorted(done.ran)
    report = json.loads(done.output.splitlines()[-1])
    assert ("thunder.tokens/1", 2, 2, 1) == (
        report["schema"],
        report["ranks"],
        report["rows_per_step"],
        len(report["preview"]),
    )
    assert [16, 4] == [split["training"]["rows"] for split in report["splits"].values()]
    assert "data/agp-nko-corrections/train.jsonl" == report["splits"]["train"]["path"]


@pytest.mark.ranks
def test_a_wrong_option_fails_the_task(fresh: Copy) -> None:
    """
    One line from the worker, no traceback, and the status of a failed task.
    """
    done = fresh.doit("tokens:smoke", "--rows", "-1")

    assert 1 == done.status
    assert "--rows: must be 0 or more, not -1" in done.output.splitlines()
    assert "tokens smoke: ended with status 2; read the lines above" in done.output
    assert "Traceback" not in done.output
