"""Several rows in one sequence, blind to each other: a stand-in for the cache hands the model a block-diagonal mask.

Exact for models whose attention knows positions by their distance alone (rotary embeddings), sliding windows included.
Shapes: B sequences, T tokens.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

FAMILIES = ("gemma3_text", "gemma4_text", "llama", "qwen2", "qwen3")
"""Modules of mlx-lm whose models have been proven: packed logits and gradients equal unpacked ones."""
WRAPPERS = ("gemma3", "gemma4")
"""Modules of mlx-lm whose models hold a text model of one of these families, and call nothing else."""


class SegmentMask:
    """Looks like an empty key/value cache to a layer, and answers with the mask of the segments.

    mask: (B, 1, T, T), true where a token may attend.
    """

    offset = 0

    def __init__(self, mask: mx.array) -> None:
        self.mask = mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Keys and values of this sequence alone: nothing came before."""
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """The mask; window_size: how many tokens back, itself included, a token sees in a sliding layer."""
        if window_size is None:
            return self.mask
        position = mx.arange(length)
        return self.mask & (position[:, None] < position[None, :] + window_size)


def why_not(model: nn.Module) -> str:
    """Why the model's rows cannot be packed; "" if they can."""
    family = _family(model)
    if family in WRAPPERS:
        family = _family(model.language_model)
    if family in FAMILIES:
        return ""
    return f"packing is proven for {', '.join(FAMILIES)}, not for {family}"


def _family(model: nn.Module) -> str:
    return type(model).__module__.rpartition(".")[2]


def caches(model: nn.Module, segments: mx.array) -> list[Any]:
    """What to pass as `cache`: one stand-in for each cache that the model would make.

    segments: (B, T), equal for tokens of one row. Padding has a segment of its own, so no token attends to nothing.
    """
    position = mx.arange(segments.shape[-1])
    mask = (segments[:, None, :, None] == segments[:, None, None, :]) & (position[:, None] >= position[None, :])
    return [SegmentMask(mask) for _ in make_prompt_cache(model)]
