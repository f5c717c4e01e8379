"""The validation of a training: the mean loss of all rows, and the rows to blame when it is not finite."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from thunder_train.worker.batching import broken_rows
from thunder_train.worker.batching.batch import Batch, loss_sum
from thunder_train.worker.frozen_prefix import FrozenPrefix, replaying
from thunder_train.worker.ranks import Ranks, all_gather, broadcast
from thunder_train.worker.train.step import numbers


@dataclass(frozen=True)
class Validation:
    """loss: mean over all targets in nats. targets: how many. broken: ids of rows to blame for a loss that is not
    finite.
    """

    loss: float
    targets: int
    broken: tuple[str, ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether the loss says anything."""
        return math.isfinite(self.loss)


def validate(
    model: nn.Module,
    batches: Sequence[Batch],
    ranks: Ranks,
    row_ranks: Ranks,
    tick: Callable[[], None] = lambda: None,
    kept: FrozenPrefix | None = None,
) -> Validation:
    """The validation of all rows, the same on every rank.

    batches: this rank's part of the rows. row_ranks: the ranks that share them; with one (strategy "tensor") every rank
    has all rows, and the first rank's sums are everyone's. tick: called after each batch. kept: the output of the
    frozen blocks, if it is kept.
    """
    model.eval()  # no dropout, so no random number is drawn
    loss, tokens, broken = mx.array(0.0), 0, []
    for number, batch in enumerate(batches):
        with replaying(kept, batch):
            part = loss_sum(model, batch)
        loss = loss + part
        mx.eval(part, loss)
        if not mx.isfinite(part).item():
            broken.append(number)
        tokens += batch.targets
        tick()
    is_shared = row_ranks.size == ranks.size
    counted = mx.stack([loss, mx.array(float(tokens))]) if is_shared or ranks.rank == 0 else mx.zeros(2)
    loss_total, token_total = numbers(ranks.sum(counted))
    if math.isfinite(loss_total):
        return Validation(loss_total / token_total, int(token_total))
    if not is_shared:  # layers are split: all ranks must compute the same passes, or they would wait for each other
        broken = json.loads(broadcast(json.dumps(broken).encode(), ranks) or b"[]")
    mine = broken_rows.find(model, [batches[number] for number in broken], tick)
    every = [json.loads(data) for data in all_gather(json.dumps(mine).encode(), ranks)]
    return Validation(math.nan, int(token_total), tuple(dict.fromkeys(row for ids in every for row in ids)))
