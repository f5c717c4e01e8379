"""A recipe that needs more rows than its dataset has is refused only while the dataset is made of today's sources."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thunder_train.config.dataset import Dataset, Source
from thunder_train.config.validate import _is_current
from thunder_train.core import files

COMMIT = "a" * 40


def dataset(**given: Any) -> Dataset:
    """A dataset of one source."""
    table: dict[str, Any] = {"kind": "completions", "path": "rows.jsonl", "repo": "", "revision": "main"} | given
    return Dataset(name="mine", sources=(Source(**table),), templates=(), orthography_table={})


def built(project: Path, path: str = "rows.jsonl", **source: str) -> None:
    """The file of a source, and the manifest that its build left."""
    files.write_text(project / path, "{}\n")
    entry = {**source, "files": [{"path": path, "sha256": files.sha256(project / path)}]}
    split = {"seed": 0, "valid": 0.1, "test": 0.1}
    files.write_json(project / "data/mine/manifest.json", {"sources": [entry], "split": split})


def remove(project: Path) -> None:
    """A task will make it again."""
    (project / "rows.jsonl").unlink()


def edit(project: Path) -> None:
    """With more rows."""
    (project / "rows.jsonl").write_text("{}\n{}\n")


@pytest.mark.parametrize(("change", "expected"), [(None, True), (remove, False), (edit, False)])
def test_a_source_that_is_made_again_decides(
    tmp_path: Path, change: Callable[[Path], None] | None, expected: bool
) -> None:
    """
    Before a task has made it, nobody knows how many rows there will be.
    """
    built(tmp_path)
    if change:
        change(tmp_path)

    assert expected == _is_current(dataset(), tmp_path)


def test_another_file_that_matches_a_pattern_may_bring_the_rows(tmp_path: Path) -> None:
    """
    It was added since the build.
    """
    built(tmp_path, "part-1.jsonl")

    before = _is_current(dataset(path="part-*.jsonl"), tmp_path)
    files.write_text(tmp_path / "part-2.jsonl", "{}\n")

    assert (True, False) == (before, _is_current(dataset(path="part-*.jsonl"), tmp_path))


def test_what_lies_beside_the_rows_of_a_folder_does_not_count(tmp_path: Path) -> None:
    """
    A README is no row.
    """
    built(tmp_path, "corpus/train.jsonl")
    files.write_text(tmp_path / "corpus/README.md", "# Corpus")

    assert _is_current(dataset(path="corpus"), tmp_path)


@pytest.mark.parametrize(("revision", "expected"), [("main", True), ("v2", False)])
def test_another_revision_may_have_other_rows(tmp_path: Path, revision: str, expected: bool) -> None:
    """
    Files of a pinned commit never change.
    """
    built(tmp_path, "data/train.jsonl", repo="me/rows", revision="main", commit=COMMIT)

    assert expected == _is_current(dataset(path="data/*.jsonl", repo="me/rows", revision=revision), tmp_path)
