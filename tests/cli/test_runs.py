"""`doit runs`: what it shows of runs with a manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.cli.runs import ShowRuns
from thunder_train.reproduce import manifest

MANIFEST = PROJECT / "runs/nko-nano/manifest.json"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, rate: float | None = 0.03, loss: float = 0.5, **train: Any) -> None:
    """A run like nko-nano with another name, rate, loss and keys of [train]."""
    table = json.loads(MANIFEST.read_text())
    table["recipe"]["name"] = name
    table["recipe"]["train"] |= train
    table["metrics"]["losses"]["valid"] = [[0, 1.0], [10, loss]]
    for line in table["metrics"]["conditions"]:
        if line["partition"] == "all" and line["condition"].startswith("adapter"):
            line["cer"] = rate
    table["run_id"] = manifest.run_id_of(table)
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(table))


def shown(capsys: pytest.CaptureFixture[str], *words: str, sort: str = "score", as_json: bool = False) -> str:
    """What it prints."""
    assert 0 == ShowRuns().execute({"sort": sort, "as_json": as_json}, [*words])
    return capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], *words: str, sort: str = "score") -> dict[str, Any]:
    """The same for programs."""
    table: dict[str, Any] = json.loads(shown(capsys, *words, sort=sort, as_json=True))
    return table


def test_only_what_differs_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Twenty equal columns hide the one that explains the scores.
    """
    run("a", 0.04, learning_rate=1e-3)
    run("b", 0.02, learning_rate=3e-3)

    table = shown(capsys)

    assert ["train.learning_rate"] == facts(capsys)["differing"]
    assert 80 >= max(map(len, table.splitlines()))
    assert table.index("b *") < table.index(" a ")
    assert "0.003" in table


@pytest.mark.parametrize(
    ("sort", "names"),
    [("score", "bac"), ("loss", "cba"), ("name", "abc"), ("train.seed", "acb"), ("seed", "acb")],
)
def test_runs_are_sorted_by_a_column_or_a_key(capsys: pytest.CaptureFixture[str], sort: str, names: str) -> None:
    """
    What has no value comes last.
    """
    run("a", 0.03, 0.9, seed=1)
    run("b", 0.02, 0.8, seed=30)
    run("c", None, 0.7, seed=4)

    assert [*names] == [each["name"] for each in facts(capsys, sort=sort)["runs"]]


def test_the_best_is_the_best_of_what_can_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Error rates of other test rows say nothing about these.
    """
    run("a", 0.03)
    run("b", 0.02)
    run("elsewhere", 0.01)
    path = Path("runs/elsewhere/manifest.json")
    table = json.loads(path.read_text())
    table["inputs"]["splits"]["test"]["sha256"] = "0" * 64
    table["run_id"] = manifest.run_id_of(table)
    path.write_text(json.dumps(table))

    assert ["b"] == [each["name"] for each in facts(capsys)["runs"] if each["best"]]


def test_names_may_be_patterns_and_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    """
    As `doit runs lr` after a sweep lr.
    """
    for name in ("lr@1", "lr@2", "other"):
        run(name)

    assert ["lr@1", "lr@2"] == sorted(each["name"] for each in facts(capsys, "lr")["runs"])
    assert ["other"] == [each["name"] for each in facts(capsys, "oth*")["runs"]]


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """
    A damaged manifest does not hide the others.
    """
    assert "no run has a manifest yet\n" == shown(capsys)
    run("a")
    Path("runs/b").mkdir()
    Path("runs/b/manifest.json").write_text("{")

    assert 3 == ShowRuns().execute({"sort": "nonsense", "as_json": False}, [])
    assert "ERROR: --sort: no column or key is named 'nonsense'; one of score" in capsys.readouterr().err
    assert 3 == ShowRuns().execute({"sort": "name", "as_json": False}, ["zz"])
    assert 0 == ShowRuns().execute({"sort": "name", "as_json": False}, [])
    captured = capsys.readouterr()
    assert "runs/b/manifest.json" in captured.err
    assert "a" in captured.out
