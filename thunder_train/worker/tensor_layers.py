"""Layers of which every rank computes a share, made in place from mlx-lm's own, so that no parameter changes its name.

Each rank keeps its share of the frozen weights, and the whole adapter, of which it uses its share. So the adapter's
gradient is zero where another rank computes, and the sum over ranks that data-parallel training makes anyway is the
gradient of one process. Nothing has to be gathered to save, resume or measure the adapter.
Shapes: I inputs, O outputs of a layer, R LoRA rank.
"""

import functools
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import sum_gradients
from mlx_lm.tuner.lora import LoRALinear

from thunder_train.worker.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """Number `part`, from 0, of `parts` equal parts of a dimension."""

    part: int
    parts: int

    def of(self, size: int) -> slice:
        """Where the part lies in a dimension of this size."""
        width = size // self.parts
        return slice(self.part * width, (self.part + 1) * width)


class Parallel(nn.Module):
    """An attention or MLP that adds up what the ranks computed: once forward, and once backward for its input.

    The collectives of a step form a chain, each needing the one before, so all ranks make them in the same order.
    """

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        """x: (B, T, I), the same on all ranks, like the result."""
        result = super().__call__(sum_gradients(self.group)(x), *args, **kwargs)
        if isinstance(result, tuple):  # Gemma 4's attention also hands on keys and values: each rank its own heads
            return mx.distributed.all_sum(result[0], group=self.group), *result[1:]
        return mx.distributed.all_sum(result, group=self.group)


class LoraShare(LoRALinear):
    """A LoRA layer that uses the rows `inputs` of its (I, R) lora_a and the columns `outputs` of its (R, O) lora_b."""

    inputs = slice(None)
    outputs = slice(None)
    gradient_factor = 1.0
    """0 where another rank counts the same gradient."""

    def __call__(self, x: mx.array) -> mx.array:
        """x: (B, T, inputs kept) -> (B, T, outputs kept)."""
        scaled = scale_gradients(self.gradient_factor)
        lora_a, lora_b = scaled(self.lora_a[self.inputs]), scaled(self.lora_b[:, self.outputs])
        z = (self.dropout(x) @ lora_a) @ lora_b
        return self.linear(x) + (self.scale * z).astype(x.dtype)


class DropoutShare(nn.Dropout):
    """Dropout of a share of the inputs: draws for all of them, so that every rank's random state stays the same."""

    def __call__(self, x: mx.array) -> mx.array:
        """x: (B, T, inputs kept)."""
        if self._p_1 == 1 or not self.training:
            return x
        whole = super().__call__(mx.ones((*x.shape[:-1], self.width), x.dtype))
        return x * whole[..., self.inputs]


@functools.cache
def scale_gradients(factor: float) -> Any:
    """A function that returns its argument and multiplies the gradient that comes back by factor.

    Unlike stop_gradient it leaves the same graph on every rank.
    """

    @mx.custom_function
    def same(x: mx.array) -> mx.array:
        return x

    @same.vjp
    def scaled(_primal: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
        return cotangent * factor

    return same


def make_parallel(module: nn.Module, ranks: Ranks) -> None:
    """Turn an attention or MLP whose layers hold shares into a Parallel one."""
    kind = type(module)
    module.group = ranks.group
    module.__class__ = type(f"Parallel{kind.__name__}", (Parallel, kind), {})


def keep_outputs(layer: nn.Module, share: Share) -> None:
    """Keep a share of a linear layer's outputs: rows of its weight, plain or quantised, and of its bias."""
    linear = layer
    if isinstance(layer, LoRALinear):
        linear, layer.__class__ = layer.linear, LoraShare
        layer.outputs = share.of(layer.lora_b.shape[1])
    for name in ("weight", "scales", "biases", "bias"):
        if linear.get(name) is not None:
            linear[name] = mx.contiguous(linear[name][share.of(linear[name].shape[0])])


def keep_inputs(layer: nn.Module, share: Share) -> None:
    """Keep a share of a linear layer's inputs: columns of its weight, whole groups of them if it is quantised.

    The ranks' outputs will be added up, so that the first alone keeps the bias.
    """
    linear = layer
    if isinstance(layer, LoRALinear):
        linear, layer.__class__ = layer.linear, LoraShare
        layer.inputs = share.of(layer.lora_a.shape[0])
        layer.dropout.__class__ = DropoutShare
        layer.dropout.inputs, layer.dropout.width = layer.inputs, layer.lora_a.shape[0]
    for name in ("weight", "scales", "biases"):
        if linear.get(name) is not None:
            linear[name] = mx.contiguous(linear[name][:, share.of(linear[name].shape[1])])
    if share.part and "bias" in linear:
        linear.bias = mx.zeros_like(linear.bias)


def count_once(layer: nn.Module, ranks: Ranks) -> None:
    """Make the first rank alone count the gradient of a LoRA layer that every rank computes as a whole."""
    layer.__class__ = LoraShare
    layer.gradient_factor = 0.0 if ranks.rank else 1.0
