"""Which rows every rank takes at every optimizer step, and as which batches.

All of it is a pure function of the rows, the seed and the step: a resumed run finds its place without any state, and
the rows of a step do not depend on how many ranks share them.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from thunder_train.worker.batching import batch as packing
from thunder_train.worker.batching.batch import Batch, batch
from thunder_train.worker.batching.plan import Costs, deal, fixed_widths, plan
from thunder_train.worker.batching.tokens import Example

CPU_OVERHEAD, GPU_OVERHEAD = 55, 1000
"""What a forward and backward pass costs besides its tokens, in tokens. Measured on a CPU; guessed for a GPU."""
KNEE = 4.6
"""Attention costs as much as all else at this many tokens per unit of the model's width. Measured on a CPU."""
VALIDATED_TOGETHER = 256
"""Rows that are laid out together in validation."""


@dataclass(frozen=True)
class DataLoader:
    """The rows of a split for one rank. global_batch_size: rows of an optimizer step, over all ranks.

    weights: the speed of each rank; empty: all alike.
    """

    examples: Sequence[Example]
    global_batch_size: int
    seed: int
    rank: int
    world: int
    costs: Costs
    weights: tuple[float, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every row is used once; the last may be short."""
        return -(-len(self.examples) // self.global_batch_size)

    def rows(self, step: int) -> tuple[int, ...]:
        """The rows of all ranks at an optimizer step, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch_size
        return order(self.seed, epoch, len(self.examples))[start : start + self.global_batch_size]

    def step(self, step: int) -> list[Batch]:
        """This rank's batches of an optimizer step, counted from 0; none when other ranks take all its rows."""
        return self._batches(self._share(self.rows(step)))

    def validation(self) -> list[Batch]:
        """This rank's share of all rows, the same every time."""
        mine = self._share(range(len(self.examples)))
        parts = -(-len(mine) // VALIDATED_TOGETHER)
        return [each for part in range(parts) for each in self._batches(mine[part::parts])]

    def _share(self, rows: Sequence[int]) -> list[int]:
        dealt = deal([len(self.examples[i].tokens) for i in rows], self.world, self.costs, self.weights)
        return [rows[i] for i in dealt[self.rank]]

    def _batches(self, rows: Sequence[int]) -> list[Batch]:
        mine = [self.examples[i] for i in rows]
        return [batch(mine, each) for each in plan([len(row.tokens) for row in mine], self.costs)]


def costs_of(model: nn.Module, examples: Sequence[Example], micro_tokens: int) -> Costs:
    """What layouts cost this model on this machine. micro_tokens: the most of a forward pass.

    On a GPU, where a step is compiled once per shape, widths come in a few sizes.
    """
    longest = max(len(each.tokens) for each in examples) - 1
    on_cpu = mx.default_device().type == mx.cpu
    return Costs(
        micro_tokens,
        knee=KNEE * _width(model),
        overhead=CPU_OVERHEAD if on_cpu else GPU_OVERHEAD,
        is_packed=not packing.packing_problem(model),
        widths=() if on_cpu else fixed_widths(longest, micro_tokens),
    )


def _width(model: nn.Module) -> int:
    """Size of the residual stream; a model may also hold wider embeddings, one for each layer."""
    return min(
        each.dims if isinstance(each, nn.QuantizedEmbedding) else each.weight.shape[-1]
        for each in model.modules()
        if isinstance(each, (nn.Embedding, nn.QuantizedEmbedding))
    )


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    """The rows' order in an epoch: a permutation that depends on nothing but the arguments."""
    indices = list(range(rows))
    random.Random(f"{seed}:{epoch}").shuffle(indices)  # noqa: S311  (order, not secrecy)
    return tuple(indices)
