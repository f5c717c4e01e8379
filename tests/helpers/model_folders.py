"""Tiny folders of base models as users have them: quantised, of experts, or as Hugging Face has them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

WIDTH, EXPERTS = 64, 4
_DENSE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "eos_token_id": 5,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_DENSE, "model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "qwen3": {**_DENSE, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
    "gemma3_text": {
        **_DENSE,
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 16,
        "rope_theta": 1_000_000.0,
        "sliding_window": 12,
        "sliding_window_pattern": 2,
        "tie_word_embeddings": True,
    },
    "qwen3_moe": {
        **_DENSE,
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
    },
    "mixtral": {
        **_DENSE,
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
    },
    "gpt_oss": {
        **_DENSE,
        "model_type": "gpt_oss",
        "architectures": ["GptOssForCausalLM"],
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 64,
    },
    "gemma3n": {
        "model_type": "gemma3n",
        "tie_word_embeddings": True,
        "eos_token_id": 5,
        "text_config": {
            **_DENSE,
            "model_type": "gemma3n_text",
            "vocab_size": 500,
            "vocab_size_per_layer_input": 500,
            "intermediate_size": [128, 128],
            "hidden_size_per_layer_input": 32,
            "laurel_rank": 8,
            "altup_num_inputs": 2,
            "altup_active_idx": 0,
            "altup_coef_clip": 120.0,
            "altup_correct_scale": True,
            "activation_sparsity_pattern": [0.95, 0.0],
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 64,
            "rope_local_base_freq": 1e4,
            "final_logit_softcapping": 30.0,
            "query_pre_attn_scalar": 16,
            "rope_scaling": None,
        },
    },
}
"""config.json by family, without the size of the vocabulary: that is the nano tokenizer's."""
Weights = dict[str, Any]


def make(
    folder: Path,
    family: str,
    *,
    quantized: dict[str, Any] | None = None,
    predicate: Callable[[str, Any], Any] | None = None,
    as_hugging_face: bool = False,
    shards: int = 1,
    **config: Any,
) -> Path:
    """A folder with random weights and the nano tokenizer.

    quantized: bits, group_size and mode, as mlx_lm.convert takes them; predicate: those of single layers.
    as_hugging_face: experts are separate tensors, and a tied output layer is among them, as transformers saves them.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.utils import _get_classes, quantize_model

    from thunder_train.worker import nano

    mx.disable_compile()
    vocabulary = nano.characters()
    values = {**CONFIGS[family], "vocab_size": len(vocabulary), **config}
    model_class, arguments = _get_classes(values)
    mx.random.seed(0)  # of what is drawn below only matrices are
    model = model_class(arguments.from_dict(values))
    if family == "gemma3_text":
        model.sanitize({})  # ties the output layer, as loading a folder without one does
    kind = getattr(mx, values.get("torch_dtype", "float32"))
    drawn = [(name, _drawn(mx, name, leaf).astype(kind)) for name, leaf in tree_flatten(model.parameters())]
    model.update(tree_unflatten(drawn))
    if quantized is not None:
        given = {"group_size": 32, "bits": 4, **quantized}
        model, values = quantize_model(model, values, **given, quant_predicate=predicate)
    weights = dict(tree_flatten(model.parameters()))
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder, _hugging_face(values, weights) if as_hugging_face else weights, shards)
    for name, table in {
        "config.json": values,
        "tokenizer.json": nano.tokenizer(vocabulary),
        "tokenizer_config.json": nano.tokenizer_config(),
    }.items():
        (folder / name).write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return folder


def _drawn(mx: Any, name: str, leaf: Any) -> Any:
    from thunder_train.worker import nano

    return mx.array(nano.draw(name, leaf.shape)) if leaf.ndim > 1 else leaf


def _hugging_face(config: dict[str, Any], weights: Weights) -> Weights:
    named: Weights = {}
    words = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    for name, leaf in weights.items():
        if match := re.fullmatch(r"(.*)\.switch_mlp\.(\w+)\.weight", name):
            word = words[match[2]] if config["model_type"] == "mixtral" else match[2]
            named |= {f"{match[1]}.experts.{expert}.{word}.weight": leaf[expert] for expert in range(leaf.shape[0])}
        else:
            named[name] = leaf
    if config["tie_word_embeddings"]:
        named["lm_head.weight"] = weights["model.embed_tokens.weight"]
    return named


def _save(folder: Path, weights: Weights, shards: int) -> None:
    import mlx.core as mx

    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
        return
    names = sorted(weights)
    files = {number: f"model-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)}
    for number, file in files.items():
        part = {name: weights[name] for name in names[number::shards]}
        mx.save_safetensors(str(folder / file), part, {"format": "pt"})
    index = {name: files[at % shards] for at, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def make_awq(folder: Path, group: int = 32) -> Path:
    """A llama whose blocks AutoAWQ packed into 4 bits: value, zero and scale of each group of inputs."""
    import mlx.core as mx
    import numpy as np

    settings = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    make(folder, "llama", quantization_config=settings, torch_dtype="float16")
    weights: Weights = {}
    for name, leaf in mx.load(str(folder / "model.safetensors")).items():
        if not name.endswith("_proj.weight"):
            weights[name] = leaf.astype(mx.float16)
            continue
        outputs, inputs = leaf.shape
        groups = np.array(leaf).reshape(outputs, inputs // group, group)
        low, scales = groups.min(-1), (groups.max(-1) - groups.min(-1)) / 15
        zeros = np.round(-low / scales)
        values = np.clip(np.round(groups / scales[..., None] + zeros[..., None]), 0, 15).reshape(outputs, inputs)
        base = name.removesuffix(".weight")
        weights[f"{base}.qweight"] = mx.array(_in_words(values.T))
        weights[f"{base}.qzeros"] = mx.array(_in_words(zeros.T))
        weights[f"{base}.scales"] = mx.array(scales.T.astype(np.float16))
    _save(folder, weights, 1)
    return folder


def _in_words(values: Any) -> Any:
    """Eight columns of 4 bits in each word, in AutoAWQ's order."""
    import numpy as np

    words = np.zeros((values.shape[0], values.shape[1] // 8), np.uint32)
    for place, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        words |= values[:, column::8].astype(np.uint32) << (4 * place)
    return words.view(np.int32)
