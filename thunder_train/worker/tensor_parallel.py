"""Layers of which every rank computes a share, made in place from mlx-lm's own, so that no parameter changes its name.

Each rank keeps its share of the frozen weights, and the whole adapter, of which it uses its share. So the adapter's
gradient is zero where another rank computes, and the sum over ranks that data-parallel training makes anyway is the
gradient of one process. Nothing has to be gathered to save, resume or measure the adapter.
Shapes: I inputs, O outputs of a layer, R LoRA rank.

Tensor parallelism: every rank holds a share of each block's attention heads and MLP, and computes every row.

For models too large for one machine. A block costs four messages of (B, T, width) numbers a step, so it wants a fast
link, and where the model fits, data parallelism is faster. Embeddings, norms, Gemma's per-layer inputs, the output
layer and the adapter are on every rank. Tried on CPUs with the ring backend; not yet on Metal.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import sum_gradients
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear

from thunder_train import ThunderError, raise_all
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


FAMILIES = ("gemma3", "gemma3_text", "gemma4", "gemma4_text", "llama", "qwen2", "qwen3")
"""mlx-lm's model files whose blocks can be split."""
WHERE = "--strategy tensor"


def problems(model: nn.Module, ranks: int) -> list[ThunderError]:
    """Everything for which a model, with or without its adapter, cannot be split over this number of ranks.

    Looks at shapes alone: a model that was built lazily from its config computes no weight.
    """
    family = type(model).__module__.rpartition(".")[2]
    if family not in FAMILIES:
        hint = f"use --strategy data, or a model of one of: {', '.join(FAMILIES)}"
        return [ThunderError(f"a {family} model cannot be split", where=WHERE, hint=hint)]
    hint = _hint(model)
    return [ThunderError(fact, where=WHERE, hint=hint) for fact in _misfits(model, ranks)] + _adapter_problems(model)


def _hint(model: nn.Module) -> str:
    """The numbers of ranks that would do."""
    largest = max(block.self_attn.n_heads for block in model.layers)
    fitting = [str(ranks) for ranks in range(2, largest + 1) if not _misfits(model, ranks)]
    return f"use {' or '.join(fitting)} ranks" if fitting else "use --strategy data"


def _misfits(model: nn.Module, ranks: int) -> list[str]:
    """What cannot be split, each fact once though every block may have it."""
    return list(dict.fromkeys(fact for block in model.layers for fact in _block_misfits(block, ranks)))


def _block_misfits(block: nn.Module, ranks: int) -> Iterator[str]:
    heads, shared_heads = block.self_attn.n_heads, block.self_attn.n_kv_heads
    if getattr(block, "enable_moe", False):
        yield "layers of experts cannot be split"
    if heads % ranks:
        yield f"{heads} query heads cannot be split over {ranks} ranks"
    elif shared_heads % ranks and ranks % shared_heads:
        yield f"{shared_heads} key/value heads can neither be split over {ranks} ranks nor repeated on them"
    hidden = _base(block.mlp.up_proj).weight.shape[0]
    if hidden % ranks:
        yield f"{hidden} MLP units cannot be split over {ranks} ranks"
    for name, layer in (("o_proj", block.self_attn.o_proj), ("down_proj", block.mlp.down_proj)):
        scales = _base(layer).get("scales")
        if scales is not None and scales.shape[1] % ranks:
            yield f"{scales.shape[1]} quantised groups of {name} cannot be split over {ranks} ranks"


def _base(layer: nn.Module) -> Any:
    """The frozen layer below an adapter, or the layer itself."""
    return layer.get("linear", layer)


def _adapter_problems(model: nn.Module) -> list[ThunderError]:
    if not any(isinstance(module, DoRALinear) for module in model.modules()):
        return []
    return [ThunderError("DoRA cannot be split", where=WHERE, hint="use LoRA")]


def shard(model: nn.Module, ranks: Ranks) -> None:
    """Leave this rank its share of a model, in place; after add_lora, whose adapter stays whole on every rank.

    All ranks must then compute the same rows in the same order, with the same random seed. The gradient of a loss sum,
    summed over ranks, is that of one process; the loss itself is whole on each rank already. A model that was loaded
    lazily is read block by block, so that no rank ever holds it whole. Raises ThunderError as `problems` lists.
    """
    raise_all(problems(model, ranks.size))
    if ranks.size == 1:
        return
    for block in model.layers:
        _shard_attention(block.self_attn, ranks)
        _shard_mlp(block.mlp, ranks)
        mx.eval(block.parameters())
    for module in model.modules():
        if type(module) is LoRALinear:
            count_once(module, ranks)


def _shard_attention(attention: nn.Module, ranks: Ranks) -> None:
    """Query heads are split; of key/value heads, if fewer than ranks, each rank keeps the one its queries use."""
    parts = min(attention.n_kv_heads, ranks.size)
    shared = Share(ranks.rank * parts // ranks.size, parts)
    own = Share(ranks.rank, ranks.size)
    keep_outputs(attention.q_proj, own)
    for name in ("k_proj", "v_proj"):
        if name in attention:  # Gemma 4 has layers without one or both
            keep_outputs(attention[name], shared)
    keep_inputs(attention.o_proj, own)
    attention.n_heads //= ranks.size
    attention.n_kv_heads //= parts
    make_parallel(attention, ranks)


def _shard_mlp(mlp: nn.Module, ranks: Ranks) -> None:
    own = Share(ranks.rank, ranks.size)
    keep_outputs(mlp.gate_proj, own)
    keep_outputs(mlp.up_proj, own)
    keep_inputs(mlp.down_proj, own)
    make_parallel(mlp, ranks)
