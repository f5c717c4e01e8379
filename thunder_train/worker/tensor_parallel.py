"""Tensor parallelism: each rank computes a part of the attention heads and MLP units of every block, for every row.

For models that are too large for one machine. A block needs four all-reduces of (B, T, width) numbers per step, two
forward and two backward, so it needs a fast link; a model that fits one machine trains faster with data parallelism.
The scheme is that of Megatron-LM (Shoeybi et al. 2019, arXiv:1909.08053, section 3): first the layers of a block that
can be split by outputs, then one split by inputs, then an all-reduce. Embeddings, norms, Gemma's per-layer inputs, the
output layer and the LoRA adapter are whole on each rank.

The whole adapter is on each rank, but a rank uses only the part of it that belongs to its part of the frozen weights;
the gradient of the rest is zero. So the sum of the gradients over all ranks, which data parallelism needs anyway, is
the gradient of the whole model, and the adapter needs no gathering for saving, resuming or evaluation.

mlx-lm's layers are changed in place, and parameters keep their names. Shapes: B rows, T tokens, I inputs and O outputs
of a layer, R the rank of LoRA. Tested on CPUs with the ring backend, not yet on Metal.
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

FAMILIES = ("gemma3", "gemma3_text", "gemma4", "gemma4_text", "llama", "qwen2", "qwen3")
"""mlx-lm's model files whose blocks can be split."""
WHERE = "--strategy tensor"


def problems(model: nn.Module, ranks: int) -> list[ThunderError]:
    """Every reason why a model, with or without adapter, cannot be split over this number of ranks.

    Reads shapes only, so a lazily built model computes no weight.
    """
    family = type(model).__module__.rpartition(".")[2]
    if family not in FAMILIES:
        hint = f"use --strategy data, or a model of one of: {', '.join(FAMILIES)}"
        return [ThunderError(f"a {family} model cannot be split", where=WHERE, hint=hint)]
    hint = _hint(model)
    errors = [ThunderError(what, where=WHERE, hint=hint) for what in _indivisible(model, ranks)]
    if any(isinstance(module, DoRALinear) for module in model.modules()):
        # DoRA divides by norms over all inputs of a layer, which a rank with a part of the inputs cannot compute.
        errors.append(ThunderError("DoRA is not supported", where=WHERE, hint="use LoRA"))
    return errors


def _hint(model: nn.Module) -> str:
    """Names the numbers of ranks that would work."""
    most_heads = max(block.self_attn.n_heads for block in model.layers)
    possible = [str(ranks) for ranks in range(2, most_heads + 1) if not _indivisible(model, ranks)]
    return f"use {' or '.join(possible)} ranks" if possible else "use --strategy data"


def _indivisible(model: nn.Module, ranks: int) -> list[str]:
    """What cannot be split, each message once although every block may give it."""
    return list(dict.fromkeys(what for block in model.layers for what in _indivisible_in(block, ranks)))


def _indivisible_in(block: nn.Module, ranks: int) -> Iterator[str]:
    heads, kv_heads = block.self_attn.n_heads, block.self_attn.n_kv_heads
    if getattr(block, "enable_moe", False):
        yield "layers of experts cannot be split"
    if heads % ranks:
        yield f"{heads} query heads cannot be split over {ranks} ranks"
    elif kv_heads % ranks and ranks % kv_heads:
        yield f"{kv_heads} key/value heads can neither be split over {ranks} ranks nor repeated on them"
    hidden = _frozen(block.mlp.up_proj).weight.shape[0]
    if hidden % ranks:
        yield f"{hidden} MLP units cannot be split over {ranks} ranks"
    for name, layer in (("o_proj", block.self_attn.o_proj), ("down_proj", block.mlp.down_proj)):
        # A quantised group of inputs has one scale, so it must not be cut.
        scales = _frozen(layer).get("scales")
        if scales is not None and scales.shape[1] % ranks:
            yield f"{scales.shape[1]} quantised groups of {name} cannot be split over {ranks} ranks"


def _frozen(layer: nn.Module) -> Any:
    """The frozen layer below an adapter, or the layer itself."""
    return layer.get("linear", layer)


def shard(model: nn.Module, ranks: Ranks) -> None:
    """Reduce a model to this rank's part, in place. Call it after add_lora.

    Afterwards all ranks must compute the same rows in the same order, with the same random seed. The loss is then the
    same on each rank, and gradients must be summed over the ranks. A lazily loaded model is evaluated block by block,
    so no rank ever holds all weights. Raises ThunderError for everything that `problems` lists.
    """
    raise_all(problems(model, ranks.size))
    if ranks.size == 1:
        return
    for block in model.layers:
        _shard_attention(block.self_attn, ranks)
        _shard_mlp(block.mlp, ranks)
        mx.eval(block.parameters())
    for module in model.modules():
        if type(module) is LoRALinear:  # not split, as Gemma 4's per-layer inputs
            count_on_first_rank(module, ranks)


def _shard_attention(attention: nn.Module, ranks: Ranks) -> None:
    """Split the heads; if there are fewer key/value heads than ranks, each rank keeps the one that its queries use."""
    parts = min(attention.n_kv_heads, ranks.size)
    kv_part = Part(ranks.rank * parts // ranks.size, parts)
    part = Part(ranks.rank, ranks.size)
    keep_outputs(attention.q_proj, part)
    for name in ("k_proj", "v_proj"):
        if name in attention:  # some layers of Gemma 4 lack one or both
            keep_outputs(attention[name], kv_part)
    keep_inputs(attention.o_proj, part)
    attention.n_heads //= ranks.size
    attention.n_kv_heads //= parts
    make_parallel(attention, ranks)


def _shard_mlp(mlp: nn.Module, ranks: Ranks) -> None:
    part = Part(ranks.rank, ranks.size)
    keep_outputs(mlp.gate_proj, part)
    keep_outputs(mlp.up_proj, part)
    keep_inputs(mlp.down_proj, part)
    make_parallel(mlp, ranks)


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of a dimension. index: from 0."""

    index: int
    count: int

    def of(self, size: int) -> slice:
        """The range of this part in a dimension of this size."""
        width = size // self.count
        return slice(self.index * width, (self.index + 1) * width)


def keep_outputs(layer: nn.Module, part: Part) -> None:
    """Keep a part of a linear layer's outputs: rows of its (O, I) weight, plain or quantised, and of its bias."""
    linear = layer
    if isinstance(layer, LoRALinear):
        linear, layer.__class__ = layer.linear, PartialLoRA
        layer.outputs = part.of(layer.lora_b.shape[1])
    for name in ("weight", "scales", "biases", "bias"):
        if linear.get(name) is not None:
            # contiguous copies: a view would keep the whole weight in memory
            linear[name] = mx.contiguous(linear[name][part.of(linear[name].shape[0])])


def keep_inputs(layer: nn.Module, part: Part) -> None:
    """Keep a part of a linear layer's inputs: columns of its (O, I) weight, whole groups if it is quantised."""
    linear = layer
    if isinstance(layer, LoRALinear):
        linear, layer.__class__ = layer.linear, PartialLoRA
        layer.inputs = part.of(layer.lora_a.shape[0])
        layer.dropout.__class__ = PartialDropout
        layer.dropout.inputs, layer.dropout.width = layer.inputs, layer.lora_a.shape[0]
    for name in ("weight", "scales", "biases"):
        if linear.get(name) is not None:
            linear[name] = mx.contiguous(linear[name][:, part.of(linear[name].shape[1])])
    if part.index and "bias" in linear:  # the outputs of all ranks are summed: the first alone adds the bias
        linear.bias = mx.zeros_like(linear.bias)


def make_parallel(module: nn.Module, ranks: Ranks) -> None:
    """Turn an attention or MLP whose layers hold parts into a Parallel one."""
    kind = type(module)
    module.group = ranks.group
    module.__class__ = type(f"Parallel{kind.__name__}", (Parallel, kind), {})


def count_on_first_rank(layer: nn.Module, ranks: Ranks) -> None:
    """Zero the gradient of a LoRA layer on all ranks but the first: each computes all of it, and it must count once."""
    layer.__class__ = PartialLoRA
    layer.gradient_factor = 0.0 if ranks.rank else 1.0


class Parallel(nn.Module):
    """An attention or MLP that sums over the ranks: its output forward, the gradient of its input backward.

    These are Megatron-LM's operators g and f. Each all-reduce of a step depends on the previous one, so all ranks run
    them in the same order.
    """

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        """x: (B, T, I), the same on all ranks, as is the result."""
        result = super().__call__(sum_gradients(self.group)(x), *args, **kwargs)
        if isinstance(result, tuple):  # Gemma 4's attention also returns keys and values, which stay this rank's
            return mx.distributed.all_sum(result[0], group=self.group), *result[1:]
        return mx.distributed.all_sum(result, group=self.group)


class PartialLoRA(LoRALinear):
    """A LoRA layer that uses the rows `inputs` of its (I, R) lora_a and the columns `outputs` of its (R, O) lora_b."""

    inputs = slice(None)
    outputs = slice(None)
    gradient_factor = 1.0
    """0 if another rank counts the same gradient."""

    def __call__(self, x: mx.array) -> mx.array:
        """x: (B, T, inputs kept) -> (B, T, outputs kept)."""
        scaled = scale_gradients(self.gradient_factor)
        lora_a, lora_b = scaled(self.lora_a[self.inputs]), scaled(self.lora_b[:, self.outputs])
        z = (self.dropout(x) @ lora_a) @ lora_b
        return self.linear(x) + (self.scale * z).astype(x.dtype)


class PartialDropout(nn.Dropout):
    """Dropout of a part of the inputs; the mask is drawn for all inputs, so the random state is equal on all ranks."""

    def __call__(self, x: mx.array) -> mx.array:
        """x: (B, T, inputs kept)."""
        if self._p_1 == 1 or not self.training:
            return x
        mask = super().__call__(mx.ones((*x.shape[:-1], self.width), x.dtype))
        return x * mask[..., self.inputs]


@functools.cache
def scale_gradients(factor: float) -> Any:
    """The identity function, whose gradient is multiplied by factor.

    Unlike stop_gradient, it keeps the graph, and so the order of the all-reduces, the same on all ranks.
    """

    @mx.custom_function
    def identity(x: mx.array) -> mx.array:
        return x

    @identity.vjp
    def scaled(_primal: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
        return cotangent * factor

    return identity
