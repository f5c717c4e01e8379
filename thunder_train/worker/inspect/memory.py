"""Memory of one rank, estimated from the sizes in a model's config.json.

Weights are exact; activations are a formula with factors fitted to measurements. "Tokens" are those that a forward pass
computes, with padding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from thunder_train import ThunderError
from thunder_train.core import supported_models
from thunder_train.worker import head
from thunder_train.worker.args import Settings
from thunder_train.worker.batching.plan import Pass
from thunder_train.worker.model import trainable_parameters
from thunder_train.worker.optimizer import state_bytes

ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number by type."""
FLOAT32 = 4
"""Bytes. The adapter, its gradients, and the logits are float32 whatever the type of the base."""
SOFT_CAP = 2.0
"""Additional logits held per logit if the model caps them with tanh."""
BLOCKS = 6.5
"""Arrays of the size of a block of logits at the peak of the loss (worker/head.py)."""
STATES = 3
"""Arrays of (tokens, width) beside them: hidden states of the targets, their gradients, and a sum of weights."""


@dataclass(frozen=True)
class Factors:
    """Activations held per token, in numbers, as multiples of sizes of the model.

    Of each trained block: width, hidden (MLP units), projections (q, k and v) and map (heads x sequence width, the
    attention weights). Of the block being computed, in addition: work_hidden and work_map. Of the output layer: logits.
    Of each checkpointed block: boundary (its input, in widths).
    """

    width: float
    hidden: float
    projections: float
    map: float
    work_hidden: float
    work_map: float
    logits: float
    boundary: float


SILU = Factors(5.0, 3.3, 2.9, 1.0, 10.0, 2.0, 3.7, 1.7)
"""llama, qwen2, qwen3: fitted to mx.get_peak_memory of 28 shapes (mlx 0.32.4, CPU, not compiled); largest error 6 %."""
GELU = Factors(7.2, 6.8, 2.9, 0.8, 1.5, 3.2, 3.8, 2.0)
"""gemma, which has four norms and a longer activation function: fitted to 14 shapes."""
CLIPPED = Factors(5.0, 6.6, 2.9, 1.0, 10.0, 2.0, 3.7, 1.7)
"""gpt_oss, whose activation function is clipped: fitted to 3 shapes."""
ROUTED = 2.5
"""Numbers held per token, expert that computes it, and unit of the width: fitted to 9 shapes of three families."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a decoder. hidden: MLP units that compute for a token; routed: what its experts take in together;
    projections: outputs of q, k and v together; item_size: bytes of an activation.
    """

    family: str
    layers: int
    width: int
    hidden: int
    routed: int
    heads: int
    kv_heads: int
    projections: int
    vocabulary: int
    item_size: int
    is_soft_capped: bool


def model_sizes(config: Mapping[str, Any]) -> ModelSizes:
    """The sizes in a config.json. Raises ThunderError if one is missing or its type of weights is unknown."""
    text = config.get("text_config") or config
    try:
        heads, width = text["num_attention_heads"], text["hidden_size"]
        kv_heads = text.get("num_key_value_heads") or heads
        head = text.get("head_dim") or width // heads
        return ModelSizes(
            family=text.get("model_type", config.get("model_type", "")),
            layers=text["num_hidden_layers"],
            width=width,
            hidden=_hidden(text),
            routed=_active_experts(text) * width,
            heads=heads,
            kv_heads=kv_heads,
            projections=head * (heads + 2 * kv_heads),
            vocabulary=int(text.get("vocab_size") or config["vocab_size"]),
            item_size=ITEM_SIZES[dtype(config)],
            is_soft_capped=bool(text.get("final_logit_softcapping")),
        )
    except (KeyError, TypeError) as error:  # TypeError: a size that differs between layers is a list
        what = f"has no usable {error}" if isinstance(error, KeyError) else f"has a size that is no number: {error}"
        hint = "fit supports transformers with and without experts only; use the config.json of one"
        raise ThunderError(what, where="--config", hint=hint) from error


def _hidden(text: Mapping[str, Any]) -> int:
    """MLP units that compute for a token, in the widest layer."""
    dense = text["intermediate_size"]
    units = int(max(dense) if isinstance(dense, list) else dense)
    if not (active := _active_experts(text)):
        return units
    each = int(text.get("moe_intermediate_size") or units)
    shared = text.get("shared_expert_intermediate_size") or (text.get("n_shared_experts") or 0) * each
    return max(units, active * each + int(shared))


def _active_experts(text: Mapping[str, Any]) -> int:
    """Experts that compute for a token; 0 for a model without any."""
    has_experts = supported_models.has_experts(dict(text))
    return int(text.get("num_experts_per_tok") or text.get("moe_topk") or 1) if has_experts else 0


def dtype(config: Mapping[str, Any]) -> str:
    """The type of the floating-point weights; bfloat16 if the config does not name it."""
    text = config.get("text_config") or {}
    names = (part.get(key) for part in (config, text) for key in ("torch_dtype", "dtype"))
    return str(next((name for name in names if name), "bfloat16"))


def activations(sizes: ModelSizes, layout: Pass, settings: Settings, parts: int, in_blocks: bool) -> int:
    """Bytes of activations at the peak of a forward and backward pass over `layout`.

    Blocks below the adapter hold nothing, because no gradient goes through them. Checkpointed blocks hold only their
    inputs, except the block being recomputed. parts: ranks that share heads and MLP (tensor strategy); in_blocks:
    whether the loss is computed in blocks of words.
    """
    trained, is_checkpointed = settings.num_layers, settings.grad_checkpoint
    factors = GELU if "gemma" in sizes.family else CLIPPED if sizes.family == "gpt_oss" else SILU
    hidden, attention = sizes.hidden / parts, sizes.heads / parts * layout.width
    block = factors.width * sizes.width + factors.hidden * hidden
    block += factors.projections * sizes.projections / parts + factors.map * attention + ROUTED * sizes.routed
    held = block + trained * factors.boundary * sizes.width if is_checkpointed else trained * block
    work = factors.work_hidden * hidden + factors.work_map * attention
    tokens, capped = len(layout.sequences) * layout.width, SOFT_CAP * sizes.is_soft_capped
    if not in_blocks:
        logits = (factors.logits + capped) * sizes.vocabulary
        return round(tokens * (sizes.item_size * (held + work) + FLOAT32 * logits))
    # The loss is done, and its blocks are free again, when the backward pass of the first block begins.
    numbers = (BLOCKS + capped) * min(head.block()[0], tokens * sizes.vocabulary) + STATES * tokens * sizes.width
    return round(tokens * sizes.item_size * held + max(tokens * sizes.item_size * work, FLOAT32 * numbers))


def weight_bytes(model: nn.Module, sizes: ModelSizes, parts: int) -> int:
    """Exact bytes of the base's weights on one rank, with the scales and biases of quantised layers."""
    return round(sum(size * _fraction(name, sizes, parts) for name, size in _leaf_bytes(model, sizes.item_size)))


def _leaf_bytes(model: nn.Module, item_size: int) -> Iterator[tuple[str, int]]:
    for name, leaf in tree_flatten(model.parameters()):
        if "lora_" not in name:
            yield name, leaf.size * (item_size if mx.issubdtype(leaf.dtype, mx.floating) else leaf.dtype.size)


def _fraction(name: str, sizes: ModelSizes, parts: int) -> float:
    """The fraction of a parameter that a rank keeps after tensor_parallel.shard."""
    modules = set(name.split("."))
    if "layers" not in modules or not {"self_attn", "mlp"} & modules:
        return 1.0
    if {"k_proj", "v_proj"} & modules:
        return 1 / min(parts, sizes.kv_heads)
    return 1 / parts if {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} & modules else 1.0


def memory(model: nn.Module, sizes: ModelSizes, held: int, settings: Settings, parts: int) -> dict[str, int]:
    """Bytes of one rank by use, and their "peak": in the backward pass or in the optimizer's update.

    held: activations of the pass that holds most.
    """
    adapter, remembered = FLOAT32 * trainable_parameters(model), state_bytes(settings.optimizer, model)
    uses = {
        "weights": weight_bytes(model, sizes, parts),
        "adapter": adapter,
        "optimizer": remembered,
        "gradients": 2 * adapter,  # of one pass, and their sum so far
        "activations": held,
    }
    # Activations are free again when the update needs the sum over all ranks and the optimizer's new state.
    update = adapter + remembered
    peak = sum(uses.values()) + max(0, update - uses["activations"])
    return uses | {"peak": peak}
