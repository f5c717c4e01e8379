"""The learning rate over optimizer steps: constant, linear or cosine, after a linear warm-up."""

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optimizers

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
