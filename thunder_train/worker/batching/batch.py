"""Rows as arrays: padded or packed batches, and the loss of one.

Shapes: B sequences, T tokens of each; the model sees T - 1 of them and predicts the one after each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from thunder_train.worker.batching import packing
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
    cache = None if batch.segments is None else packing.caches(model, batch.segments[:, :-1])
    logits = model(batch.tokens[:, :-1], cache=cache).astype(mx.float32)
    return (nn.losses.cross_entropy(logits, batch.tokens[:, 1:]) * batch.mask).sum()
