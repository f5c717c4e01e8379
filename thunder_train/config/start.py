"""The adapter that a training begins with: `train.start_from` names another recipe, or a folder of the project."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.config import adapter
from thunder_train.config.fields import RUN
from thunder_train.config.project import Recipe
from thunder_train.config.train import ALL, Train
from thunder_train.config.validate import did_you_mean, model_layers
from thunder_train.core import paths
from thunder_train.core.text import quoted

RECIPE = "recipe:"
AS_HERE = f'as start_from = "{RECIPE}base"'
SHARED = ("fine_tune_type", "num_layers", "lora_rank", "scale", "lora_keys")
"""What of [train] decides what an adapter is, so two recipes must agree on it. scale: of lora_scale or lora_alpha."""


def named(start_from: str) -> str:
    """Name of the recipe that a start_from names; "" if it names none."""
    return start_from.removeprefix(RECIPE) if start_from.startswith(RECIPE) else ""


def recipe_of(train: Train) -> str:
    """Name of the recipe whose adapter the training begins with; "" if it names none."""
    return named(train.start_from)


def folder_of(train: Train) -> str:
    """Folder of the adapter that the training begins with; "" if it begins with a new one."""
    name = recipe_of(train)
    return f"{paths.run(name)}/adapter" if name else train.start_from


def files_of(train: Train) -> tuple[str, ...]:
    """Its files: weights and settings."""
    folder = folder_of(train)
    return tuple(f"{folder}/{name}" for name in paths.MLX_LM) if folder else ()


def problems(recipe: Recipe, root: Path) -> list[ThunderError]:
    """What is wrong with a recipe's start_from, without a look at other recipes."""
    given, where = recipe.train.start_from, f"{recipe.file}: train.start_from"
    if given.startswith(RECIPE):
        name = recipe_of(recipe.train)
        return [] if re.fullmatch(RUN, name) else [ThunderError(f"{quoted(name)} names no recipe", where, AS_HERE)]
    if not given:
        return []
    if outside := adapter.outside_problems(given, where, root):
        return outside
    if (root / given).resolve().is_relative_to((root / paths.run("")).resolve()):
        hint = f'name its recipe, as "{RECIPE}NAME", or copy the folder into adapters/'
        return [ThunderError(f"{given!r} is in the folder of a run", where, hint)]
    if (root / given / paths.PEFT[0]).is_file():
        hint = f'take it in a recipe with [adapter] path, and give that as "{RECIPE}NAME"'
        return [ThunderError("holds an adapter of PEFT's form", given, hint)]
    missing = [name for name in paths.MLX_LM if not (root / given / name).is_file()]
    return [ThunderError("is missing", f"{given}/{name}", f"correct {where}") for name in missing]


def problems_between(
    recipes: Mapping[str, Recipe], sweeps: Mapping[str, tuple[str, ...]], broken: Collection[str], root: Path
) -> dict[str, list[ThunderError]]:
    """{recipe: why it cannot begin with the adapter of the other}. broken: names of recipes that cannot be used."""
    unfit: dict[str, list[ThunderError]] = {}
    while True:  # a recipe is unfit, too, if the one that it begins with is
        usable = {name: each for name, each in recipes.items() if name not in unfit}
        found = {name: list(_between(each, usable, sweeps, {*broken, *unfit}, root)) for name, each in usable.items()}
        found = {name: problems for name, problems in found.items() if problems}
        if not found:
            return unfit
        unfit |= found


def _between(
    recipe: Recipe,
    recipes: Mapping[str, Recipe],
    sweeps: Mapping[str, tuple[str, ...]],
    broken: Collection[str],
    root: Path,
) -> Iterator[ThunderError]:
    name, where = recipe_of(recipe.train), f"{recipe.file}: train.start_from"
    if not name:
        return
    if name in recipes:
        if chain := _circle(recipe, recipes):
            yield ThunderError(f"begins with itself: {' -> '.join(chain)}", where, "take start_from out of one of them")
        else:
            yield from _differences(recipe, recipes[name], root)
    elif name in broken:
        yield ThunderError(f"recipe {quoted(name)} has a problem of its own", where, "correct that first")
    elif name in sweeps:
        yield ThunderError(f"{quoted(name)} is a sweep", where, f"name one of its recipes, as {sweeps[name][0]}")
    else:
        yield ThunderError(f"no recipe is named {quoted(name)}", where, did_you_mean(name, [*recipes]))


def _circle(recipe: Recipe, recipes: Mapping[str, Recipe]) -> list[str]:
    """The names from a recipe back to itself; empty if its chain of starts ends, or runs into a circle of others."""
    chain, name = [recipe.name], recipe_of(recipe.train)
    while name in recipes and name not in chain:
        chain.append(name)
        name = recipe_of(recipes[name].train)
    return [*chain, name] if name == recipe.name else []


def _differences(recipe: Recipe, other: Recipe, root: Path) -> Iterator[ThunderError]:
    hint = "give both the same, or take train.start_from out"
    if recipe.model.name != other.model.name:
        what = f"is {recipe.model.name!r}, and recipe {other.name!r}, with whose adapter it begins, has"
        yield ThunderError(f"{what} {other.model.name!r}", f"{recipe.file}: model", hint)
    if other.is_imported:
        return  # its own files say what it is; the stage compares them before any rank starts
    for key in SHARED:
        mine, theirs = getattr(recipe.train, key), getattr(other.train, key)
        is_same = {*mine} == {*theirs} if isinstance(mine, tuple) else mine == theirs
        if not is_same and ALL in (mine, theirs):
            # Where the number is not known yet, the stage compares both before any rank starts.
            is_same = model_layers(recipe.model, root) in (None, mine, theirs)
        if not is_same:
            what = f"is {_shown(mine)}, and recipe {other.name!r}, with whose adapter it begins, has {_shown(theirs)}"
            given = ("lora_alpha" if recipe.train.lora_alpha else "lora_scale") if key == "scale" else key
            yield ThunderError(what, f"{recipe.file}: train.{given}", hint)


def _shown(value: object) -> str:
    return repr([*value]) if isinstance(value, tuple) else repr(value)
