"""The output of frozen blocks, kept: same loss and gradient as the whole model, for every family, packed or padded."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import families
from tests.worker.test_head import build

pytestmark = pytest.mark.mlx

LENGTHS = (9, 21, 5, 14, 12)


def examples() -> list[Any]:
    """Rows of unequal length with two thirds targets."""
    from thunder_train.worker.batching.tokens import Example

    numbers = np.random.default_rng(0)
    return [
        Example(f"row-{i}", tuple(numbers.integers(1, families.VOCABULARY, length).tolist()), ((length // 3, length),))
        for i, length in enumerate(LENGTHS)
    ]


def layouts() -> Iterator[Any]:
    """Padded, and packed in another order than that of the rows."""
    from thunder_train.worker.batching.batch import batch
    from thunder_train.worker.batching.plan import Pass

    yield batch(examples(), Pass(tuple((i,) for i in range(5)), 20))
    yield batch(examples(), Pass(((3, 0), (1, 2, 4)), 40))


def prefix(model: Any, folder: Path, is_in_memory: bool = True) -> Any:
    """The frozen blocks of a model."""
    from thunder_train.worker.frozen_prefix import FrozenPrefix, Store

    return FrozenPrefix(model, Store(folder, is_in_memory))


def sums(model: Any, batch: Any) -> tuple[float, Any]:
    """Loss sum and flat gradient."""
    import mlx.core as mx
    import mlx.nn as nn

    from thunder_train.worker.batching.batch import loss_sum
    from thunder_train.worker.train.step import flatten

    loss, gradient = nn.value_and_grad(model, loss_sum)(model, batch)
    flat = flatten(gradient)
    mx.eval(loss, flat)
    return loss.item(), np.array(flat)


def difference(model: Any, batch: Any, kept: Any) -> float:
    """Largest relative difference of loss and gradient with the kept output."""
    loss, gradient = sums(model, batch)
    with kept.replaying(batch):
        other, found = sums(model, batch)
    return max(abs(loss - other) / loss, float(np.linalg.norm(found - gradient) / np.linalg.norm(gradient)))


@pytest.mark.parametrize("bits", [0, 4])
@pytest.mark.parametrize("name", families.CONFIGS)
def test_kept_output_gives_the_loss_and_gradient_of_the_whole_model(name: str, bits: int, tmp_path: Path) -> None:
    """
    Sliding windows, per-layer inputs, keys and values that later blocks share (Gemma 4): rows move between layouts.
    """
    from thunder_train.worker.model import Lora, add_lora

    model = families.build(name, bits)
    add_lora(model, Lora(1, 4), seed=0)
    kept = prefix(model, tmp_path)

    assert max(difference(model, each, kept) for each in layouts()) < 1e-5


def test_every_listed_family_has_the_gradient_of_its_own_blocks(tmp_path: Path) -> None:
    """
    The list says for whom output is kept by default.
    """
    from thunder_train.worker import frozen_prefix

    wrong = {}
    padded = next(layouts())
    others = sorted(set(frozen_prefix.FAMILIES) - set(families.CONFIGS) - {"gemma4_text"})
    for family, is_tied in itertools.product(others, (True, False)):
        model = build(family, is_tied)
        try:
            worst = difference(model, padded, prefix(model, tmp_path))
        except Exception as e:
            worst = repr(e)
        if not (isinstance(worst, float) and worst < 1e-5):
            wrong[family, is_tied] = worst
    assert {} == wrong
