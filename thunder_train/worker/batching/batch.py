"""Rows as arrays: padded or packed batches, the mask that keeps packed rows apart, and the loss of a batch.

Shapes: B sequences, T tokens of each. The model reads the first T - 1 tokens and predicts the last T - 1.

Packing: several rows in one sequence, with a block-diagonal attention mask, so that no row sees another. The models of
mlx-lm take no mask as an argument, but they ask their key/value cache for one: SegmentMask stands in for that cache.
Positions need no reset, for rotary embeddings depend only on the distance of two tokens (Su et al. 2021, RoFormer).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from thunder_train.worker import head
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.batching.plan import Pass

FAMILIES = ("gemma3_text", "gemma4_text", "llama", "qwen2", "qwen3")
"""Modules of mlx-lm for whose models tests show that packed logits and gradients equal unpacked ones."""


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass.

    tokens: (B, T) int32. positions: (N,) int32, where the tokens before the N targets stand among the B x (T - 1) that
    the model reads. labels: (N,) int32, the targets. segments: (B, T) int32, the rows of a sequence counted from 1,
    padding 0; None when no sequence holds two rows. places: where its rows stand.
    """

    tokens: mx.array
    positions: mx.array
    labels: mx.array
    segments: mx.array | None
    places: tuple["Place", ...] = ()

    @property
    def rows(self) -> tuple[Example, ...]:
        """Its rows."""
        return tuple(place.row for place in self.places)

    @property
    def targets(self) -> int:
        """Number of targets."""
        return int(self.labels.size)

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences, and tokens of each that the model reads, padding included."""
        sequences, tokens = self.tokens.shape
        return sequences, tokens - 1

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Place:
    """A row of a batch. index: its number among the rows of its split. line, start: its sequence, and where its first
    token stands there.
    """

    row: Example
    index: int
    line: int
    start: int


def batch(examples: Sequence[Example], layout: Pass, numbers: Sequence[int] = ()) -> Batch:
    """The batch of a forward pass. examples: the rows that the pass's indices point into. numbers: those of these rows
    in their split; by default they are the split.
    """
    shape = (len(layout.sequences), layout.width + 1)
    tokens, segments, target = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)
    places = []
    for line, rows in enumerate(layout.sequences):
        start = 0
        for segment, i in enumerate(rows, start=1):
            row = examples[i]
            stop = start + len(row.tokens)
            places.append(Place(row, numbers[i] if numbers else i, line, start))
            tokens[line, start:stop], segments[line, start:stop] = row.tokens, segment
            # Targets are marked by position, never by value: 0, the padding, is a real token of some tokenizers. (The
            # mask of mlx-lm's trainer is off by one and trains on one padding token of each row.) A span begins after
            # its prompt, so the last token of a packed row never predicts the first of the next.
            for first, end in row.spans:
                target[line, start + first : start + end] = True
            start = stop
    return Batch(
        mx.array(tokens),
        mx.array(np.flatnonzero(target[:, 1:]).astype(np.int32)),
        mx.array(tokens[:, 1:][target[:, 1:]]),
        mx.array(segments) if layout.is_packed else None,
        tuple(places),
    )


def loss_sum(model: nn.Module, batch: Batch) -> mx.array:
    """Sum of the targets' cross-entropies in nats, float32.

    A sum and no mean: batches and ranks hold unequal numbers of targets, so their means must not be averaged.
    """
    inputs = batch.tokens[:, :-1]
    cache = None if batch.segments is None else caches(model, batch.segments[:, :-1])
    if top := head.of(model):
        states = top.hidden(inputs, cache)
        return top.loss_sum(states.reshape(-1, states.shape[-1])[batch.positions], batch.labels)
    logits = model(inputs, cache=cache)
    # In float32: log-softmax over 262,144 entries of a vocabulary loses too much in 16 bits.
    logits = logits.reshape(-1, logits.shape[-1])[batch.positions].astype(mx.float32)
    return nn.losses.cross_entropy(logits, batch.labels, reduction="sum")


def packing_problem(model: nn.Module) -> str:
    """Why the model's rows cannot be packed; "" if they can."""
    family = head.family(head.text_model(model))
    return "" if family in FAMILIES else f"packing is tested for {', '.join(FAMILIES)}, not for {family}"


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
