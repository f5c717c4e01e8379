"""One optimizer step and its learning rate: ranks sum their rows, one message adds these up, all update the same way.

Shapes: B rows, T tokens, P trained numbers of a rank, R ranks. Ranks exchange sums, never means: they hold unequal
numbers of targets, so a mean of means would weight the targets by the rank that happened to compute them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from thunder_train.worker.batching.batch import Batch, loss_sum
from thunder_train.worker.frozen_prefix import FrozenPrefix, replaying
from thunder_train.worker.model import trainable
from thunder_train.worker.ranks import Ranks

Schedule = float | Callable[[mx.array], mx.array]
"""What mlx's optimizers take as a learning rate: a number, or a function of the updates made so far."""


@dataclass(frozen=True)
class Totals:
    """The sums of one step over all ranks.

    gradient: (P,), of the loss sum. loss: nats. tokens: targets. finite: whether each rank's sums are finite. stop:
    whether any rank asks to stop. busy_s: each rank's seconds of computing. exchange_s: seconds of the message here.
    """

    gradient: mx.array
    loss: float
    tokens: int
    finite: tuple[bool, ...]
    stop: bool
    busy_s: tuple[float, ...]
    exchange_s: float


def schedule(kind: str, learning_rate: float, steps: int, warmup: int) -> Schedule:
    """The learning rate: `constant`, `linear` or `cosine` (Loshchilov and Hutter 2017), after a linear warm-up.

    It counts optimizer steps, not batches, so gradient accumulation does not stretch it. linear and cosine would reach
    0 one step after the last.
    """
    rest = max(1, steps - warmup)
    bodies: dict[str, Schedule] = {
        "constant": learning_rate,
        "linear": optimizers.linear_schedule(learning_rate, 0.0, rest),
        "cosine": optimizers.cosine_decay(learning_rate, rest),
    }
    body = bodies[kind]
    if not warmup:
        return body
    after = body if callable(body) else lambda _: mx.array(learning_rate)
    # The ramp starts at learning_rate / warmup: a first step at rate 0 would be computed for nothing.
    ramp = optimizers.linear_schedule(learning_rate / warmup, learning_rate, max(1, warmup - 1))
    return optimizers.join_schedules([ramp, after], [warmup])


def local_sums(
    model: nn.Module, batches: Sequence[Batch], kept: FrozenPrefix | None = None
) -> tuple[mx.array, mx.array, int]:
    """This rank's (P,) gradient of the loss sum, its loss sum and its targets; zeros for a rank without a row.

    kept: the output of the frozen blocks, if it is kept.
    """
    model.train()
    loss_and_gradients = nn.value_and_grad(model, loss_sum)
    # In float32, whatever the model's type: thousands of small parts are added to a growing sum.
    gradient, loss = mx.zeros(sum(leaf.size for leaf in trainable(model).values())), mx.array(0.0)
    for batch in batches:
        with replaying(kept, batch):
            part, gradients = loss_and_gradients(model, batch)
        gradient, loss = gradient + flatten(gradients), loss + part
        # Evaluated before the next batch: MLX is lazy, and would otherwise hold the activations of all batches at once.
        mx.eval(gradient, loss)
    return gradient, loss, sum(batch.targets for batch in batches)


def flatten(gradients: Any) -> mx.array:
    """A tree of gradients as one (P,) float32 array, in order of name."""
    leaves = [leaf.reshape(-1).astype(mx.float32) for _, leaf in sorted(tree_flatten(gradients), key=lambda kv: kv[0])]
    return mx.concatenate(leaves)


def named(flat: mx.array, like: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The arrays that `flatten` joined. like: the trained parameters by name, for shapes and types."""
    pieces, start = {}, 0
    for name, leaf in sorted(like.items()):
        pieces[name] = flat[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        start += leaf.size
    return pieces


def sum_over_ranks(
    sums: tuple[mx.array, mx.array, int], stop: bool, busy_s: float, ranks: Ranks, counts: bool
) -> Totals:
    """Sum one step over all ranks.

    counts: whether this rank adds its loss and targets; with strategy "tensor" every rank has those of the whole step,
    and only the first adds them.
    """
    gradient, loss, tokens = sums
    finite = bool((mx.isfinite(gradient).all() & mx.isfinite(loss)).item())
    # One message carries the gradient and everything that the ranks decide on. So all decide the same, no flag can
    # belong to another step than its gradient, and a step waits for the network once. Of the (2, R) table each rank
    # fills its own column. float32 holds counts of targets exactly up to 2^24.
    table = np.zeros((2, ranks.size), np.float32)
    table[:, ranks.rank] = finite, busy_s
    tail = mx.concatenate([mx.array([float(stop)]), mx.array(table.reshape(-1))])
    counted = mx.stack([loss.astype(mx.float32), mx.array(float(tokens))]) if counts else mx.zeros(2)
    start = time.perf_counter()
    total = ranks.sum(mx.concatenate([gradient, counted, tail]))
    exchange_s = time.perf_counter() - start
    loss_total, token_total, stopping, *rest = numbers(total[gradient.size :])
    finite_ranks, busy = rest[: ranks.size], rest[ranks.size :]
    return Totals(
        gradient=total[: gradient.size],
        loss=loss_total,
        tokens=int(token_total),
        finite=tuple(value > 0 for value in finite_ranks),
        stop=stopping > 0,
        busy_s=tuple(busy),
        exchange_s=exchange_s,
    )


def update(model: nn.Module, optimizer: Any, totals: Totals, max_grad_norm: float) -> float | None:
    """Make the mean gradient of all targets, clip it and update the model. Returns its norm before clipping.

    Returns None, and changes nothing, when the gradient is not finite or the step had no target.
    """
    if not (all(totals.finite) and totals.tokens):
        return None
    parameters = trainable(model)
    gradient = totals.gradient / totals.tokens
    norm = mx.linalg.norm(gradient)
    if not mx.isfinite(norm).item():
        return None  # finite numbers can have a norm that is not: their squares overflow
    if max_grad_norm:
        # By the norm of all parameters together (Pascanu et al. 2013), which keeps the gradient's direction. 1e-6
        # guards against a norm of 0.
        gradient = gradient * mx.minimum(max_grad_norm / (norm + 1e-6), 1.0)
    optimizer.update(model, tree_unflatten(list(named(gradient, parameters).items())))
    mx.eval(model.trainable_parameters(), optimizer.state)
    return numbers(norm.reshape(1))[0]


def numbers(values: mx.array) -> list[float]:
    """A one-dimensional array as Python numbers."""
    return [float(value) for value in np.array(values)]
