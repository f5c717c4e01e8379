"""Trainings that keep the output of frozen layers: the numbers of one that does not, and the same to the bit anyhow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.worker.train.test_engine import alone, finish, outcome, ragged  # noqa: F401  (a fixture)

pytestmark = pytest.mark.mlx

ONE = {"num_layers": 1, "global_batch_size": 4, "num_iters": 14, "eval_every": 7, "lora_dropout": 0.1}
"""14 steps of 4 of 13 rows: three and a half epochs. One of two layers is frozen."""


def assert_near(one: Path, other: Path) -> None:
    """Losses and adapter agree within 1e-5."""
    first, second = (json.loads((place / "adapter/done.json").read_text())["losses"] for place in (one, other))
    for kind in ("train", "valid"):
        assert [pytest.approx(loss, rel=1e-5) for _, loss in first[kind]] == [loss for _, loss in second[kind]]
    tensors = load_file(other / "adapter/adapters.safetensors")
    for name, tensor in load_file(one / "adapter/adapters.safetensors").items():
        assert np.allclose(tensor, tensors[name], rtol=1e-5, atol=1e-5 * np.abs(tensor).max()), name


def done(place: Path) -> Any:
    """done.json of a training."""
    return json.loads((place / "adapter/done.json").read_text())


@pytest.mark.parametrize("packing", ["auto", "never"])
def test_kept_output_trains_the_same_adapter(ragged: Path, tmp_path: Path, packing: str) -> None:  # noqa: F811
    """
    Dropout of the layers above included: the adapter may not depend on how its inputs were made.
    """
    kept = alone(ragged, tmp_path / "kept", packing=packing, **ONE)
    computed = alone(ragged, tmp_path / "computed", packing=packing, keep_prefix="never", **ONE)

    assert_near(kept, computed)
    assert (1, 0) == (done(kept)["frozen_layers_kept"], done(computed)["frozen_layers_kept"])


def test_a_file_gives_the_bits_of_memory(
    ragged: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Where the output is kept follows from the machine, so it must not decide a bit. The file is gone afterwards.
    """
    from thunder_train.worker import frozen_prefix

    memory = alone(ragged, tmp_path / "memory", **ONE)
    monkeypatch.setattr(frozen_prefix, "IN_MEMORY", 0)
    file = alone(ragged, tmp_path / "file", **ONE)

    assert outcome(memory) == outcome(file)
    assert [] == list((file / "prefix").iterdir())


@pytest.mark.ranks
@pytest.mark.parametrize("strategy", ["data", "tensor"])
def test_ranks_agree_with_one_rank(ragged: Path, tmp_path: Path, strategy: str) -> None:  # noqa: F811
    """
    Rows move between ranks from epoch to epoch: a rank computes what it lacks.
    """
    plan = {**ONE, "lora_dropout": 0.0}  # ranks drop other inputs
    alone(ragged, tmp_path / "one", **plan)
    finish(ragged, tmp_path / "two", "hosts.json", strategy=strategy, **plan)

    assert_near(tmp_path / "one", tmp_path / "two")


@pytest.mark.ranks
def test_a_resumed_training_equals_one_that_never_stopped(ragged: Path, tmp_path: Path) -> None:  # noqa: F811
    """
    In the third epoch nothing is kept yet, on either rank, and all the same the bits are those of before.
    """
    place = finish(ragged, tmp_path, "hosts.json", save_every=10, **ONE)
    whole = outcome(place)
    (place / "checkpoints/0000014.safetensors").unlink()

    assert whole == outcome(finish(ragged, place, "hosts.json", save_every=10, **ONE))
    assert "step 10/14  goes on from here" in (place / "logs/rank-0.log").read_text()


def test_rows_read_less_than_twice_are_not_kept(ragged: Path, tmp_path: Path) -> None:  # noqa: F811
    """
    Keeping would cost memory and bring nothing.
    """
    place = alone(ragged, tmp_path / "a", **{**ONE, "num_iters": 7})

    assert 0 == done(place)["frozen_layers_kept"]
