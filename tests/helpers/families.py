"""Tiny random models of the five families that packing and tensor parallelism support; sliding windows of 6 tokens."""

import copy
from typing import Any

VOCABULARY = 97
WINDOW = 6

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_LLAMA = _SMALL | {
    "model_type": "llama",
    "num_key_value_heads": 4,
    "head_dim": 16,
    "attention_bias": True,
    "mlp_bias": True,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": WINDOW,
}
_GEMMA3_TEXT = _SMALL | {
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
}
_GEMMA4_E2B = _SMALL | {
    "model_type": "gemma4_text",
    "num_hidden_layers": 6,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_kv_shared_layers": 3,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": VOCABULARY,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 3,
    "use_double_wide_mlp": True,
}
_GEMMA4_31B = _SMALL | {
    "model_type": "gemma4_text",
    "num_key_value_heads": 4,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "qwen2": _SMALL | {"model_type": "qwen2", "hidden_size": 128, "num_key_value_heads": 2},
    "qwen3": _SMALL | {"model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 16, "tie_word_embeddings": False},
    "gemma3_text": _GEMMA3_TEXT,
    "gemma3": {"model_type": "gemma3", "vocab_size": VOCABULARY, "text_config": _GEMMA3_TEXT},
    "gemma4_e2b": _GEMMA4_E2B,
    "gemma4_31b": _GEMMA4_31B,
    "gemma4": {"model_type": "gemma4", "vocab_size": VOCABULARY, "text_config": _GEMMA4_E2B},
}
"""config.json by name. gemma4_e2b has E2B's shape: 8 query heads, 1 key/value head, per-layer inputs, shared layers."""


def build(name: str, bits: int = 0, seed: int = 0) -> Any:
    """A model of CONFIGS[name] with random weights, norms and biases. bits: 4 for weights quantised in groups of 32."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.utils import _get_classes

    mx.disable_compile()
    config = copy.deepcopy(CONFIGS[name])
    model_class, arguments = _get_classes(config)
    mx.random.seed(seed)
    model = model_class(arguments.from_dict(config))
    leaves = []
    for path, leaf in sorted(tree_flatten(model.parameters()), key=lambda kv: kv[0]):
        noise = mx.random.normal(leaf.shape)
        leaves.append((path, noise * leaf.shape[-1] ** -0.5 if leaf.ndim > 1 else leaf + 0.1 * noise))
    model.update(tree_unflatten(leaves))
    if bits:
        nn.quantize(model, group_size=32, bits=bits)
    mx.eval(model.parameters())
    return model
