"""The optimizers of a training."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mlx

P = 24
"""Numbers of a matrix of (6, 4)."""
NAMES = ("adamw", "adam", "sgd", "muon", "adafactor", "lion")


def updated(name: str, weight_decay: float, value: float = 1.0, gradient: float = 0.5) -> Any:
    """A (6, 4) matrix of one value after one update at rate 0.1, by a gradient of one value."""
    import mlx.core as mx
    import mlx.nn as nn

    from thunder_train.worker import optimizer

    layer = nn.Linear(4, 6, bias=False)
    layer.weight = mx.full((6, 4), value)
    optimizer.make(name, 0.1, weight_decay).update(layer, {"weight": mx.full((6, 4), gradient)})
    return layer.weight


@pytest.mark.parametrize(
    ("name", "decay", "expected"),
    [
        ("adamw", 0.0, 0.9),  # bias-corrected, so 0.1 x the gradient's sign
        ("adamw", 0.5, 0.95 - 0.1),  # decoupled: 1 - 0.1 x 0.5
        ("adam", 0.0, 0.9),
        ("sgd", 0.0, 1 - 0.1 * 0.5),
        ("sgd", 0.5, 1 - 0.1 * (0.5 + 0.5)),
        ("adafactor", 0.0, 0.9),  # 0.1 and no relative step of its own, whatever the size of the weights
        ("adafactor", 0.5, 0.95 - 0.1),
        ("lion", 0.0, 0.9),
        ("lion", 0.5, 0.95 - 0.1),
    ],
)
def test_the_first_update_is_the_published_one(name: str, decay: float, expected: float) -> None:
    """
    At the learning rate that the recipe states, with weight decay where the optimizer has one.
    """
    assert [pytest.approx(expected, rel=1e-4)] * P == updated(name, decay).reshape(-1).tolist()


def test_muon_takes_a_step_of_the_learning_rate_in_each_direction() -> None:
    """
    A matrix of equal numbers has one direction, whose length becomes about 1: 5 rounds of Newton and Schulz reach it
    to within a third. mlx makes the step longer for a matrix of more rows than columns.
    """
    import mlx.core as mx

    step = mx.linalg.norm(updated("muon", 0.0) - 1.0).item() / (0.1 * (6 / 4) ** 0.5)

    assert 0.67 < step < 1.33


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("adamw", 2 * P), ("adam", 2 * P), ("sgd", P), ("muon", P), ("adafactor", 6 + 4), ("lion", P)],
)
def test_what_an_optimizer_remembers_is_counted(name: str, numbers: int) -> None:
    """
    `fit` would promise AdamW's two moments to each; adafactor keeps a number for each row and column.
    """
    import mlx.nn as nn

    from thunder_train.worker import optimizer

    assert 4 * numbers == optimizer.state_bytes(name, nn.Linear(4, 6, bias=False))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_muon_refuses_what_is_no_matrix(folder: Path, kind: str) -> None:
    """
    mlx's would update DoRA's magnitudes by plain momentum, and experts as one flattened matrix.
    """
    from thunder_train.worker import model, optimizer

    loaded, _ = model.load(str(folder / "nano"), "")
    model.add_lora(loaded, model.Lora(num_layers=1, rank=4, keys=("self_attn.q_proj",), kind=kind), seed=0)
    name = "model.layers.1.self_attn.q_proj.m"
    expected = [
        f"--optimizer: muon trains matrices, and 1 of the adapter's tensors are none, as {name}; "
        "use another optimizer, or adapt other layers with --lora-keys"
    ]

    assert (expected if kind == "dora" else []) == [str(each) for each in optimizer.problems("muon", loaded)]
    assert [] == [problem for each in NAMES if each != "muon" for problem in optimizer.problems(each, loaded)]
