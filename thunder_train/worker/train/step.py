"""The learning rate over optimizer steps: constant, linear or cosine, after a linear warm-up.

One optimizer step: each rank sums, all ranks add up in a single message, everyone makes the same update.

Shapes: B rows, T tokens, P trained numbers of a rank, R ranks. Sums, never means, cross ranks: ranks hold unequal token
counts, so the result does not depend on how rows are spread.
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
from thunder_train.worker.model import trainable
from thunder_train.worker.ranks import Ranks

Schedule = float | Callable[[mx.array], mx.array]
KINDS = ("constant", "linear", "cosine")


def schedule(kind: str, learning_rate: float, steps: int, warmup: int) -> Schedule:
    """What mlx's optimizers take. It counts optimizer steps, whatever a step gathers; 0 is reached at the end.

    A constant rate without warm-up stays a plain number.
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
    # The first step must not be wasted on a rate of 0, so the ramp begins one step up.
    ramp = optimizers.linear_schedule(learning_rate / warmup, learning_rate, max(1, warmup - 1))
    return optimizers.join_schedules([ramp, after], [warmup])


Arrays = Mapping[str, mx.array]
Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Totals:
    """One step over all ranks. gradient: (P,) of the loss sum; loss: nats; tokens: targets; stop: a rank asks to.

    finite: whether each rank's sums are finite; busy_s: each rank's seconds of computing; exchange_s: of the message.
    """

    gradient: mx.array
    loss: float
    tokens: int
    finite: tuple[bool, ...]
    stop: bool
    busy_s: tuple[float, ...]
    exchange_s: float


def local_sums(model: nn.Module, batches: Sequence[Batch]) -> tuple[mx.array, mx.array, int]:
    """This rank's (P,) gradient of the loss sum, the loss sum, its targets; zeros for a rank without a row.

    Each micro-batch is computed before the next begins, or all their graphs would be held at once.
    """
    model.train()
    loss_and_gradients = nn.value_and_grad(model, loss_sum)
    gradient, loss = mx.zeros(sum(leaf.size for leaf in trainable(model).values())), mx.array(0.0)
    for batch in batches:
        part, gradients = loss_and_gradients(model, batch)
        gradient, loss = gradient + flatten(gradients), loss + part
        mx.eval(gradient, loss)
    return gradient, loss, sum(batch.targets for batch in batches)


def flatten(gradients: Any) -> mx.array:
    """A tree of gradients as one (P,) float32 array, in order of name."""
    leaves = [leaf.reshape(-1).astype(mx.float32) for _, leaf in sorted(tree_flatten(gradients), key=lambda kv: kv[0])]
    return mx.concatenate(leaves)


def named(flat: mx.array, like: Arrays) -> dict[str, mx.array]:
    """The arrays that `flatten` joined; like: the trained parameters by name."""
    pieces, start = {}, 0
    for name, leaf in sorted(like.items()):
        pieces[name] = flat[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        start += leaf.size
    return pieces


def add_up(sums: tuple[mx.array, mx.array, int], stop: bool, busy_s: float, ranks: Ranks, counts: bool) -> Totals:
    """Sum one step over all ranks; flags and times ride along, so that all ranks decide alike.

    counts: whether this rank's loss and tokens count; under tensor parallelism every rank has those of the whole step.
    """
    gradient, loss, tokens = sums
    finite = bool((mx.isfinite(gradient).all() & mx.isfinite(loss)).item())
    own = np.zeros((2, ranks.size), np.float32)
    own[:, ranks.rank] = finite, busy_s
    tail = mx.concatenate([mx.array([float(stop)]), mx.array(own.reshape(-1))])
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
    """Divide by the tokens, clip, step; the gradient's norm before clipping.

    None, and no change, when the step is not finite or had no target.
    """
    if not (all(totals.finite) and totals.tokens):
        return None
    parameters = trainable(model)
    gradient = totals.gradient / totals.tokens
    norm = mx.linalg.norm(gradient)
    if not mx.isfinite(norm).item():
        return None
    if max_grad_norm:
        gradient = gradient * mx.minimum(max_grad_norm / (norm + 1e-6), 1.0)
    optimizer.update(model, tree_unflatten(list(named(gradient, parameters).items())))
    mx.eval(model.trainable_parameters(), optimizer.state)
    return numbers(norm.reshape(1))[0]


def numbers(values: mx.array) -> list[float]:
    """A one-dimensional array as Python numbers."""
    return [float(value) for value in np.array(values)]
