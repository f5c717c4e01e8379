"""The losses of an evaluation."""

from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import TEXTS, row
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


def test_a_loss_that_is_not_finite_names_the_rows(
    folder: Path, nano_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    All rows share a packed pass, and a reader must know which of thousands to look at.
    """
    import mlx.core as mx

    from thunder_train.worker import eval_loss, model
    from thunder_train.worker.batching import broken_rows, tokens
    from thunder_train.worker.batching.batch import loss_sum
    from thunder_train.worker.ranks import Ranks

    def broken(network: Any, batch: Any) -> Any:
        return loss_sum(network, batch) * (mx.nan if "row-2" in [each.row_id for each in batch.rows] else 1.0)

    for module in (eval_loss, broken_rows):
        monkeypatch.setattr(module, "loss_sum", broken)
    network, _ = model.load(str(folder / "nano"), "")
    rows = [tokens.example(row(number, text), nano_chat, where=f"x:{number}") for number, text in enumerate(TEXTS)]
    with pytest.raises(ThunderError) as caught:
        eval_loss.measure(network, rows, 512, 8192, Ranks(0, 1), lambda: None)

    expected = (
        "evaluation: the loss is not finite for 1 row: row-2; look at these rows, and for a broken model or adapter"
    )
    assert expected == str(caught.value)
