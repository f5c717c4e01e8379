"""The optimizers that a training may use, as mlx has them: how each is made, and the size of what it remembers."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
from mlx.utils import tree_flatten

from thunder_train import ThunderError
from thunder_train.worker.model import trainable

COUNTERS = ("step", "learning_rate")
"""Of an optimizer's state: numbers that belong to no parameter."""


def make(name: str, rate: Any, weight_decay: float) -> Any:
    """The optimizer of that name. rate: a learning rate, or a function of the updates made so far.

    Adam and AdamW as published (Kingma and Ba 2015, Loshchilov and Hutter 2019), so with bias correction, which MLX
    leaves out by default: without it the first updates are about three times as large (0.1 / sqrt(0.001)). Adafactor
    without its own step sizes, so that `rate` is the learning rate.
    """
    if name == "adamw":
        return optimizers.AdamW(rate, weight_decay=weight_decay, bias_correction=True)
    if name == "adam":
        return optimizers.Adam(rate, bias_correction=True)
    if name == "adafactor":
        return optimizers.Adafactor(rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False)
    kind = {"sgd": optimizers.SGD, "muon": optimizers.Muon, "lion": optimizers.Lion}[name]
    return kind(rate, weight_decay=weight_decay)


def problems(name: str, model: nn.Module) -> list[ThunderError]:
    """A problem if the optimizer cannot train a parameter of the model. Reads shapes only."""
    odd = [parameter for parameter, leaf in trainable(model).items() if leaf.ndim != 2]
    if name != "muon" or not odd:
        return []
    what = f"muon trains matrices, and {len(odd)} of the adapter's tensors are none, as {odd[0]}"
    return [ThunderError(what, "--optimizer", "use another optimizer, or adapt other layers with --lora-keys")]


def state_bytes(name: str, model: nn.Module) -> int:
    """Bytes that the optimizer remembers of the trained parameters. MLX is lazy, so none is computed."""
    optimizer = make(name, 0.0, 0.0)
    optimizer.init(model.trainable_parameters())
    leaves: list[tuple[str, mx.array]] = tree_flatten(optimizer.state)
    return sum(int(leaf.nbytes) for key, leaf in leaves if key not in COUNTERS)
