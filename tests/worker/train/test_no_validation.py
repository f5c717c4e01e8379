"""Trainings on rows of which none is for validation: `valid = 0`."""

import json
from pathlib import Path

import pytest

from tests.worker.conftest import flags, inline, python, row, write_rows
from thunder_train.core import files

SAID = "no validation: valid.jsonl has no row, so the adapter is that of the last step"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A valid.jsonl without a row."""
    return write_rows(tmp_path / "valid.jsonl", [])


@pytest.mark.ranks
def test_without_validation_rows_the_last_adapter_is_the_result(folder: Path, tmp_path: Path, empty: Path) -> None:
    """
    Nobody can say which adapter is best, so the rule that is recorded is not that of the flag; two ranks agree.
    """
    chosen = flags(tmp_path / "adapter", valid_data=empty, choose="best")

    done = python("thunder_train.launch", ["--hostfile", "hosts.json", "--log-dir", str(tmp_path), *chosen], folder)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert (1, 0) == (done.stdout.count(SAID), done.stdout.count("valid loss"))
    record = files.read_json(tmp_path / "adapter/done.json")
    assert ({"rule": "last", "step": 4}, None, []) == (record["chosen"], record["best"], record["losses"]["valid"])
    assert (0, 0, 0) == (record["rows"]["valid"], record["tokens"]["valid"], record["tokens"]["valid_targets"])
    assert [1, 2, 3, 4] == [step for step, _ in record["losses"]["train"]]
    events = [json.loads(line)["event"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["train", "train", "save", "train", "train", "save"] == events
    both = [(tmp_path / name / "adapters.safetensors").read_bytes() for name in ("adapter", "last")]
    assert both[0] == both[1]


def test_patience_without_validation_rows_is_refused(folder: Path, tmp_path: Path, empty: Path) -> None:
    """
    It would never stop anything.
    """
    done = inline("thunder_train.worker", flags(tmp_path / "adapter", valid_data=empty, patience=2), folder)

    what = f"--patience: counts validations, and {empty} has no row; leave it out, or give validation rows"
    assert (True, True) == (done.returncode != 0, what in done.stdout + done.stderr)


def test_validation_rows_that_are_all_too_long_are_no_empty_file(folder: Path, tmp_path: Path) -> None:
    """
    A training that was to be validated would go without it.
    """
    valid = write_rows(tmp_path / "valid.jsonl", [row(1, "ߊ" * 90)])
    changed = {"valid_data": valid, "max_seq_len": 64, "too_long": "drop"}

    done = inline("thunder_train.worker", flags(tmp_path / "adapter", **changed), folder)

    assert f"{valid}: holds no row to use; run `./doit data`, or raise --max-seq-len" in done.stdout + done.stderr
