"""A validation whose loss is not finite."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.train.conftest import Make, digest
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


def break_rows(monkeypatch: pytest.MonkeyPatch, *names: str, when: Callable[[], bool] = lambda: True) -> None:
    """Let each validation pass that holds one of the rows have a loss that is not finite."""
    from thunder_train.worker.batching import broken_rows
    from thunder_train.worker.batching.batch import loss_sum
    from thunder_train.worker.train import validation

    def broken(model: Any, batch: Any) -> Any:
        is_broken = when() and {*names} & {row.row_id for row in batch.rows}
        return loss_sum(model, batch) * (float("nan") if is_broken else 1.0)

    for module in (validation, broken_rows):
        monkeypatch.setattr(module, "loss_sum", broken)


def test_a_validation_that_is_not_finite_names_its_rows_and_the_run_goes_on(
    run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The rows share a packed sequence, and one of them alone is to blame. The best adapter so far stays.
    """
    from thunder_train.worker import adapter
    from thunder_train.worker.train import loop

    one = run(metrics=tmp_path / "metrics.jsonl", steps=3)
    untrained, state = digest(one), loop.start(one, None)
    break_rows(monkeypatch, "row-1", when=lambda: state.progress.step == 2)
    loop.train(one, state)
    lines = [line for line in capsys.readouterr().out.splitlines() if "valid" in line]
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    assert (1, 0) == (state.progress.skipped_validations, state.progress.skipped_validations_in_a_row)
    assert [0, 1, 3] == [step for step, _ in state.progress.losses["valid"]]
    assert "step 2/3  validation skipped: the loss is not finite for 1 row: row-1" == lines[2]
    assert [["row-1"]] == [event["rows"] for event in events if event["event"] == "skip_valid"]
    assert (3, True) == (state.progress.best_step, untrained != adapter.tensor_digest(state.best))


def test_too_many_validations_that_are_not_finite_end_the_run_with_a_checkpoint(
    run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The same limit as for steps. The best adapter is in the checkpoint, from which a higher limit lets the run go on.
    """
    from thunder_train.worker.train import loop

    one, saved = run(steps=30, max_skipped=2), list[Any]()
    state = loop.start(one, None)
    break_rows(monkeypatch, "row-0", "row-2")
    with pytest.raises(ThunderError) as caught:
        loop.train(replace(one, save=saved.append), state)

    expected = (
        "step 1: 2 validations in a row had a loss that is not finite for 2 rows: row-0, row-2; look at these rows and "
        "the base model; with a higher max_skipped the run goes on from its checkpoint"
    )
    assert expected == str(caught.value)
    assert [1] == [each.progress.step for each in saved]


def test_a_message_names_twenty_rows_at_most() -> None:
    """
    A broken model breaks every row.
    """
    from thunder_train.worker.batching import broken_rows

    expected = "22 rows: " + ", ".join(map(str, range(20))) + " and 2 more"
    assert expected == broken_rows.counted([str(number) for number in range(22)])
