"""Rows as arrays, the loss of a batch, and packed rows that see what they would see alone."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.helpers.families import CONFIGS, VOCABULARY, WINDOW, build
from tests.worker.conftest import rows_in

pytestmark = pytest.mark.mlx

LENGTHS = (7, 2 * WINDOW + 5, 1, WINDOW, 11)
PADDING = 3


def example(length: int, *spans: tuple[int, int], name: str = "a") -> Any:
    """A row of the tokens 1, 2, ..."""
    from thunder_train.worker.batching.examples import Example

    return Example(name, tuple(range(1, length + 1)), spans)


def ragged(rows: int) -> list[Any]:
    """Rows of random lengths and tokens, some with two answers."""
    from thunder_train.worker.batching.examples import Example

    random_ = random.Random(0)  # noqa: S311  (rows, not secrecy)
    made = []
    for number in range(rows):
        length = min(60, 4 + int(random_.lognormvariate(2.3, 0.7)))
        early = ((1, 2),) if number % 3 == 0 else ()
        tokens = tuple(random_.randrange(1, VOCABULARY) for _ in range(length))
        made.append(Example(f"row-{number}", tokens, (*early, (length // 2, length))))
    return made


def test_padding_is_never_a_target() -> None:
    """
    Masked by position: token 0 is padding for Gemma and a real token for others.
    """
    from thunder_train.worker.batching.batch import batch
    from thunder_train.worker.batching.plan import Pass

    made = batch([example(5, (3, 5)), example(3, (2, 3))], Pass(((0,), (1,)), 4))

    assert [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]] == made.tokens.tolist()
    assert ([2, 3, 5], [4, 5, 3]) == (made.positions.tolist(), made.labels.tolist())
    assert (None, 3, 8) == (made.segments, made.targets, made.padded_tokens)


def test_no_row_predicts_the_first_token_of_the_next() -> None:
    """
    Packed rows are independent; every answer of each row keeps its own targets.
    """
    from thunder_train.worker.batching.batch import batch
    from thunder_train.worker.batching.plan import Pass

    rows = [example(3, (2, 3), name="a"), example(4, (1, 2), (3, 4), name="b"), example(2, (1, 2), name="c")]
    made = batch(rows, Pass(((1, 0), (2,)), 7))

    assert [[1, 2, 3, 4, 1, 2, 3, 0], [1, 2, 0, 0, 0, 0, 0, 0]] == made.tokens.tolist()
    assert [[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0, 0, 0]] == made.segments.tolist()
    assert ([0, 2, 5, 7], [2, 4, 3, 2]) == (made.positions.tolist(), made.labels.tolist())
    assert ([rows[1].tokens, rows[0].tokens, rows[2].tokens], 4) == (rows_in(made), made.targets)


@pytest.mark.parametrize("name", ["llama", "gemma4"])
def test_every_layout_gives_the_same_loss_and_gradient(name: str) -> None:
    """
    The layout may change only the speed: each row alone, padded, packed, in fixed widths.
    """
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    from thunder_train.worker.batching.batch import batch, loss_sum
    from thunder_train.worker.batching.plan import Costs, Pass, plan

    model, rows = build(name), ragged(14)
    lengths = [len(row.tokens) for row in rows]
    layouts = {
        "alone": [Pass(((i,),), length - 1) for i, length in enumerate(lengths)],
        "padded": plan(lengths, Costs(200, knee=1e9, overhead=1e6, is_packed=False)),
        "packed": [Pass((tuple(range(0, 14, 2)), tuple(range(1, 14, 2))), sum(lengths))],
        "fixed": plan(lengths, Costs(256, knee=1e9, overhead=1e3, is_packed=True, widths=(64, 128))),
    }
    sums = {}
    for layout, passes in layouts.items():
        total, gradient = 0.0, dict[str, Any]()
        for one in passes:
            loss, leaves = nn.value_and_grad(model, loss_sum)(model, batch(rows, one))
            total += loss.item()
            gradient = {path: gradient.get(path, 0.0) + leaf for path, leaf in tree_flatten(leaves)}
        sums[layout] = total, mx.concatenate([leaf.reshape(-1) for _, leaf in sorted(gradient.items())])

    assert any(one.is_packed for one in layouts["fixed"])
    loss, gradient = sums["alone"]
    for layout, (other, leaves) in sums.items():
        assert pytest.approx(loss, rel=1e-5) == other, layout
        assert (mx.linalg.norm(leaves - gradient) / mx.linalg.norm(gradient)).item() < 1e-5, layout


def packed(lengths: Sequence[int]) -> tuple[Any, Any, list[Any]]:
    """(1, T) tokens and segments of random rows with padding behind them, and the rows."""
    import mlx.core as mx

    rows = [mx.array(np.random.default_rng(i).integers(1, VOCABULARY, length)) for i, length in enumerate(lengths)]
    segments = [segment for segment, length in enumerate(lengths, start=1) for _ in range(length)]
    tokens = mx.concatenate([*rows, mx.zeros(PADDING, rows[0].dtype)])
    return tokens[None], mx.array([segments + [0] * PADDING]), rows


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_packed_logits_equal_those_of_rows_alone(name: str) -> None:
    """
    Some rows are longer than the sliding window, some shorter; without the mask the difference would be above 0.01.
    """
    import mlx.core as mx

    from thunder_train.worker.batching import batch

    model = build(name)
    tokens, segments, rows = packed(LENGTHS)
    together = model(tokens, cache=batch.caches(model, segments))[0, :-PADDING]
    apart = mx.concatenate([model(row[None])[0] for row in rows])
    naive = model(tokens)[0, :-PADDING]

    assert "" == batch.packing_problem(model)
    assert mx.abs(together - apart).max().item() < 1e-4
    assert mx.abs(naive - apart).max().item() > 1e-2


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_packed_gradients_equal_those_of_rows_alone(name: str) -> None:
    """
    Training depends on the gradient of every parameter; with two sequences, as in a batch.
    """
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_map

    from thunder_train.worker.batching import batch

    model = build(name)
    tokens, segments, rows = packed(LENGTHS)
    pair = mx.concatenate([tokens, tokens[:, ::-1]]), mx.concatenate([segments, segments[:, ::-1]])
    backwards = [row[::-1] for row in rows]

    def square(model: Any, tokens: Any, cache: Any = None, counted: Any = 1) -> Any:
        return (model(tokens, cache=cache) ** 2 * counted).mean(-1).sum()

    counted = (pair[1] > 0)[..., None]
    together = nn.value_and_grad(model, square)(model, pair[0], batch.caches(model, pair[1]), counted)[1]
    each = [nn.value_and_grad(model, square)(model, row[None])[1] for row in [*rows, *backwards]]
    apart = dict(tree_flatten(tree_map(lambda *leaves: sum(leaves), *each)))
    for path, leaf in tree_flatten(together):
        assert mx.abs(leaf - apart[path]).max().item() <= 1e-4 * max(1, mx.abs(apart[path]).max().item()), path


def test_a_recurrent_model_cannot_be_packed() -> None:
    """
    Its state would carry one row into the next.
    """
    from mlx_lm.models import mamba

    from thunder_train.worker.batching import batch

    arguments = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "state_size": 4, "num_hidden_layers": 1}
    more = {"conv_kernel": 2, "use_bias": False, "use_conv_bias": False, "time_step_rank": 2}
    model = mamba.Model(mamba.ModelArgs(model_type="mamba", **arguments, **more))

    expected = "packing is tested for gemma3_text, gemma4_text, llama, qwen2, qwen3, not for mamba"
    assert expected == batch.packing_problem(model)
