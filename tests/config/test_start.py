"""A training may begin with the adapter of another recipe, or with one in a folder of the project."""

from pathlib import Path

import pytest

from tests.config.conftest import PROJECT, RECIPE, problems
from thunder_train.config import start
from thunder_train.config.load import load, usable


def recipe(project: Path, name: str, *lines: str) -> None:
    """Write a recipe with more keys of [train]."""
    (project / f"recipes/{name}.toml").write_text(RECIPE + "".join(f"{line}\n" for line in lines))


def test_a_recipe_or_a_folder_gives_the_files_of_its_adapter(project: Path) -> None:
    """
    They are inputs of the training, so the graph makes those of the other recipe first.
    """
    (project / "adapters/a").mkdir(parents=True)
    for name in ("adapters.safetensors", "adapter_config.json"):
        (project / "adapters/a" / name).write_text("{}")
    recipe(project, "second", 'start_from = "recipe:good"')
    recipe(project, "third", 'start_from = "adapters/a"')
    recipes = load(project).recipes

    assert ("", ()) == (start.folder_of(recipes["good"].train), start.files_of(recipes["good"].train))
    assert ["good", ""] == [start.recipe_of(recipes[name].train) for name in ("second", "third")]
    assert ("runs/good/adapter/adapters.safetensors", "runs/good/adapter/adapter_config.json") == start.files_of(
        recipes["second"].train
    )
    assert "adapters/a" == start.folder_of(recipes["third"].train)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("recipe:god", "no recipe is named 'god'; did you mean 'good'?"),
        ("recipe:", "'' names no recipe; as start_from = \"recipe:base\""),
        ("recipe:../x", "'../x' names no recipe; as start_from = \"recipe:base\""),
        ("recipe:second", "begins with itself: second -> second; take start_from out of one of them"),
        ("../a", "'../a' is no path inside the project; copy the folder into adapters/"),
        (
            "runs/good/adapter",
            "'runs/good/adapter' is in the folder of a run; "
            'name its recipe, as "recipe:NAME", or copy the folder into adapters/',
        ),
    ],
)
def test_what_names_no_adapter_is_refused(project: Path, given: str, expected: str) -> None:
    """
    Before anything is trained, with the file, the key and what to do.
    """
    recipe(project, "second", f'start_from = "{given}"')

    assert [f"recipes/second.toml: train.start_from: {expected}"] == problems(project)


def test_a_folder_without_an_adapter_is_named(project: Path) -> None:
    """
    An adapter of PEFT's form has other names and layouts; [adapter] reads it.
    """
    recipe(project, "second", 'start_from = "adapters/a"')
    where = "correct recipes/second.toml: train.start_from"

    assert [
        f"adapters/a/adapters.safetensors: is missing; {where}",
        f"adapters/a/adapter_config.json: is missing; {where}",
    ] == problems(project)
    (project / "adapters/a").mkdir(parents=True)
    (project / "adapters/a/adapter_model.safetensors").write_text("")
    hint = 'take it in a recipe with [adapter] path, and give that as "recipe:NAME"'
    assert [f"adapters/a: holds an adapter of PEFT's form; {hint}"] == problems(project)


def test_the_same_adapter_may_be_said_in_two_ways(project: Path) -> None:
    """
    "all" is the number of layers that the model has, lora_alpha / rank the scale.
    """
    layers = load(project).recipes["good"].model.layers
    recipe(project, "first", f"num_layers = {layers}", "lora_scale = 2")
    recipe(project, "second", 'start_from = "recipe:first"', 'num_layers = "all"', "lora_alpha = 16")
    whose, hint = (
        "and recipe 'first', with whose adapter it begins, has",
        "give both the same, or take train.start_from out",
    )

    assert "recipe:first" == load(project).recipes["second"].train.start_from
    recipe(project, "second", 'start_from = "recipe:first"', 'num_layers = "all"', "lora_alpha = 32")
    assert [f"recipes/second.toml: train.lora_alpha: is 4.0, {whose} 2.0; {hint}"] == problems(project)
    recipe(project, "first", f"num_layers = {layers - 1}", "lora_scale = 4")
    assert [f"recipes/second.toml: train.num_layers: is 'all', {whose} {layers - 1}; {hint}"] == problems(project)


def test_all_keys_in_which_two_adapters_differ_are_named(project: Path) -> None:
    """
    The other training may take hours, after which its adapter would not fit.
    """
    (project / "thunder.toml").write_text(PROJECT + '[models.other]\nkind = "nano"\n')
    text = RECIPE.replace('"nano"', '"other"') + 'start_from = "recipe:good"\nlora_rank = 4\nlora_scale = 2\n'
    (project / "recipes/second.toml").write_text(text + 'lora_keys = ["self_attn.q_proj"]\n')
    whose, hint = (
        "and recipe 'good', with whose adapter it begins, has",
        "give both the same, or take train.start_from out",
    )

    assert [
        f"recipes/second.toml: model: is 'other', {whose} 'nano'; {hint}",
        f"recipes/second.toml: train.lora_rank: is 4, {whose} 8; {hint}",
        f"recipes/second.toml: train.lora_scale: is 2.0, {whose} 20.0; {hint}",
        f"recipes/second.toml: train.lora_keys: is ['self_attn.q_proj'], {whose} []; {hint}",
    ] == problems(project)


def test_a_circle_is_shown_and_the_other_recipes_are_usable(project: Path) -> None:
    """
    Neither of two that wait for each other can begin, nor one that waits for them.
    """
    recipe(project, "second", 'start_from = "recipe:third"')
    recipe(project, "third", 'start_from = "recipe:second"')
    recipe(project, "last", 'start_from = "recipe:third"')

    usable_now, broken = usable(project)

    assert ["good"] == list(usable_now.recipes)
    assert {
        "second": "recipes/second.toml: train.start_from: begins with itself: second -> third -> second; "
        "take start_from out of one of them",
        "third": "recipes/third.toml: train.start_from: begins with itself: third -> second -> third; "
        "take start_from out of one of them",
        "last": "recipes/last.toml: train.start_from: recipe 'third' has a problem of its own; correct that first",
    } == {each.name: str(each) for each in broken}


def test_a_member_of_a_sweep_can_be_named_and_a_sweep_cannot(project: Path) -> None:
    """
    A sweep has as many adapters as members.
    """
    recipe(project, "many", "[sweep]", '"train.seed" = [1, 2]')
    recipe(project, "second", 'start_from = "recipe:many@2"')
    assert "many@2" == start.recipe_of(load(project).recipes["second"].train)
    recipe(project, "second", 'start_from = "recipe:many"')

    where = "recipes/second.toml: train.start_from"
    assert [f"{where}: 'many' is a sweep; name one of its recipes, as many@1"] == problems(project)
