"""The loss of rows, computed by all ranks together, with the same bits for any number of ranks.

All rows are laid out in forward passes first, and whole passes are dealt to the ranks. (In training each rank lays out
its own rows, so the last bits of a validation loss depend on the ranks.)
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from thunder_train import ThunderError
from thunder_train.worker.batching import broken_rows
from thunder_train.worker.batching.batch import Batch, loss_sum
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.batching.loader import DataLoader, costs_of
from thunder_train.worker.batching.plan import deal_by_cost
from thunder_train.worker.frozen_prefix import FrozenPrefix, replaying
from thunder_train.worker.ranks import Ranks


def measure(
    network: nn.Module,
    examples: Sequence[Example],
    max_seq_len: int,
    micro_tokens: int,
    ranks: Ranks,
    tick: Callable[[], None],
    kept: FrozenPrefix | None = None,
) -> dict[str, Any]:
    """{"loss" in nats per target, "perplexity", "tokens": targets, "dropped": rows that are too long}.

    loss and perplexity are None without a row. micro_tokens: most tokens of a forward pass. tick: called after each
    pass. kept: the output of the frozen blocks for these rows, if it is kept. Raises ThunderError when the loss is not
    finite.
    """
    fitting = [each for each in examples if len(each.tokens) <= max_seq_len]
    dropped = len(examples) - len(fitting)
    if not fitting:
        return {"loss": None, "perplexity": None, "tokens": 0, "dropped": dropped}
    costs = costs_of(network, [len(each.tokens) for each in fitting], micro_tokens)
    passes = DataLoader(fitting, len(fitting), seed=0, rank=0, world=1, costs=costs).validation()
    weights = ranks.weights or (1.0,) * ranks.size
    mine = deal_by_cost([costs.cost(*each.shape) for each in passes], weights)[ranks.rank]
    sums = _sums(network, passes, mine, ranks, tick, kept)
    if not np.isfinite(sums).all():
        broken = broken_rows.find(network, [passes[i] for i in np.flatnonzero(~np.isfinite(sums))], tick)
        what = f"the loss is not finite for {broken_rows.counted(broken)}"
        raise ThunderError(what, where="evaluation", hint="look at these rows, and for a broken model or adapter")
    tokens = sum(each.targets for each in passes)
    loss = float(sums.sum()) / tokens
    perplexity = round(math.exp(min(loss, 700.0)), 6)  # exp(710) is beyond a float
    return {"loss": round(loss, 6), "perplexity": perplexity, "tokens": tokens, "dropped": dropped}


def _sums(
    network: nn.Module,
    passes: Sequence[Batch],
    mine: Sequence[int],
    ranks: Ranks,
    tick: Callable[[], None],
    kept: FrozenPrefix | None,
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """The summed loss of each pass, in nats, on every rank. mine: the passes of this rank."""
    network.eval()
    sums = np.zeros(len(passes), np.float32)
    for number in mine:
        with replaying(kept, passes[number]):
            sums[number] = loss_sum(network, passes[number]).item()
        tick()
    # Each pass has its own place in the message. The other ranks add zeros there, which rounds nothing, and the places
    # are then added up in the passes' order: so the sum does not depend on who computed what.
    return np.array(ranks.sum(mx.array(sums))).astype(np.float64)
