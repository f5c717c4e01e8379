"""A sweep in the real doit: one file, one command."""

import json

import pytest

from tests.helpers.project_copy import Copy

RECIPE = """
extends = "smoke"

[sweep]
"train.lora_rank" = [8]
"train.learning_rate" = [1e-6, 1e-3]
"""


@pytest.mark.ranks
def test_a_recipe_of_a_sweep_is_restored_when_it_is_known(project: Copy) -> None:
    """
    The first has the keys of smoke, which was trained before; the other one is trained. One word asks for both.
    """
    (project.path / "recipes/two.toml").write_text(RECIPE)
    first, second = "two@8,1e-06", "two@8,0.001"

    built = project.doit("manifest:two")

    assert 0 == built.status, built.output
    assert {f"train:{first}", f"evaluate:{first}"} == {*built.restored}
    assert f"train:{second}" in built.ran
    assert "up to date" in project.doit("why", f"train:{second}").output
    rows = {row["recipe"]: row for row in json.loads(project.doit("status", "--json").output)}
    assert {first, second} == {name for name in rows if name.startswith("two")}


def test_a_sweep_that_cannot_be_used_says_why_when_it_is_asked_for(project: Copy) -> None:
    """
    Once, and other recipes build.
    """
    (project.path / "recipes/two.toml").write_text(RECIPE.replace("[8]", "[0, 0]"))
    message = "recipes/two.toml: sweep: (0, 1e-06) and (0, 1e-06) would both be named 'two@0,1e-06'"

    assert message in project.doit("manifest:two").output
    assert 0 == project.doit().status
