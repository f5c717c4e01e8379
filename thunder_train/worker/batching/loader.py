"""The data loader: which rows each rank takes at each optimizer step, as batches.

Everything is a pure function of the rows, the seed and the step. So a resumed run needs no data cursor, and the rows of
a step do not depend on the number of ranks that share them.
"""

import array
import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn

from thunder_train.worker.batching.batch import Batch, batch, packing_problem
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.batching.plan import NOWHERE, Costs, Homes, deal, fixed_widths, plan

CPU_OVERHEAD, GPU_OVERHEAD = 55, 1000
"""Cost of a forward and backward pass besides its tokens, in tokens. Measured on a CPU; guessed for a GPU."""
KNEE = 4.6
"""Attention costs as much as everything else at this many tokens per unit of the model's width. Measured on a CPU; by
floating-point operations alone it would be 12 (Kaplan et al. 2020, section 2.1)."""
VALIDATED_TOGETHER = 256
"""Rows that are laid out together in validation."""


@dataclass(frozen=True)
class DataLoader:
    """The rows of a split for one rank of `world`.

    global_batch_size: rows of an optimizer step, over all ranks. weights: relative speed of each rank; empty: all
    equal. kept: the part of a row's cost that a rank saves from the second time on that it takes the row; 0: none.
    """

    examples: Sequence[Example]
    global_batch_size: int
    seed: int
    rank: int
    world: int
    costs: Costs
    weights: tuple[float, ...] = ()
    kept: float = 0.0
    homes: dict[int, int] = field(default_factory=dict)
    """Row: the rank that takes it in the first epoch, as far as this was needed."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every row is used once; the last may have fewer rows."""
        return -(-len(self.examples) // self.global_batch_size)

    def rows(self, step: int) -> tuple[int, ...]:
        """Indices of the rows of all ranks at an optimizer step, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch_size
        return tuple(order(self.seed, epoch, len(self.examples))[start : start + self.global_batch_size])

    def step(self, step: int) -> list[Batch]:
        """This rank's batches of an optimizer step, counted from 0; none when the other ranks take all its rows."""
        rows = self.rows(step)
        if not self.kept or self.world == 1:
            return self._batches(self._share(rows))
        if step < self.steps_per_epoch:
            return self._batches(self._first_shares(rows)[self.rank])
        # A rank that resumed keeps nothing at first, and yet must take what it would have taken. So what counts is who
        # takes a row in the first epoch, not who really has it.
        for row in rows:
            if row not in self.homes:
                place = places(self.seed, 0, len(self.examples))[row]
                self._first_shares(self.rows(place // self.global_batch_size))
        return self._batches(self._share(rows, Homes([self.homes[row] for row in rows], self.kept)))

    def validation(self) -> list[Batch]:
        """This rank's batches of all rows, the same every time."""
        mine = self._share(range(len(self.examples)))
        # In parts, because the time of laying out grows faster than the rows. A stride: all parts have like lengths.
        parts = -(-len(mine) // VALIDATED_TOGETHER)
        return [each for part in range(parts) for each in self._batches(mine[part::parts])]

    def _first_shares(self, rows: Sequence[int]) -> list[list[int]]:
        """The rows of each rank at a step of the first epoch."""
        shares = self._shares(rows)
        self.homes.update({row: rank for rank, share in enumerate(shares) for row in share})
        return shares

    def _share(self, rows: Sequence[int], homes: Homes = NOWHERE) -> list[int]:
        return self._shares(rows, homes)[self.rank]

    def _shares(self, rows: Sequence[int], homes: Homes = NOWHERE) -> list[list[int]]:
        lengths = [len(self.examples[i].tokens) for i in rows]
        return [[rows[i] for i in share] for share in deal(lengths, self.world, self.costs, self.weights, homes)]

    def _batches(self, rows: Sequence[int]) -> list[Batch]:
        mine = [self.examples[i] for i in rows]
        return [batch(mine, each, rows) for each in plan([len(row.tokens) for row in mine], self.costs)]


def costs_of(model: nn.Module, lengths: Sequence[int], micro_tokens: int) -> Costs:
    """The costs of forward passes for this model on this machine.

    lengths: tokens of each row. micro_tokens: most tokens of a pass.
    """
    longest = max(lengths) - 1
    on_cpu = mx.default_device().type == mx.cpu
    return Costs(
        micro_tokens,
        knee=KNEE * width(model),
        overhead=CPU_OVERHEAD if on_cpu else GPU_OVERHEAD,
        is_packed=not packing_problem(model),
        # On a GPU each new shape is traced and compiled, so few shapes may occur. A CPU does not compile at all.
        widths=() if on_cpu else fixed_widths(longest, micro_tokens),
    )


def width(model: nn.Module) -> int:
    """Size of the residual stream: the smallest embedding, since Gemma 4 also has wide per-layer embeddings."""
    return min(
        each.dims if isinstance(each, nn.QuantizedEmbedding) else each.weight.shape[-1]
        for each in model.modules()
        if isinstance(each, (nn.Embedding, nn.QuantizedEmbedding))
    )


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, rows: int) -> "array.array[int]":
    """The rows' order in an epoch: a permutation that depends on the arguments only."""
    indices = list(range(rows))
    # Python's own generator, seeded with a string (hashed by SHA-512): MLX's random state belongs to the dropout.
    random.Random(f"{seed}:{epoch}").shuffle(indices)  # noqa: S311  (order, not secrecy)
    return array.array("i", indices)


@functools.lru_cache(maxsize=2)
def places(seed: int, epoch: int, rows: int) -> "array.array[int]":
    """The place of each row in the order of an epoch."""
    found = array.array("i", bytes(4 * rows))
    for place, row in enumerate(order(seed, epoch, rows)):
        found[row] = place
    return found
