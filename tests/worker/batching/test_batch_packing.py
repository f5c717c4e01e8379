"""Packed rows see what they would see alone."""

import numpy as np
import pytest

from tests.helpers.families import CONFIGS, VOCABULARY, WINDOW, build

pytestmark = pytest.mark.mlx

LENGTHS = (7, 2 * WINDOW + 5, 1, WINDOW, 11)
PADDING = 3


def packed(lengths):
    """(1, T) tokens and segments of random rows with padding behind them, and the rows."""
    import mlx.core as mx

    rows = [mx.array(np.random.default_rng(i).integers(1, VOCABULARY, length)) for i, length in enumerate(lengths)]
    segments = [segment for segment, length in enumerate(lengths, start=1) for _ in range(length)]
    tokens = mx.concatenate([*rows, mx.zeros(PADDING, rows[0].dtype)])
    return tokens[None], mx.array([segments + [0] * PADDING]), rows


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_packed_logits_equal_those_of_rows_alone(name):
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
def test_packed_gradients_equal_those_of_rows_alone(name):
    """
    What is trained is the gradient, of every parameter; two sequences at once, as a batch has them.
    """
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_map

    from thunder_train.worker.batching import batch

    model = build(name)
    tokens, segments, rows = packed(LENGTHS)
    pair = mx.concatenate([tokens, tokens[:, ::-1]]), mx.concatenate([segments, segments[:, ::-1]])
    backwards = [row[::-1] for row in rows]

    def square(model, tokens, cache=None, counted=1):
        return (model(tokens, cache=cache) ** 2 * counted).mean(-1).sum()

    counted = (pair[1] > 0)[..., None]
    together = nn.value_and_grad(model, square)(model, pair[0], batch.caches(model, pair[1]), counted)[1]
    each = [nn.value_and_grad(model, square)(model, row[None])[1] for row in [*rows, *backwards]]
    apart = dict(tree_flatten(tree_map(lambda *leaves: sum(leaves), *each)))
    for path, leaf in tree_flatten(together):
        assert mx.abs(leaf - apart[path]).max().item() <= 1e-4 * max(1, mx.abs(apart[path]).max().item()), path


def test_a_recurrent_model_cannot_be_packed():
    """
    Its state would carry one row into the next.
    """
    from mlx_lm.models import mamba

    from thunder_train.worker.batching import batch

    arguments = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "state_size": 4, "num_hidden_layers": 1}
    more = {"conv_kernel": 2, "use_bias": False, "use_conv_bias": False, "time_step_rank": 2}
    model = mamba.Model(mamba.ModelArgs(model_type="mamba", **arguments, **more))

    expected = "packing is proven for gemma3_text, gemma4_text, llama, qwen2, qwen3, not for mamba"
    assert expected == batch.packing_problem(model)
