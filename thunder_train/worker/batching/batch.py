"""Rows as arrays: padded or packed batches, and the loss of one.

Shapes: B sequences, T tokens of each; the model sees T - 1 of them and predicts the one after each.

Several rows in one sequence, blind to each other: a stand-in for the cache hands the model a block-diagonal mask.

Exact for models whose attention knows positions by their distance alone (rotary embeddings), sliding windows included.
Shapes: B sequences, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from thunder_train.worker.batching.plan import Pass
from thunder_train.worker.batching.tokens import Example


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes. tokens: (B, T) int32; mask: (B, T - 1) float32, column j is 1 where token j + 1 is a
    target; segments: (B, T) int32, from 1 the rows of a sequence, 0 its padding, or None when a sequence is one row;
    targets: how many there are.
    """

    tokens: mx.array
    mask: mx.array
    segments: mx.array | None
    row_ids: tuple[str, ...]
    targets: int

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return int(self.mask.size)


def batch(examples: Sequence[Example], layout: Pass) -> Batch:
    """The batch of a forward pass. examples: those that the pass points into.

    Padding is masked by its position, never by its value, which is a real token.
    """
    shape = (len(layout.sequences), layout.width + 1)
    tokens, segments, target = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for line, rows in enumerate(layout.sequences):
        start = 0
        for segment, row in enumerate((examples[i] for i in rows), start=1):
            stop = start + len(row.tokens)
            tokens[line, start:stop], segments[line, start:stop] = row.tokens, segment
            for first, end in row.spans:
                target[line, start + first : start + end] = 1
            start = stop
    used = [examples[i] for rows in layout.sequences for i in rows]
    return Batch(
        mx.array(tokens),
        mx.array(target[:, 1:]),
        mx.array(segments) if layout.is_packed else None,
        tuple(row.row_id for row in used),
        sum(row.targets for row in used),
    )


def loss_sum(model: nn.Module, batch: Batch) -> mx.array:
    """Summed cross-entropy of the targets in nats, float32."""
    cache = None if batch.segments is None else caches(model, batch.segments[:, :-1])
    logits = model(batch.tokens[:, :-1], cache=cache).astype(mx.float32)
    return (nn.losses.cross_entropy(logits, batch.tokens[:, 1:]) * batch.mask).sum()


FAMILIES = ("gemma3_text", "gemma4_text", "llama", "qwen2", "qwen3")
"""Modules of mlx-lm whose models have been proven: packed logits and gradients equal unpacked ones."""
WRAPPERS = ("gemma3", "gemma4")
"""Modules of mlx-lm whose models hold a text model of one of these families, and call nothing else."""


class SegmentMask:
    """Looks like an empty key/value cache to a layer, and answers with the mask of the segments.

    mask: (B, 1, T, T), true where a token may attend.
    """

    offset = 0

    def __init__(self, mask: mx.array) -> None:
        self.mask = mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keys and values of this sequence alone: nothing came before."""
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """The mask; window_size: how many tokens back, itself included, a token sees in a sliding layer."""
        if window_size is None:
            return self.mask
        position = mx.arange(length)
        return self.mask & (position[:, None] < position[None, :] + window_size)


def packing_problem(model: nn.Module) -> str:
    """Why the model's rows cannot be packed; "" if they can."""
    family = _family(model)
    if family in WRAPPERS:
        family = _family(model.language_model)
    if family in FAMILIES:
        return ""
    return f"packing is proven for {', '.join(FAMILIES)}, not for {family}"


def _family(model: nn.Module) -> str:
    return type(model).__module__.rpartition(".")[2]


def caches(model: nn.Module, segments: mx.array) -> list[Any]:
    """What to pass as `cache`: one stand-in for each cache that the model would make.

    segments: (B, T), equal for tokens of one row. Padding has a segment of its own, so no token attends to nothing.
    """
    position = mx.arange(segments.shape[-1])
    mask = (segments[:, None, :, None] == segments[:, None, None, :]) & (position[:, None] >= position[None, :])
    return [SegmentMask(mask) for _ in make_prompt_cache(model)]
