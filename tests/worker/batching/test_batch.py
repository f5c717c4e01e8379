"""Rows as arrays, and the loss of a batch."""

import random

import pytest

from tests.helpers.families import VOCABULARY, build

pytestmark = pytest.mark.mlx


def example(length, *spans, name="a"):
    """A row of the tokens 1, 2, ..."""
    from thunder_train.worker.batching.tokens import Example

    return Example(name, tuple(range(1, length + 1)), spans)


def ragged(rows):
    """Rows of random lengths and tokens, some with two answers."""
    from thunder_train.worker.batching.tokens import Example

    random_ = random.Random(0)  # noqa: S311  (rows, not secrecy)
    made = []
    for number in range(rows):
        length = min(60, 4 + int(random_.lognormvariate(2.3, 0.7)))
        early = ((1, 2),) if number % 3 == 0 else ()
        tokens = tuple(random_.randrange(1, VOCABULARY) for _ in range(length))
        made.append(Example(f"row-{number}", tokens, (*early, (length // 2, length))))
    return made


def test_padding_is_never_a_target():
    """
    Masked by position: token 0 is padding for Gemma and a real token for others.
    """
    from thunder_train.worker.batching.batch import batch
    from thunder_train.worker.batching.plan import Pass

    made = batch([example(5, (3, 5)), example(3, (2, 3))], Pass(((0,), (1,)), 4))

    assert [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]] == made.tokens.tolist()
    assert [[0, 0, 1, 1], [0, 1, 0, 0]] == made.mask.tolist()
    assert (None, 3, 8) == (made.segments, made.targets, made.padded_tokens)


def test_no_row_predicts_the_first_token_of_the_next():
    """
    Packed rows are strangers; every answer of each keeps its own targets.
    """
    from thunder_train.worker.batching.batch import batch
    from thunder_train.worker.batching.plan import Pass

    rows = [example(3, (2, 3), name="a"), example(4, (1, 2), (3, 4), name="b"), example(2, (1, 2), name="c")]
    made = batch(rows, Pass(((1, 0), (2,)), 7))

    assert [[1, 2, 3, 4, 1, 2, 3, 0], [1, 2, 0, 0, 0, 0, 0, 0]] == made.tokens.tolist()
    assert [[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0, 0, 0]] == made.segments.tolist()
    assert [[1, 0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]] == made.mask.tolist()
    assert (("b", "a", "c"), 4) == (made.row_ids, made.targets)


@pytest.mark.parametrize("name", ["llama", "gemma4"])
def test_every_layout_gives_the_same_loss_and_gradient(name):
    """
    How rows are laid out is a matter of speed alone: each alone, padded, packed, in fixed widths.
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
        total, gradient = 0.0, {}
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
