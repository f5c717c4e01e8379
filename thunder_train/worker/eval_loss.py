"""The loss of rows, shared among the ranks, with the same result however many they are.

Forward passes are laid out for all rows at once and dealt whole; their sums are added up in the passes' own order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from thunder_train import ThunderError
from thunder_train.worker.batching.batch import Batch, loss_sum
from thunder_train.worker.batching.loader import DataLoader, costs_of
from thunder_train.worker.batching.tokens import Example
from thunder_train.worker.ranks import Ranks


def measure(
    network: nn.Module,
    examples: Sequence[Example],
    max_seq_len: int,
    micro_tokens: int,
    ranks: Ranks,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """{"loss" in nats per target token, "perplexity", "tokens", "dropped" rows too long}; no loss without a row.

    micro_tokens: the most of a forward pass; tick: called after each. Raises ThunderError for a loss not finite.
    """
    fitting = [each for each in examples if len(each.tokens) <= max_seq_len]
    dropped = len(examples) - len(fitting)
    if not fitting:
        return {"loss": None, "perplexity": None, "tokens": 0, "dropped": dropped}
    costs = costs_of(network, fitting, micro_tokens)
    passes = DataLoader(fitting, len(fitting), seed=0, rank=0, world=1, costs=costs).validation()
    mine = deal([costs.cost(*each.mask.shape) for each in passes], ranks.weights or (1.0,) * ranks.size)[ranks.rank]
    total = _total(network, passes, mine, ranks, tick)
    if not math.isfinite(total):
        raise ThunderError("the loss is not finite", where="evaluation", hint="look for a broken model or adapter")
    tokens = sum(each.targets for each in passes)
    loss = total / tokens
    perplexity = round(math.exp(min(loss, 700.0)), 6)
    return {"loss": round(loss, 6), "perplexity": perplexity, "tokens": tokens, "dropped": dropped}


def deal(costs: Sequence[float], weights: Sequence[float]) -> list[list[int]]:
    """The positions that each rank takes: the dearest first, each to the rank that is done with it first.

    weights: the speed of each rank.
    """
    shares: list[list[int]] = [[] for _ in weights]
    work = [0.0] * len(weights)
    for number in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        times = [(done + costs[number]) / weight for done, weight in zip(work, weights, strict=True)]
        rank = times.index(min(times))
        shares[rank].append(number)
        work[rank] += costs[number]
    return shares


def _total(
    network: nn.Module, passes: Sequence[Batch], mine: Sequence[int], ranks: Ranks, tick: Callable[[], None]
) -> float:
    """The summed loss of all passes, in nats. mine: those of this rank."""
    network.eval()
    sums = np.zeros(len(passes), np.float32)
    for number in mine:
        sums[number] = loss_sum(network, passes[number]).item()
        tick()
    # Each number is one rank's, and the others add zeros: no rounding that depends on the ranks.
    return float(np.array(ranks.sum(mx.array(sums))).astype(np.float64).sum())
