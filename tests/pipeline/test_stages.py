"""What stages say, and what a training must have read before its result becomes the run's."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import source
from tests.helpers.recipes import done
from thunder_train import ThunderError
from thunder_train.config import load
from thunder_train.config.dataset import Dataset
from thunder_train.config.project import Recipe
from thunder_train.core import files
from thunder_train.pipeline import stages

ROWS = {"train": 16, "valid": 4}
DIGESTS = {"train": "a" * 64, "valid": "b" * 64}
READ = {name: sha[:16] for name, sha in DIGESTS.items()}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Any recipe."""
    return load.load(Path()).recipes["smoke"]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, ""),
        ({"rows": {"train": 15, "valid": 4}}, "trained on {'train': 15, 'valid': 4} rows, its manifest has"),
        ({"rows_sha256": {**READ, "train": "c" * 16}}, "train.jsonl changed before the training read it; leave"),
        ({"rows_sha256": dict.fromkeys(READ, "c" * 16)}, "train.jsonl and valid.jsonl changed before"),
        ({"rows_sha256": {}}, "does not count its rows"),
        ({"rows_sha256": 7}, "does not count its rows"),
    ],
    ids=["the same rows", "fewer rows", "other rows", "both others", "none stated", "no table"],
)
def test_a_training_that_read_other_rows_is_refused(
    recipe: Recipe, tmp_path: Path, changed: dict[str, Any], problem: str
) -> None:
    """
    Rows that were swapped before the ranks read them, and swapped back before the end, show nowhere else.
    """
    record = tmp_path / "done.json"
    files.write_json(record, done(4) | {"dropped": {"train": 0, "valid": 0}, "rows_sha256": READ} | changed)
    try:
        stages._check_rows(recipe, ROWS, DIGESTS, record)
        said = ""
    except ThunderError as error:
        said = str(error)

    assert bool(problem) == bool(said)
    assert problem in said


def test_a_tracker_that_is_missing_is_refused_before_the_launch(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Else rank 0 would load the model first. Where the first rank is on another host, that rank says so.
    """
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("thunder_train.core.extras.command", lambda name: f"EXTRA={name} ./doit")
    asked = replace(recipe, train=replace(recipe.train, report_to=("wandb", "swanlab")))
    with pytest.raises(ThunderError) as caught:
        stages._check_trackers(asked)

    expected = (
        "recipes/smoke.toml: train.report_to: names wandb and swanlab, which is not installed; run "
        f"`EXTRA=wandb ./doit` and `{sys.executable} -m pip install swanlab`"
    )
    assert expected == str(caught.value)
    stages._check_trackers(recipe)


def test_a_training_records_what_it_took_in_the_form_that_a_page_reads() -> None:
    """
    The report names date, duration and commit; the minute is enough, and UTC is the same on every host.
    """
    facts = stages._timing(47.0521, "0123456789ab")

    assert {"seconds": 47.052, "commit": "0123456789ab"} == {name: facts[name] for name in ("seconds", "commit")}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d\+00:00", facts["ended"])


def test_notes_of_a_dataset_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What is disabled is said when the rows are built, not after the training.
    """
    monkeypatch.chdir(tmp_path)
    turns = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}]
    row = {"messages": turns, "quality": 5}
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (row, {**row, "train": False})))
    sources = (source(kind="chatml", path="c.jsonl"),)
    dataset = Dataset(name="d", sources=sources, templates=(), orthography_table={}, valid=0, test=0)

    stages.data(dataset, Path("out"), "code")

    assert [
        "data:d: valid has no row: there is no best adapter and no early stopping",
        "data:d: test has no row: nothing is scored",
        "data:d: dropped: 1 row (a row with a weight of 0: 1); dropped.jsonl names each",
        "data:d: fields that are not used: quality",
    ] == [line for line in capsys.readouterr().out.splitlines() if line.startswith("data:d: ")]
