"""Rows as arrays: padded or packed batches, the mask that keeps packed rows apart, and the loss of a batch.

Shapes: B sequences, T tokens of each. The model reads the first T - 1 tokens and predicts the last T - 1.

Packing: several rows in one sequence, with a block-diagonal attention mask, so that no row sees another. The models of
mlx-lm take no mask as an argument, but they ask their key/value cache for one: SegmentMask stands in for that cache.
Positions need no reset, for rotary embeddings depend only on the distance of two tokens (Su et al. 2021, RoFormer).
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

FAMILIES = ("gemma3_text", "gemma4_text", "llama", "qwen2", "qwen3")
"""Modules of mlx-lm for whose models tests show that packed logits and gradients equal unpacked ones."""
WRAPPERS = ("gemma3", "gemma4")
"""Modules of mlx-lm whose models wrap a text model of one of these families and add nothing to its computation."""


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass.

    tokens: (B, T) int32. mask: (B, T - 1) float32, column j is 1 where token j + 1 is a target. segments: (B, T) int32,
    the rows of a sequence counted from 1, padding 0; None when no sequence holds two rows. targets: sum of the mask.
    rows: those in it, to name them.
    """

    tokens: mx.array
    mask: mx.array
    segments: mx.array | None
    targets: int
    rows: tuple[Example, ...] = ()

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return int(self.mask.size)


def batch(examples: Sequence[Example], layout: Pass) -> Batch:
    """The batch of a forward pass. examples: the rows that the pass's indices point into."""
    shape = (len(layout.sequences), layout.width + 1)
    tokens, segments, target = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for line, rows in enumerate(layout.sequences):
        start = 0
        for segment, row in enumerate((examples[i] for i in rows), start=1):
            stop = start + len(row.tokens)
            tokens[line, start:stop], segments[line, start:stop] = row.tokens, segment
            # Targets are marked by position, never by value: 0, the padding, is a real token of some tokenizers. (The
            # mask of mlx-lm's trainer is off by one and trains on one padding token of each row.) A span begins after
            # its prompt, so the last token of a packed row never predicts the first of the next.
            for first, end in row.spans:
                target[line, start + first : start + end] = 1
            start = stop
    laid_out = tuple(examples[i] for rows in layout.sequences for i in rows)
    return Batch(
        mx.array(tokens),
        mx.array(target[:, 1:]),
        mx.array(segments) if layout.is_packed else None,
        sum(row.targets for row in laid_out),
        laid_out,
    )


def loss_sum(model: nn.Module, batch: Batch) -> mx.array:
    """Sum of the targets' cross-entropies in nats, float32.

    A sum and no mean: batches and ranks hold unequal numbers of targets, so their means must not be averaged.
    """
    cache = None if batch.segments is None else caches(model, batch.segments[:, :-1])
    # In float32: log-softmax over 262,144 entries of a vocabulary loses too much in 16 bits.
    logits = model(batch.tokens[:, :-1], cache=cache).astype(mx.float32)
    return (nn.losses.cross_entropy(logits, batch.tokens[:, 1:]) * batch.mask).sum()


def packing_problem(model: nn.Module) -> str:
    """Why the model's rows cannot be packed; "" if they can."""
    family = _family(model)
    if family in WRAPPERS:
        family = _family(model.language_model)
    if family in FAMILIES:
        return ""
    return f"packing is tested for {', '.join(FAMILIES)}, not for {family}"


def _family(model: nn.Module) -> str:
    return type(model).__module__.rpartition(".")[2]


def caches(model: nn.Module, segments: mx.array) -> list[Any]:
    """What to pass to the model as `cache`: a SegmentMask in place of each cache that the model would make.

    segments: (B, T), equal for tokens of one row. Padding is a segment too: a token that may attend to nothing, not
    even to itself, would give 0 / 0 in the softmax.
    """
    position = mx.arange(segments.shape[-1])
    mask = (segments[:, None, :, None] == segments[:, None, None, :]) & (position[:, None] >= position[None, :])
    return [SegmentMask(mask) for _ in make_prompt_cache(model)]


class SegmentMask:
    """Behaves like an empty key/value cache, and answers with the mask of the segments.

    mask: (B, 1, T, T), true where the token of a row may attend to the token of a column.
    """

    offset = 0  # tokens in the cache: rotary positions start here

    def __init__(self, mask: mx.array) -> None:
        self.mask = mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The keys and values themselves: nothing was cached before them."""
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """The mask. window_size: how many tokens back, itself included, a token of a sliding-window layer sees."""
        if window_size is None:
            return self.mask
        position = mx.arange(length)
        return self.mask & (position[:, None] < position[None, :] + window_size)
