"""A recipe has [train], or [adapter] with an adapter from elsewhere that lies in the project."""

from pathlib import Path

import pytest

from tests.config.conftest import RECIPE, problems
from thunder_train.config.load import load
from thunder_train.config.toml_io import resolved_toml

IMPORTED = RECIPE.partition("[train]")[0] + '[adapter]\npath = "adapters/a"\n'


@pytest.fixture
def given(project: Path) -> Path:
    """A project with an adapter of mlx-lm's form, and a recipe that takes it."""
    (project / "adapters/a").mkdir(parents=True)
    for name in ("adapters.safetensors", "adapter_config.json"):
        (project / "adapters/a" / name).write_text("{}")
    (project / "recipes/good.toml").write_text(IMPORTED)
    return project


def test_an_evaluation_takes_what_it_shares_with_a_training_from_adapter(given: Path) -> None:
    """
    max_seq_len bounds the rows that are scored; the resolved recipe names no training that never was.
    """
    (given / "recipes/good.toml").write_text(IMPORTED + "max_seq_len = 64\n")

    recipe = load(given).recipes["good"]

    assert (True, 64, ("evaluate.sh",)) == (recipe.is_imported, recipe.train.max_seq_len, recipe.scripts)
    assert "[train]" not in resolved_toml(recipe)


def test_a_recipe_that_trains_has_no_adapter_table(project: Path) -> None:
    """
    Its resolved form is what it was before there was such a table.
    """
    recipe = load(project).recipes["good"]

    assert not recipe.is_imported
    assert "[adapter]" not in resolved_toml(recipe)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            RECIPE + '[adapter]\npath = "a"\n',
            "adapter: excludes [train]: a recipe trains an adapter or takes one",
        ),
        (IMPORTED.replace('path = "adapters/a"', ""), "adapter.path: is missing; give the folder of the adapter"),
        (IMPORTED.replace("adapters/a", "../a"), "adapter.path: '../a' is no path inside the project; copy the folder"),
        (IMPORTED.replace("adapters/a", "/tmp"), "adapter.path: '/tmp' is no path inside the project; copy the folder"),
        (IMPORTED.replace("adapters/a", "runs/good/adapter"), "adapter.path: 'runs/good/adapter' is in the folder of"),
        (IMPORTED + "max_seq_len = 2\n", "adapter.max_seq_len: is 2; give at least 8 tokens"),
    ],
    ids=["both", "no path", "outside", "absolute", "own run", "bound"],
)
def test_a_wrong_adapter_table_is_reported(given: Path, text: str, expected: str) -> None:
    """
    With file, key and what to write.
    """
    (given / "recipes/good.toml").write_text(text)

    (problem,) = problems(given)
    assert problem.startswith(f"recipes/good.toml: {expected}")


def test_a_link_out_of_the_project_is_no_adapter(given: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    Hosts and whoever makes the run again have no such folder.
    """
    (given / "adapters/b").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    (given / "recipes/good.toml").write_text(IMPORTED.replace("adapters/a", "adapters/b"))

    (problem,) = problems(given)
    assert "'adapters/b' is no path inside the project" in problem


def test_a_folder_without_weights_is_reported(given: Path) -> None:
    """
    Of PyTorch's own format nothing is read: it can run code.
    """
    (given / "adapters/a/adapters.safetensors").rename(given / "adapters/a/adapter_model.bin")

    assert [
        "adapters/a: has neither adapters.safetensors nor adapter_model.safetensors; "
        "give the folder that mlx-lm or PEFT wrote, in recipes/good.toml: adapter.path"
    ] == problems(given)
