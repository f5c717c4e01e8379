"""Revisions: what is stated of a stage's code, and that the recorded code is the present one."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.core import code_hash, files, revisions
from thunder_train.core.stat_cache import StatCache


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> StatCache:
    """Hashes of modules."""
    return StatCache(tmp_path_factory.mktemp("stats") / "stats.sqlite")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, stats: StatCache) -> dict[str, dict[str, object]]:
    """revisions.json: every stage's present code is that of revision 2."""
    table: dict[str, dict[str, object]] = {
        stage: {"revision": 2, "code": code} for stage, code in revisions.hashes(stats).items()
    }
    monkeypatch.setattr(revisions, "recorded", lambda: table)
    return table


def test_the_code_is_the_recorded_one(stats: StatCache) -> None:
    """
    Who changes code that decides numbers proves that they stay, or raises the revision: only `python -m proof` writes
    a hash. Else users would train again for nothing, or would keep what the new code does not give.
    """
    unrecorded = revisions.unrecorded(stats)

    assert [] == unrecorded, (
        f"the code of {', '.join(unrecorded)} changed: commit revisions.json as `python -m proof` writes it, which "
        f"proves that every bit stays, or `python -m proof --raise {(unrecorded or [''])[0]}`, if numbers change"
    )


def test_the_recorded_code_is_stated_as_its_revision(recorded: dict[str, dict[str, object]], stats: StatCache) -> None:
    """
    A stage whose code decides a page besides its outputs states the modules of the page by their hashes.
    """
    starts = revisions.CODE["data"]
    rows, page = (code_hash.hashes(each, stats) for each in (starts, (*starts, "data.audit")))

    assert {"code": "revision 2"} == revisions.decisive(starts, rows, stats)
    assert {"code": "revision 2", **{path: page[path] for path in page if path not in rows}} == revisions.decisive(
        (*starts, "data.audit"), page, stats
    )


@pytest.mark.parametrize("stage", revisions.CODE)
def test_edited_code_is_stated_as_its_hash(
    recorded: dict[str, dict[str, object]], stats: StatCache, stage: str
) -> None:
    """
    Nobody has proven what it gives.
    """
    starts = revisions.CODE[stage]
    edited = {**code_hash.hashes(starts, stats), "thunder_train/core/files.py": "edited"}

    assert {"code": files.digest(edited)} == revisions.decisive(starts, edited, stats)


def test_a_stage_without_a_revision_states_its_hash(recorded: dict[str, dict[str, object]], stats: StatCache) -> None:
    """
    A page or a script takes seconds to make again.
    """
    code = code_hash.hashes(("launch.scripts",), stats)

    assert {"code": files.digest(code)} == revisions.decisive(("launch.scripts",), code, stats)


def test_without_the_file_every_code_counts_as_edited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stats: StatCache
) -> None:
    """
    A package that lost it still builds.
    """
    monkeypatch.setattr(revisions, "FILE", tmp_path / "revisions.json")
    revisions.recorded.cache_clear()
    try:
        assert ["abc", ["data", "model", "train", "evaluate"]] == [
            revisions.stated("train", "abc"),
            revisions.unrecorded(stats),
        ]
    finally:
        revisions.recorded.cache_clear()


def test_the_package_ships_the_file() -> None:
    """
    An installed package knows its revisions.
    """
    table = json.loads(revisions.FILE.read_text(encoding="utf-8"))

    wheel = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert revisions.FILE.is_relative_to(PROJECT / wheel["wheel"]["packages"][0])
    assert {*revisions.CODE} == {*table}
    assert all(entry["revision"] >= 1 and files.is_sha256(entry["code"]) for entry in table.values())
