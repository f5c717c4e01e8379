"""What `doit compare` says of two runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.cli.commands import Compare
from thunder_train.reproduce import manifest

MANIFEST = PROJECT / "runs/nko-nano/manifest.json"


def run(path: Path, rate: float, low: float, high: float, test_rows: str = "a", **train: Any) -> str:
    """A run like nko-nano with another rate, interval, test rows and keys of [train]."""
    table = json.loads(MANIFEST.read_text())
    table["recipe"]["train"] |= train
    table["inputs"]["splits"]["test"]["sha256"] = test_rows * 64
    for line in table["metrics"]["conditions"]:
        if line["partition"] == "all" and line["condition"] == "adapter_gated":
            line |= {"cer": rate, "cer_low": low, "cer_high": high, "better": 9}
    table["run_id"] = manifest.run_id_of(table)
    path.write_text(json.dumps(table))
    return str(path)


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it prints."""
    assert 0 == Compare().execute({"as_json": False, "whole": False}, [*words])
    return capsys.readouterr().out


def test_the_headline_says_which_is_better_and_whether_that_may_be_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    It is what a person asks; equal and lesser facts are counted.
    """
    one = run(tmp_path / "a.json", 0.04, 0.035, 0.045)
    two = run(tmp_path / "b.json", 0.03, 0.025, 0.034, learning_rate=0.01234567)
    near = run(tmp_path / "c.json", 0.039, 0.034, 0.044)

    lines = compared(capsys, one, two).splitlines()

    assert ("B is better: adapter_gated 0.04 in A, 0.03 in B (25% lower); their 95 % intervals lie apart") == lines[0]
    assert ["recipe.train.learning_rate", "0.001", "0.01235"] == lines[2].split()
    assert ["metrics.conditions.adapter_gated.all.cer", "0.04", "0.03", "better"] == lines[-2].split()
    assert "and 2 more metrics; --all shows them" == lines[-1]
    assert "A is better" in compared(capsys, two, one)
    assert "overlap, so it may be chance" in compared(capsys, one, near)
    assert "cer_low" in compared(capsys, one, two, "--all")


def test_scores_of_other_rows_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Two error rates on two test sets say nothing about two adapters; equal validation rows still do.
    """
    one = run(tmp_path / "a.json", 0.04, 0.035, 0.045)
    two = run(tmp_path / "b.json", 0.03, 0.025, 0.034, test_rows="b")

    assert compared(capsys, one, two).startswith("both are equally good: validation loss 0.03")


def test_equal_runs_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    And nothing else is said.
    """
    one = run(tmp_path / "a.json", 0.04, 0.035, 0.045)

    assert "the two runs are the same\n" == compared(capsys, one, one)
