"""Each optimizer in a real training: resumed to the bit, and the same for any number of ranks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.worker.train.conftest import Make, trained
from tests.worker.train.test_engine import alone, finish, ragged  # noqa: F401  (a fixture)
from thunder_train.worker.train.metrics_log import MetricsLog

pytestmark = pytest.mark.mlx

OTHERS = ("adam", "sgd", "muon", "adafactor", "lion")
RATES = {"sgd": 0.1, "muon": 1e-2}
"""Learning rates at which a few steps change an adapter; 1e-3 for the others."""


@pytest.mark.parametrize("optimizer", ["adamw", *OTHERS])
def test_a_resumed_run_equals_one_that_never_stopped(run: Make, optimizer: str) -> None:
    """
    A checkpoint keeps the whole state of any optimizer: matrices, rows and columns, counters, to the bit.
    """
    from thunder_train.worker.train import checkpoint, loop

    plan: dict[str, Any] = {"steps": 6, "schedule": "cosine", "warmup_steps": 2, "eval_every": 2}
    plan |= {"optimizer": optimizer, "weight_decay": 0.0 if optimizer == "adam" else 0.01}
    whole = run(**plan)
    expected = loop.checkpoint(whole, trained(whole))
    expected.progress.metrics.clear()  # they contain times
    first = run(**plan)
    state = loop.start(first, None)
    assert loop.train(replace(first, stop_asked=lambda: state.progress.step == 3), state)
    kept = checkpoint.decode(checkpoint.encode(loop.checkpoint(first, state)))
    second = replace(run(**plan), log=MetricsLog(None, kept.progress))
    state = loop.start(second, kept)
    loop.train(second, state)

    found = loop.checkpoint(second, state)
    found.progress.metrics.clear()
    assert {"step", "learning_rate"} < {*found.optimizer} == {*expected.optimizer}
    assert ((), 6) == (found.optimizer["step"].shape, found.optimizer["step"].item())
    assert checkpoint.encode(expected) == checkpoint.encode(found)


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("optimizer", "strategy"),
    [
        pytest.param("muon", "tensor", marks=pytest.mark.slow),
        ("adafactor", "tensor"),
        *(pytest.param(optimizer, "data", marks=pytest.mark.slow) for optimizer in OTHERS),
    ],
)
def test_the_number_of_ranks_does_not_change_the_result(
    ragged: Path,  # noqa: F811
    tmp_path: Path,
    optimizer: str,
    strategy: str,
) -> None:
    """
    Each rank updates the whole adapter by the sum over all ranks, so also an optimizer of whole matrices may be used
    where layers are split.
    """
    chosen: dict[str, Any] = {"optimizer": optimizer, "learning_rate": RATES.get(optimizer, 1e-3), "choose": "last"}
    chosen |= {"weight_decay": 0.0 if optimizer == "adam" else 0.01, "global_batch_size": 13, "num_iters": 3}
    one = alone(ragged, tmp_path / "one", **chosen)
    two = finish(ragged, tmp_path / "two", "hosts.json", strategy=strategy, **chosen)
    adapters = [load_file(place / "adapter/adapters.safetensors") for place in (one, two)]

    for name, tensor in adapters[0].items():
        assert np.allclose(tensor, adapters[1][name], rtol=1e-5, atol=1e-5 * np.abs(tensor).max()), name
