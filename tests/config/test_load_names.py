"""Recipes and tables whose names cannot be told apart, paths of a home, and recipes that cannot be used."""

import os
from pathlib import Path

import pytest

from tests.config.conftest import PROJECT, RECIPE, problems
from thunder_train import ThunderError
from thunder_train.config.load import load, usable


@pytest.mark.parametrize(("first", "second"), [("smoke", "SMOKE"), ("a.B", "a.b")])
def test_recipes_whose_names_differ_only_in_case_are_refused(project: Path, first: str, second: str) -> None:
    """
    On a Mac their runs would write into one folder.
    """
    (project / "recipes" / "x.toml").write_text(f'name = "{first}"\n' + RECIPE)
    (project / "recipes" / "y.toml").write_text(f'name = "{second}"\n' + RECIPE)

    assert [
        f"recipes/y.toml: name: '{second}' differs only in case from '{first}' of recipes/x.toml; "
        "on a Mac both would be one folder; rename one of them"
    ] == problems(project)
    settled, broken = usable(project)
    assert (["good"], sorted([first, second])) == ([*settled.recipes], sorted(each.name for each in broken))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[datasets.rows]",
            '[models.NANO]\nkind = "nano"\n[datasets.rows]',
            "models.NANO: 'NANO' differs only in case from 'nano'",
        ),
        (
            "[[datasets.rows",
            '[datasets.Rows]\ntemplate = "a.j2"\nsources = [{kind = "chatml", path = "a", evidence_kind = "smoke"}]\n'
            "[[datasets.rows",
            "datasets.Rows: 'Rows' differs only in case from 'rows'",
        ),
    ],
)
def test_names_of_tables_that_differ_only_in_case_are_refused(project: Path, old: str, new: str, expected: str) -> None:
    """
    Models and datasets have folders too.
    """
    (project / "thunder.toml").write_text(PROJECT.replace(old, new, 1))

    assert [f"thunder.toml: {expected}; on a Mac both would be one folder; rename one of them"] == problems(project)


@pytest.mark.parametrize(("file", "name"), [("models.toml", ""), ("Models.toml", ""), ("x.toml", "MODELS")])
def test_a_recipe_is_not_called_as_a_folder_of_the_project(project: Path, file: str, name: str) -> None:
    """
    runs/models holds the base models; the name of a file counts as much as a key.
    """
    (project / "recipes" / file).write_text((f'name = "{name}"\n' if name else "") + RECIPE)

    at, shown = ("name: ", name) if name else ("", file.removesuffix(".toml"))
    assert [f"recipes/{file}: {at}'{shown}' is a folder of the project; choose another name"] == problems(project)


def test_the_home_of_an_unknown_user_is_reported(project: Path) -> None:
    """
    Path.expanduser raises a RuntimeError.
    """
    (project / "thunder.toml").write_text(PROJECT.replace("[clusters", 'cache = "~nouser-x/c"\n[clusters', 1))

    assert [
        "thunder.toml: project.cache: '~nouser-x/c' begins with the home of a user whom this machine does not know; "
        "give another folder"
    ] == problems(project)


@pytest.mark.parametrize(
    ("folder", "expected"), [("~/x", "x"), ("~", "."), ("~/", "."), ("~//a/b", "a/b"), ("a/~/b", "a/~/b"), ("/x", "/x")]
)
def test_a_cluster_folder_may_begin_with_the_home(project: Path, folder: str, expected: str) -> None:
    """
    It is a path from the home folder anyway; quoted for a shell, ~ would be a folder of that name.
    """
    (project / "thunder.toml").write_text(PROJECT.replace("ranks = 2", f'ranks = 2\nfolder = "{folder}"'))

    assert expected == load(project).recipes["good"].cluster.folder


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("folder", "~other/x", "give a path from the home folder, as ~/x or x"),
        ("python", "~/venv/bin/python", "give a path from the project folder"),
    ],
)
def test_a_home_that_no_shell_looks_up_is_refused(project: Path, key: str, value: str, hint: str) -> None:
    """
    Rather than a folder named ~ on the host.
    """
    (project / "thunder.toml").write_text(PROJECT.replace("ranks = 2", f'ranks = 2\n{key} = "{value}"'))

    assert [f"thunder.toml: clusters.local.{key}: {value!r} begins with ~; {hint}"] == problems(project)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[bad",
        b"\xff",
        b"x = \0",
        "x = 1".encode("utf-16"),
        b"x = " + b"9" * 5000,
        b"x = " + b"[" * 3000 + b"]" * 3000,
        RECIPE.replace("nano", "nan").encode(),
        b"x = 1",
    ],
)
def test_a_recipe_that_cannot_be_used_leaves_the_others(project: Path, content: bytes) -> None:
    """
    Its name and all its problems are kept for whoever asks for it.
    """
    (project / "recipes" / "wip.toml").write_bytes(content)

    settled, broken = usable(project)

    assert (["good"], ["wip"]) == ([*settled.recipes], [each.name for each in broken])
    assert problems(project) == str(broken[0]).splitlines()


def test_a_recipe_that_is_a_folder_a_pipe_or_a_lost_link_leaves_the_others(project: Path) -> None:
    """
    As a file without permission does.
    """
    (project / "recipes" / "folder.toml").mkdir()
    (project / "recipes" / "link.toml").symlink_to("nowhere")
    os.mkfifo(project / "recipes" / "pipe.toml")

    assert ["folder", "link", "pipe"] == [each.name for each in usable(project)[1]]


def test_of_two_recipes_of_one_name_neither_is_used(project: Path) -> None:
    """
    Nobody can tell which of them is meant.
    """
    (project / "recipes" / "other.toml").write_text('name = "good"\n' + RECIPE)

    assert ({}, ["good"]) == (usable(project)[0].recipes, [each.name for each in usable(project)[1]])


def test_a_broken_project_file_stops_everything(project: Path) -> None:
    """
    Every recipe needs it.
    """
    (project / "thunder.toml").write_text("[bad")

    with pytest.raises(ThunderError, match=r"thunder\.toml: is not TOML"):
        usable(project)


def test_a_default_recipe_that_is_missing_is_a_broken_one(project: Path) -> None:
    """
    A deleted recipe stops only bare `doit`.
    """
    (project / "thunder.toml").write_text(PROJECT.replace('"good"', '"good", "gone"'))

    settled, broken = usable(project)

    assert (["good"], ["gone"]) == ([*settled.recipes], [each.name for each in broken])
    assert "thunder.toml: project.recipes: no recipe is named 'gone'; use one of: good" == str(broken[0])
