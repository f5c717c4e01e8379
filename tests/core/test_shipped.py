"""Files that come with the package, and a project's own in their place."""

import tomllib
from pathlib import Path

from tests.helpers.project_copy import PROJECT
from thunder_train.core import shipped


def test_a_shipped_file_is_used_where_the_project_has_none(tmp_path: Path) -> None:
    """
    An upgraded package brings its new templates into every project that has not changed them.
    """
    place = shipped.place("templates/launch.sh.j2", tmp_path)

    assert shipped.FOLDER / "templates/launch.sh.j2" == place
    assert place.is_file()


def test_a_file_of_the_same_name_in_the_project_wins(tmp_path: Path) -> None:
    """
    A copied and edited template is what its owner wants.
    """
    own = tmp_path / "templates/launch.sh.j2"
    own.parent.mkdir()
    own.write_text("mine")

    assert own == shipped.place("templates/launch.sh.j2", tmp_path)


def test_what_nobody_has_is_looked_for_in_the_project(tmp_path: Path) -> None:
    """
    The error about a missing file names the place where its user would put it.
    """
    assert tmp_path / "templates/none.j2" == shipped.place("templates/none.j2", tmp_path)


def test_only_what_is_listed_comes_from_the_package() -> None:
    """
    In a clone the package's folder is the whole repository, of which most files are no part of another project.
    """
    paths = ("templates", "templates/chat/plain.jinja", "templatesx", "templates/../dodo.py", "dodo.py", "/templates")

    assert [True, True, False, False, False, False] == [shipped.is_shipped(path) for path in paths]


def test_the_wheel_holds_what_is_listed_and_the_repository_has_it() -> None:
    """
    pyproject.toml puts each path below thunder_train/shipped/.
    """
    targets = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]

    assert {path: f"thunder_train/shipped/{path}" for path in shipped.PATHS} == targets["wheel"]["force-include"]
    assert [] == [path for path in shipped.PATHS if not (PROJECT / path).exists()]
