"""Paths that a person gives are paths from where they called."""

import os
from pathlib import Path

import pytest

from thunder_train.core import caller


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("manifest.json", "runs/manifest.json"),
        ("../recipes/a.toml", "recipes/a.toml"),
        ("./x", "runs/x"),
        ("..", "."),
        ("../../elsewhere/x", None),
        ("/tmp/x", "/tmp/x"),
    ],
)
def test_a_path_from_a_subfolder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str | None
) -> None:
    """
    ./doit goes to the project's folder before it runs; what lies outside keeps its whole path.
    """
    (tmp_path / "project/runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(caller, "_folder", str(tmp_path / "project/runs"))

    outside = os.path.join(tmp_path / "project/runs", given)
    assert (outside if expected is None else expected) == caller.path(given)


def test_without_a_caller_paths_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As when the program is started without ./doit.
    """
    monkeypatch.setattr(caller, "_folder", "")

    assert "runs/x" == caller.path("runs/x")
    assert os.getcwd() == caller.folder()
