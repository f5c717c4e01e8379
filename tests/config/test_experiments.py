"""Recipes in terms of others: extends and [sweep]."""

from pathlib import Path

import pytest

from tests.config.conftest import PROJECT, RECIPE, problems
from thunder_train.config.load import load, usable
from thunder_train.config.project import Project
from thunder_train.core.stat_cache import StatCache


def write(project: Path, **recipes: str) -> None:
    """Write recipes by name."""
    for name, text in recipes.items():
        (project / f"recipes/{name}.toml").write_text(text)


def sweep_of(project: Path, *lines: str) -> Project:
    """The project with a recipe `lr` that has a sweep of these lines."""
    write(project, lr="\n".join(['extends = "good"', "[sweep]", *lines]))
    return load(project)


def test_a_recipe_takes_over_what_it_does_not_give(project: Path) -> None:
    """
    Table by table and key by key, through any number of recipes; a list replaces a list.
    """
    write(project, good=RECIPE + "lora_rank = 16\nlora_keys = ['self_attn.q_proj', 'self_attn.v_proj']\n")
    write(project, middle='extends = "good"\n[train]\nlora_rank = 4\nseed = 7\n')
    write(project, end='extends = "middle"\ndescription = "mine"\n[train]\nlora_keys = ["self_attn.o_proj"]\n')

    recipes = load(project).recipes
    train = recipes["end"].train

    assert (4, 4, 7, ("self_attn.o_proj",)) == (train.num_iters, train.lora_rank, train.seed, train.lora_keys)
    assert ("end", "mine", "") == (recipes["end"].name, recipes["end"].description, recipes["middle"].description)


def test_defaults_of_the_project_come_last(project: Path) -> None:
    """
    What a base gives is nearer to the recipe than [defaults].
    """
    (project / "thunder.toml").write_text(PROJECT + "[defaults.train]\nlora_rank = 2\nseed = 3\n")
    write(project, good=RECIPE + "lora_rank = 16\n", end='extends = "good"\n')

    train = load(project).recipes["end"].train

    assert (16, 3) == (train.lora_rank, train.seed)


@pytest.mark.parametrize(
    ("recipes", "expected"),
    [
        (
            {"a": 'extends = "b"\n', "b": 'extends = "a"\n'},
            [
                "recipes/b.toml: extends: extends itself: a -> b -> a; take extends out of one of them",
                "recipes/a.toml: extends: extends itself: b -> a -> b; take extends out of one of them",
            ],
        ),
        (
            {"a": 'extends = "goood"\n'},
            ["recipes/a.toml: extends: no recipe is named 'goood'; did you mean 'good'?"],
        ),
        (
            {"a": "extends = 3\n"},
            ['recipes/a.toml: extends: must be the name of a recipe, is 3; as extends = "base"'],
        ),
        (
            {"a": 'extends = "good"\n[train]\nlora_rank = 0\n', "b": 'extends = "a"\n'},
            ["recipes/a.toml: train.lora_rank: is 0; give at least 1"],
        ),
        (
            {"a": 'extends = "good"\n[train]\nlora_rank = 4\n', "b": 'extends = "a"\n[train]\nseed = -1\n'},
            ["recipes/b.toml: train.seed: is -1; give at least 0"],
        ),
    ],
)
def test_a_mistake_is_named_once_where_it_was_written(
    project: Path, recipes: dict[str, str], expected: list[str]
) -> None:
    """
    The file and the key that a person has to edit, whichever recipe took it over.
    """
    write(project, **recipes)

    assert expected == problems(project)


def test_a_sweep_makes_a_recipe_of_each_combination(project: Path) -> None:
    """
    In the order of the file, the last key fastest; keys may be quoted with dots or stand in tables.
    """
    made = sweep_of(project, '"train.learning_rate" = [1e-3, 3e-3]', "[sweep.train]", "lora_rank = [4, 8]")

    names = ("lr@0.001,4", "lr@0.001,8", "lr@0.003,4", "lr@0.003,8")
    assert names == made.sweeps["lr"]
    trains = [made.recipes[name].train for name in names]
    assert [(1e-3, 4), (1e-3, 8), (3e-3, 4), (3e-3, 8)] == [(each.learning_rate, each.lora_rank) for each in trains]
    assert "lr" not in made.recipes


def test_a_default_sweep_builds_all_its_recipes(project: Path) -> None:
    """
    One word in [project] for one file.
    """
    text = PROJECT.replace('recipes = ["good"]', 'recipes = ["good", "lr"]')
    (project / "thunder.toml").write_text(text)

    assert ("good", "lr@4", "lr@8") == sweep_of(project, '"train.lora_rank" = [4, 8]').default


def test_any_key_can_be_swept(project: Path) -> None:
    """
    Also names of tables, texts and switches; what cannot be in a folder's name becomes a dash.
    """
    made = sweep_of(
        project,
        'cluster = ["local", "single"]',
        '"train.grad_checkpoint" = [true]',
        '"evaluate.profile" = ["wer-nfc-pooled"]',
    )

    assert ("lr@local,true,wer-nfc-pooled", "lr@single,true,wer-nfc-pooled") == made.sweeps["lr"]
    assert [2, 1] == [len(made.recipes[name].cluster.hosts) for name in made.sweeps["lr"]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ['"train.lora_rank" = [4, 0, 8]'],
            ["recipes/lr.toml: sweep.train.lora_rank: is 0; give at least 1"],
        ),
        (
            ['"train.lora_rnk" = [4, 8]'],
            ["recipes/lr.toml: sweep.train.lora_rnk: unknown key 'lora_rnk'; did you mean 'lora_rank'?"],
        ),
        (
            ['"train.lora_rank" = 4', "name = ['x']"],
            [
                "recipes/lr.toml: sweep.train.lora_rank: must be a list of values, is 4; "
                'as "train.learning_rate" = [1e-3, 3e-3]',
                "recipes/lr.toml: sweep.name: is no key that a sweep can set; take it out of [sweep]",
            ],
        ),
        (
            ['"train.lora_rank" = []'],
            [
                "recipes/lr.toml: sweep.train.lora_rank: must be a list of values, is []; "
                'as "train.learning_rate" = [1e-3, 3e-3]'
            ],
        ),
        (
            ['"train.lora_keys" = [["a"]]'],
            [
                "recipes/lr.toml: sweep.train.lora_keys: ['a'] is no number, text, true or false; "
                'as "train.learning_rate" = [1e-3, 3e-3]'
            ],
        ),
        (
            ['"train.learning_rate" = [0.001, 1e-3]'],
            [
                "recipes/lr.toml: sweep: (0.001,) and (0.001,) would both be named 'lr@0.001'; "
                "give values that differ in letters, digits, dots or dashes"
            ],
        ),
        (
            [f'"train.{key}" = [{", ".join(map(str, range(2, 20)))}]' for key in ("lora_rank", "seed")],
            ["recipes/lr.toml: sweep: makes 324 recipes; leave values out; 256 is the most"],
        ),
        (
            ["model = ['nano', 'nono']"],
            ["recipes/lr.toml: sweep.model: no model is named 'nono'; use one of: nano"],
        ),
        ([], ['recipes/lr.toml: sweep: must be a table of lists; as "train.learning_rate" = [1e-3, 3e-3]']),
        (['"model.x" = [1]'], ["recipes/lr.toml: sweep.model.x: 'model' is no table; correct the key"]),
        (
            [f"\"train.learning_rate\" = ['{'x' * 200}']"],
            [
                "recipes/lr.toml: sweep: 'lr@" + "x" * 200 + "' cannot name a run; give shorter values, or fewer keys",
                "recipes/lr.toml: sweep.train.learning_rate: must be a number, is '" + "x" * 200 + "'; change its type",
            ],
        ),
    ],
)
def test_a_wrong_sweep_is_reported_at_its_key(project: Path, lines: list[str], expected: list[str]) -> None:
    """
    Once for all combinations.
    """
    write(project, lr="\n".join(['extends = "good"', "[sweep]", *lines]))

    assert sorted(expected) == sorted(problems(project))


def test_a_wrong_sweep_stops_no_other_recipe(project: Path) -> None:
    """
    Its tasks say why when they are asked for.
    """
    write(project, lr='extends = "good"\n[sweep]\n"train.lora_rank" = [0]\n')

    settled, broken = usable(project)

    assert (["good"], ["lr"]) == ([*settled.recipes], [each.name for each in broken])


def test_a_made_name_is_never_a_files(project: Path) -> None:
    """
    `lr@4.toml` would be taken for a member of the sweep `lr`.
    """
    write(project, **{"lr@4": RECIPE})

    assert [
        "recipes/lr@4.toml: 'lr@4' cannot name a run; use letters, digits, . _ - and begin with a letter or digit"
    ] == problems(project)


def test_what_was_checked_once_is_read_again_from_memory(project: Path) -> None:
    """
    An edit of the base reaches every recipe that extends it, also one whose own file did not change.
    """
    write(project, lr='extends = "good"\n[sweep]\n"train.lora_rank" = [4, 8]\n')
    stats = StatCache(project / "stats.sqlite")
    first = load(project, stats)
    assert 4 == load(project, stats).recipes["lr@8"].train.num_iters
    write(project, good=RECIPE.replace("num_iters = 4", "num_iters = 40"))

    again = load(project, StatCache(project / "stats.sqlite"))

    assert (4, 40) == tuple(each.recipes["lr@8"].train.num_iters for each in (first, again))


def test_a_recipe_without_a_cluster_has_one_process(project: Path) -> None:
    """
    The way of most users. A project may say what `single` is; one without any cluster needs no table.
    """
    write(project, good=RECIPE.replace('cluster = "local"', ""))
    alone = load(project).recipes["good"].cluster
    (project / "thunder.toml").write_text(PROJECT.replace("[clusters.local]\nranks = 2\n", ""))
    without = load(project).recipes["good"].cluster
    (project / "thunder.toml").write_text(PROJECT.replace("[clusters.local]", "[clusters.single]"))

    assert ("single", 1, False) == (alone.name, len(alone.hosts), alone.is_remote)
    assert 1 == len(without.hosts)
    assert 2 == len(load(project).recipes["good"].cluster.hosts)
