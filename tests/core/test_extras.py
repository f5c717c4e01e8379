"""The command that adds an extra."""

import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.core import extras


def test_the_extras_are_those_of_the_package() -> None:
    """
    A command that names another one would install nothing.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]

    assert [*extras.NAMES] == sorted(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("requirements.lock", "EXTRA=parquet ./doit"),
        ("uv-receipt.toml", "uv tool install 'thunder-train[parquet]'"),
        ("pyvenv.cfg", "pip install 'thunder-train[parquet]'"),
    ],
)
def test_an_extra_is_added_by_what_made_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, command: str
) -> None:
    """
    pip in an environment of ./doit would change it, and the next one would lack the package.
    """
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    assert command == extras.command("parquet")
