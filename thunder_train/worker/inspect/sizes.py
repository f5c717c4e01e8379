"""The sizes of a model, from its config.json: plain numbers that memory and seconds are reckoned from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thunder_train import ThunderError

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
        mend = "fit knows dense transformers; use a config.json of one"
        raise ThunderError(f"has no usable {error}", where="--config", mend=mend) from error


def dtype(config: Mapping[str, Any]) -> str:
    """The type of the floating-point weights, as the config tells it."""
    text = config.get("text_config", {})
    names = (part.get(key) for part in (config, text) for key in ("torch_dtype", "dtype"))
    return str(next((name for name in names if name), "bfloat16"))
