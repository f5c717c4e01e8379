"""The rows that a training will compute at its steps, for an estimate: those of the dataset, laid out as it lays them
out, or as many tokens as a row may have where the dataset cannot be read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunder_train import ThunderError
from thunder_train.worker.args import Settings

# mlx, and our modules that import it, are imported inside the functions: BLAS must be loaded before mlx.
if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.loader import DataLoader
    from thunder_train.worker.batching.plan import Pass
    from thunder_train.worker.batching.tokens import Split

STEPS = 50
"""Steps of the first epoch that are laid out."""
MOST_BYTES = 50_000_000
"""Bytes of a file of rows that is tokenised for an estimate, which takes some 20 s; a larger one only if it was
before.
"""


@dataclass(frozen=True)
class Work:
    """What a rank computes at a step. targets: tokens whose logits are needed."""

    passes: "list[Pass]"
    targets: int

    @property
    def tokens(self) -> int:
        """Tokens that the rank computes, with padding."""
        return sum(len(each.sequences) * each.width for each in self.passes)


@dataclass(frozen=True)
class Dataset:
    """The rows of a training. valid: those that a validation reads."""

    train: "Split"
    valid: "Split"

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return self.train.tokens + self.valid.tokens

    @property
    def row_tokens(self) -> int:
        """Tokens of a row of the training, on average."""
        return round(self.train.tokens / len(self.train.examples))


def read(settings: Settings) -> Dataset:
    """The rows of the flags. Raises ThunderError if they are not there, or cannot be trained on, or take too long."""
    from thunder_train.worker.batching import token_cache, tokens
    from thunder_train.worker.inspect.tokens import load

    for path in (settings.train_data, settings.valid_data):
        if not path.is_file():
            raise ThunderError("is not built", str(path))
    chat = load(settings).chat
    place = token_cache.path_of(settings.token_cache, settings.train_data, chat)
    size = settings.train_data.stat().st_size
    if size > MOST_BYTES and not (place and place.is_file()):
        raise ThunderError(f"has {size / 1e6:.0f} MB that were not tokenised before", str(settings.train_data))
    policy, cache = tokens.Policy(settings.max_seq_len, settings.too_long, settings.train_on), settings.token_cache
    train = tokens.read(settings.train_data, chat, policy, cache)
    valid = tokens.read(settings.valid_data, chat, policy, cache, may_be_empty=True)
    return Dataset(train, valid.spread(settings.eval_rows))


def steps(model: "nn.Module", settings: Settings, dataset: Dataset, weights: Sequence[float]) -> list[list[Work]]:
    """The work of each rank at some steps of the first epoch, and at that of the longest row.

    weights: of the ranks that share the rows. Raises ThunderError for fewer rows than those of one step.
    """
    from thunder_train.worker.batching.loader import DataLoader, costs_of, places

    examples, rows = dataset.train.examples, settings.rows_per_step(len(weights))
    if len(examples) < rows:
        raise ThunderError(f"has {len(examples)} rows, fewer than the {rows} of one step", str(settings.train_data))
    lengths = examples.lengths
    costs = costs_of(model, lengths, settings.micro_tokens)
    if settings.packing == "never":
        costs = replace(costs, is_packed=False)
    ranks = [
        DataLoader(examples, rows, settings.seed, rank, len(weights), costs, tuple(weights))
        for rank in range(len(weights))
    ]
    count = ranks[0].steps_per_epoch
    longest = places(settings.seed, 0, len(examples))[lengths.index(max(lengths))] // rows
    chosen = {longest, *(number * count // STEPS for number in range(STEPS))}
    return [[_work(rank, step) for rank in ranks] for step in sorted(chosen)]


def _work(rank: "DataLoader", step: int) -> Work:
    from thunder_train.worker.batching.plan import Pass

    batches = rank.step(step)
    return Work([Pass(((),) * each.shape[0], each.shape[1]) for each in batches], sum(each.targets for each in batches))


def assumed(model: "nn.Module", settings: Settings, row_tokens: int, weights: Sequence[float]) -> list[Work]:
    """The work of each rank at a step whose rows all have row_tokens tokens, all of them targets."""
    rows = settings.rows_per_step(len(weights))
    # Rounded first: 6.000000001 rows from float division are 6 rows, not 7.
    each = [math.ceil(round(rows * weight / sum(weights), 6)) for weight in weights]
    return [Work(passes(model, settings, row_tokens, count), count * (row_tokens - 1)) for count in each]


def passes(model: "nn.Module", settings: Settings, row_tokens: int, rows: int) -> "list[Pass]":
    """A rank's forward passes for `rows` rows of row_tokens tokens, as the training plans them."""
    from thunder_train.worker.batching.loader import costs_of
    from thunder_train.worker.batching.plan import plan

    costs = costs_of(model, [row_tokens], settings.micro_tokens)
    if settings.packing == "never":
        costs = replace(costs, is_packed=False)
    return plan([row_tokens] * rows, costs)
