"""The output of frozen blocks, kept: same loss and gradient as the whole model, for every family, packed or padded."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import families
from tests.worker.test_head import build
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx

LENGTHS = (9, 21, 5, 14, 12)


def examples() -> list[Any]:
    """Rows of unequal length with two thirds targets."""
    from thunder_train.worker.batching.examples import Example

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
    from thunder_train.worker.frozen_prefix import FrozenPrefix, Store, depth

    return FrozenPrefix(model, depth(model), Store(folder, is_in_memory))


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
        other, changed = sums(model, batch)
    return max(abs(loss - other) / loss, float(np.linalg.norm(changed - gradient) / np.linalg.norm(gradient)))


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
        worst = difference(model, padded, prefix(model, tmp_path))
        if not worst < 1e-5:
            wrong[family, is_tied] = worst
    assert {} == wrong


def test_keys_and_values_of_frozen_layers_are_kept_where_later_ones_use_them(tmp_path: Path) -> None:
    """
    Gemma 4's last layers have none of their own.
    """
    from thunder_train.worker.frozen_prefix import token_bytes
    from thunder_train.worker.model import Lora, add_lora

    model = families.build("gemma4_e2b", 0)
    add_lora(model, Lora(1, 4), seed=0)
    kept = prefix(model, tmp_path)
    with kept.replaying(next(layouts())):
        pass

    assert (5, (2,)) == (kept.depth, kept.shared)
    bytes_ = sum(array.nbytes for row in kept.store.rows.values() for array in row)
    assert token_bytes(model, 5) * sum(length - 1 for length in LENGTHS) == bytes_


def test_the_kept_output_of_16_bits_is_16_bits(tmp_path: Path) -> None:
    """
    numpy has no bfloat16; twice the memory would be a waste, and other numbers a fault.
    """
    import mlx.core as mx

    from thunder_train.worker.model import Lora, add_lora

    model = families.build("llama", 0)
    model.set_dtype(mx.bfloat16)
    add_lora(model, Lora(1, 4), seed=0)
    kept = prefix(model, tmp_path)

    assert max(difference(model, each, kept) for each in layouts()) < 2e-2
    assert {np.dtype(np.uint16)} == {array.dtype for row in kept.store.rows.values() for array in row}


def test_dropout_above_draws_the_same_numbers_whether_rows_are_kept_or_not(tmp_path: Path) -> None:
    """
    A step after a restart computes what another found; it must drop the same inputs.
    """
    import mlx.core as mx

    from thunder_train.worker.model import Lora, add_lora

    model = families.build("llama", 0)
    add_lora(model, Lora(1, 4, dropout=0.5), seed=0)
    kept, batch = prefix(model, tmp_path), next(layouts())

    def loss() -> float:
        mx.random.seed(3)
        with kept.replaying(batch):
            return sums(model, batch)[0]

    assert loss() == loss()


def test_a_full_disk_is_an_error_that_says_what_helps(tmp_path: Path) -> None:
    """
    The file of a long training may take gigabytes.
    """
    from thunder_train.worker.frozen_prefix import Store

    class Full:
        def seek(self, *_: int) -> int:
            return 0

        def write(self, _: Any) -> None:
            raise OSError(28, "No space left on device")

    store = Store(tmp_path, is_in_memory=False, file=Full())
    with pytest.raises(ThunderError) as caught:
        store.add(0, [np.zeros(3)])
    error = caught.value

    assert "the output of frozen layers cannot be written: No space left on device" == error.what
    assert (str(tmp_path), 'free space, or set keep_prefix = "never"') == (error.where, error.hint)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["model.layers.3.mlp.up_proj.lora_a", "model.layers.2.mlp.up_proj.lora_a"], 2),
        (["language_model.model.layers.12.self_attn.q_proj.lora_b"], 12),
        (["lm_head.lora_a"], 30),
        (["model.embed_tokens.lora_a", "model.layers.3.mlp.up_proj.lora_a"], 0),
    ],
)
def test_the_names_of_an_adapter_say_which_blocks_are_frozen(names: list[str], first: int) -> None:
    """
    An evaluation has the adapter's file only.
    """
    from thunder_train.worker.frozen_prefix import first_block

    assert first == first_block(names, 30)
