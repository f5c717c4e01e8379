"""A run's files in dataset repositories of the hub: found in the cache, pinned where the build looks."""

from pathlib import Path
from typing import Any

import pytest

from thunder_train.data import hub_dataset
from thunder_train.reproduce import hub_sources

OLD, NEW = "a" * 40, "b" * 40


def run_of(*sources: tuple[str, str], files: list[str]) -> dict[str, Any]:
    """What is read of a run's manifest. sources: repository and revision of each."""
    listed = [{"path": "*.jsonl", "references": "", "repo": repo, "revision": revision} for repo, revision in sources]
    entries = [{"path": path, "sha256": "0" * 64} for path in files]
    return {"recipe": {"dataset": {"name": "mine", "sources": listed}}, "inputs": {"sources": entries}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one file of me/rows."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = tmp_path / "hub/datasets--me--rows/snapshots" / OLD / "data/train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{}\n")
    return file


def test_files_are_those_of_the_commit_in_the_cache(cache: Path) -> None:
    """
    One that is not there is a path of no file, which the check of hashes reports by its name.
    """
    names = [f"me/rows@{OLD}/data/train.jsonl", f"me/rows@{OLD}/gone.jsonl", f"me/rows@{NEW}/data/train.jsonl"]

    files = hub_sources.files_here(run_of(("me/rows", "main"), files=[*names, "data/own.jsonl"]))

    assert {names[0]: cache, names[1]: Path(names[1]), names[2]: Path(names[2])} == files


def test_no_file_of_a_repository_that_the_recipe_does_not_name(cache: Path) -> None:
    """
    A stranger's manifest must not read private repositories of the cache that it does not declare.
    """
    run = run_of(("me/other", "main"), ("", "main"), files=[f"me/rows@{OLD}/data/train.jsonl", "../x@y/z"])

    assert {} == hub_sources.files_here(run)


def test_pins_are_those_that_the_build_reads(tmp_path: Path) -> None:
    """
    Two revisions of one repository have the commits of their files, in the order of the sources.
    """
    names = [f"me/rows@{NEW}/a.jsonl", "own.jsonl", f"me/rows@{NEW}/b.jsonl", f"me/rows@{OLD}/a.jsonl"]

    hub_sources.pin(run_of(("me/rows", "main"), ("", "main"), ("me/rows", "v1"), files=names), tmp_path)

    pins = hub_dataset.pinned(tmp_path / "data/mine/manifest.json")
    assert {("me/rows", "main"): NEW, ("me/rows", "v1"): OLD} == pins


def test_a_run_without_a_repository_pins_nothing(tmp_path: Path) -> None:
    """
    Then the clean folder has no manifest of a dataset before it is built.
    """
    hub_sources.pin(run_of(("", "main"), files=["own.jsonl"]), tmp_path)

    assert not (tmp_path / "data").exists()


def test_declared_paths_match_the_names_of_the_manifest() -> None:
    """
    Whatever the commit is.
    """
    source = {"path": "data/*.jsonl", "references": "", "repo": "me/rows"}

    assert ["me/rows@*/data/*.jsonl"] == hub_sources.declared(source)
    assert ["p.jsonl", "r.jsonl"] == hub_sources.declared({"path": "p.jsonl", "references": "r.jsonl"})
