"""A record that git brought is replaced by what is here, and what differs is said."""

from pathlib import Path
from typing import Any

import pytest

from thunder_train.build import records
from thunder_train.core import files

PULLED = {"run_id": "a" * 64, "n": 1, "outputs": [{"path": "x", "sha256": "1"}, {"path": "y", "sha256": "2"}]}
MADE = {"run_id": "b" * 64, "n": 1, "outputs": [{"path": "y", "sha256": "3"}, {"path": "x", "sha256": "1"}]}


def replaced(folder: Path, name: str, pulled: Any, made: Any, known: str = "") -> list[str]:
    """The lines about a target that lies in the project and is about to be replaced."""
    files.write_json(folder / "staging" / name, made)
    if pulled is not None:
        files.write_json(name, pulled)
    return list(records.replaced([name], folder / "staging", {name: known}))


@pytest.mark.parametrize("name", ["runs/a/manifest.json", "data/a/manifest.json", "runs/models/a/model.lock.json"])
def test_a_record_from_elsewhere_is_told_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """
    Files of a list by their path, whatever their order; hashes by their first digits.
    """
    monkeypatch.chdir(tmp_path)

    assert [
        f"{name}: the one that lies here was not made by this build, which replaces it",
        "  outputs.y.sha256: '2' -> '3'",
        "  run_id: 'aaaaaaaaaaaa...' -> 'bbbbbbbbbbbb...'",
    ] == replaced(tmp_path, name, PULLED, MADE)


def test_of_many_differences_the_first_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The rest is in git.
    """
    monkeypatch.chdir(tmp_path)
    lines = replaced(tmp_path, "data/a/manifest.json", {f"k{n}": 1 for n in range(9)}, {"k0": "x" * 100})

    assert ("  k0: 1 -> 'xxxxxxxxxxxx...'", 7) == (lines[1], len(lines))
    assert "  and 4 more; `git diff data/a/manifest.json` shows all" == lines[-1]


@pytest.mark.parametrize("kind", ["missing", "the same", "made here", "no record"])
def test_nothing_is_said_of_what_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """
    A record that the last build wrote, one with the same bytes, and a target that is no record.
    """
    monkeypatch.chdir(tmp_path)
    name = "runs/a/eval.json" if kind == "no record" else "runs/a/manifest.json"
    pulled = {"missing": None, "the same": MADE}.get(kind, PULLED)
    files.write_json("x", PULLED)
    known = files.sha256("x") if kind == "made here" else ""

    assert [] == replaced(tmp_path, name, pulled, MADE, known)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 5000])
def test_a_damaged_record_is_replaced_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """
    Half a merge, for one.
    """
    monkeypatch.chdir(tmp_path)
    files.write_text("runs/a/manifest.json", text)

    assert "  n: None -> 1" == replaced(tmp_path, "runs/a/manifest.json", None, MADE)[1]
