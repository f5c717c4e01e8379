"""Tensor parallelism: every rank holds a share of each block's attention heads and MLP, and computes every row.

For models too large for one machine. A block costs four messages of (B, T, width) numbers a step, so it wants a fast
link, and where the model fits, data parallelism is faster. Embeddings, norms, Gemma's per-layer inputs, the output
layer and the adapter are on every rank. Tried on CPUs with the ring backend; not yet on Metal.
"""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear

from thunder_train import ThunderError, raise_all
from thunder_train.worker.ranks import Ranks
from thunder_train.worker.tensor_layers import Share, count_once, keep_inputs, keep_outputs, make_parallel

FAMILIES = ("gemma3", "gemma3_text", "gemma4", "gemma4_text", "llama", "qwen2", "qwen3")
"""mlx-lm's model files whose blocks can be split."""
WHERE = "--strategy tensor"


def problems(model: nn.Module, ranks: int) -> list[ThunderError]:
    """Everything for which a model, with or without its adapter, cannot be split over this number of ranks.

    Looks at shapes alone: a model that was built lazily from its config computes no weight.
    """
    family = type(model).__module__.rpartition(".")[2]
    if family not in FAMILIES:
        mend = f"use --strategy data, or a model of one of: {', '.join(FAMILIES)}"
        return [ThunderError(f"a {family} model cannot be split", where=WHERE, mend=mend)]
    mend = _mend(model)
    return [ThunderError(fact, where=WHERE, mend=mend) for fact in _misfits(model, ranks)] + _adapter_problems(model)


def _mend(model: nn.Module) -> str:
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
    return [ThunderError("DoRA cannot be split", where=WHERE, mend="use LoRA")]


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
