"""A small project for the tests of its configuration."""

from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.config.load import load

PROJECT = """
[project]
recipes = ["good"]
[clusters.local]
ranks = 2
[models.nano]
kind = "nano"
[datasets.rows]
template = "prompt.j2"
[[datasets.rows.sources]]
kind = "chatml"
path = "rows.jsonl"
evidence_kind = "smoke"
"""
RECIPE = """
cluster = "local"
model = "nano"
dataset = "rows"
[train]
num_iters = 4
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small valid project."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "thunder.toml").write_text(PROJECT)
    (tmp_path / "recipes" / "good.toml").write_text(RECIPE)
    return tmp_path


def problems(project: Path) -> list[str]:
    """The lines a user would read."""
    with pytest.raises(ThunderError) as caught:
        load(project)
    return str(caught.value).splitlines()
