"""The sizes of a model, from its config.json: plain numbers that memory and seconds are reckoned from.

Bytes that a rank needs: the base exactly, the activations by a formula with measured factors.

Tokens are those that a forward pass computes, padding included.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from thunder_train import ThunderError
from thunder_train.worker.args import Settings
from thunder_train.worker.batching.plan import Pass
from thunder_train.worker.model import trainable_parameters

ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Facts:
    """Sizes of a dense decoder. projections: outputs of q, k and v together; item_size: bytes of an activation."""

    family: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    projections: int
    vocabulary: int
    item_size: int
    is_soft_capped: bool


def facts(config: Mapping[str, Any]) -> Facts:
    """The sizes in a config.json. Raises ThunderError when one is missing."""
    text = config.get("text_config", config)
    try:
        heads, width = text["num_attention_heads"], text["hidden_size"]
        kv_heads = text.get("num_key_value_heads") or heads
        head = text.get("head_dim") or width // heads
        return Facts(
            family=text.get("model_type", config.get("model_type", "")),
            layers=text["num_hidden_layers"],
            width=width,
            hidden=text["intermediate_size"],
            heads=heads,
            kv_heads=kv_heads,
            projections=head * (heads + 2 * kv_heads),
            vocabulary=text.get("vocab_size") or config["vocab_size"],
            item_size=ITEM_SIZES[dtype(config)],
            is_soft_capped=bool(text.get("final_logit_softcapping")),
        )
    except KeyError as error:
        hint = "fit knows dense transformers; use a config.json of one"
        raise ThunderError(f"has no usable {error}", where="--config", hint=hint) from error


def dtype(config: Mapping[str, Any]) -> str:
    """The type of the floating-point weights, as the config tells it."""
    text = config.get("text_config", {})
    names = (part.get(key) for part in (config, text) for key in ("torch_dtype", "dtype"))
    return str(next((name for name in names if name), "bfloat16"))


FLOAT32 = 4
"""Bytes. Adapter, its moments and gradients, and logits are float32 whatever the base is."""


@dataclass(frozen=True)
class Factors:
    """Numbers that are held per token, as multiples of a size: of each trained block, of the one at work, of logits.

    map: of heads x width of the sequence, the attention weights. boundary: a block that is computed twice.
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
"""llama, qwen2, qwen3: fitted to mx.get_peak_memory of 28 shapes (mlx 0.32.4, CPU, not compiled), 6 % off at most."""
GELU = Factors(7.2, 6.8, 2.9, 0.8, 1.5, 3.2, 3.8, 2.0)
"""gemma: four norms and a long activation; fitted to 14 shapes."""
SOFT_CAP = 2.0
"""More logits, where they go through a tanh."""


def activations(sizes: Facts, layout: Pass, trained: int, is_checkpointed: bool, parts: int) -> int:
    """Bytes that a forward and backward pass holds at its peak, besides weights and gradients.

    Per token: trained blocks x (width + hidden + projections + map), one block's temporaries and the logits, each times
    its factor; blocks below the adapter hold nothing. Checkpointed blocks hold their inputs, but for the one at work.
    parts: ranks that share heads and MLP (tensor).
    """
    factors = GELU if "gemma" in sizes.family else SILU
    hidden, attention = sizes.hidden / parts, sizes.heads / parts * layout.width
    block = factors.width * sizes.width + factors.hidden * hidden
    block += factors.projections * sizes.projections / parts + factors.map * attention
    held = block + trained * factors.boundary * sizes.width if is_checkpointed else trained * block
    work = factors.work_hidden * hidden + factors.work_map * attention
    logits = (factors.logits + SOFT_CAP * sizes.is_soft_capped) * sizes.vocabulary
    tokens = len(layout.sequences) * layout.width
    return round(tokens * (sizes.item_size * (held + work) + FLOAT32 * logits))


def weight_bytes(model: nn.Module, sizes: Facts, parts: int) -> int:
    """Bytes of the base on one rank, exactly; a quantised layer's words, scales and biases as they are stored."""
    return round(sum(size * _share(name, sizes, parts) for name, size in _leaf_bytes(model, sizes.item_size)))


def _leaf_bytes(model: nn.Module, item_size: int) -> Iterator[tuple[str, int]]:
    for name, leaf in tree_flatten(model.parameters()):
        if "lora_" not in name:
            yield name, leaf.size * (item_size if mx.issubdtype(leaf.dtype, mx.floating) else leaf.dtype.size)


def _share(name: str, sizes: Facts, parts: int) -> float:
    """The part of a leaf that a rank keeps when blocks are split, as tensor_parallel splits them."""
    words = name.split(".")
    if "layers" not in words or not {"self_attn", "mlp"} & set(words):
        return 1.0
    if {"k_proj", "v_proj"} & set(words):
        return 1 / min(parts, sizes.kv_heads)
    return 1 / parts if {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} & set(words) else 1.0


def memory(model: nn.Module, sizes: Facts, layout: Pass, settings: Settings, parts: int) -> dict[str, int]:
    """Bytes of one rank by what holds them, and their peak: in the backward pass, or where the step is made."""
    adapter = FLOAT32 * trainable_parameters(model)
    found = {
        "weights": weight_bytes(model, sizes, parts),
        "adapter": adapter,
        "optimizer": 2 * adapter,
        "gradients": 2 * adapter,  # of a pass, and the sum so far
        "activations": activations(sizes, layout, settings.num_layers, settings.grad_checkpoint, parts),
    }
    update = 3 * adapter  # the sum over all ranks, and the new moments
    peak = sum(found.values()) + max(0, update - found["activations"])
    return found | {"peak": peak}
