"""Which rows of forward passes have a loss that is not finite, and how a message names rows."""

from collections.abc import Callable, Iterable, Sequence

import mlx.core as mx
import mlx.nn as nn

from thunder_train.worker.batching.batch import Batch, batch, loss_sum
from thunder_train.worker.batching.plan import Pass

NAMED = 20
"""Most rows that a message names."""


def find(model: nn.Module, passes: Iterable[Batch], tick: Callable[[], None]) -> list[str]:
    """The ids of the rows to blame for passes whose loss is not finite. tick: called after each row.

    Each row is computed alone: a NaN passes from one packed row to the others, since 0 * NaN is NaN. If every row is
    finite alone, all rows of the passes are named.
    """
    rows = [row for each in passes for row in each.rows]
    broken = []
    for row in rows:
        alone = batch((row,), Pass(((0,),), len(row.tokens) - 1))
        if not mx.isfinite(loss_sum(model, alone)).item():
            broken.append(row)
        tick()
    # A row that was split has one id for all of its parts.
    return list(dict.fromkeys(row.row_id for row in broken or rows))


def named(ids: Sequence[str]) -> str:
    """The ids in words: all of a few, of many the first ones and how many more there are."""
    return ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")


def counted(ids: Sequence[str]) -> str:
    """The same after the number of rows."""
    return f"{len(ids)} row{'s' if len(ids) > 1 else ''}: {named(ids)}"
