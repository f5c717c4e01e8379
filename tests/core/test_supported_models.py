"""Which base models the installed mlx-lm builds: told by a config.json, without importing mlx."""

from importlib.metadata import version
from typing import Any

import pytest

from thunder_train.core import supported_models

NOT_READ = f"does not read; {supported_models.UNPACKED}"
HERE = f"mlx-lm {version('mlx-lm')}"
ANOTHER = "use a model of a type that mlx-lm has, or install an mlx-lm that has this one"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "mistral"},
        {"model_type": "kimi_k2", "quantization_config": {"quant_method": "fp8"}},
        {"model_type": "kimi_vl", "quantization_config": {"quant_method": "fp8"}},
        {"model_type": "llama", "quantization": {"bits": 4}, "quantization_config": {"bits": 4}},
        {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}},
        {"model_type": "llama", "quantization_config": {"quant_method": "awq", "bits": 4}},
        {
            "model_type": "deepseek_v3",
            "quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        },
        {"model_type": "gemma4", "text_config": {"quantization_config": None}},
    ],
)
def test_what_mlx_lm_builds_is_no_problem(config: dict[str, Any]) -> None:
    """
    Under another name, by another model's code, and packed by another tool, too.
    """
    assert [] == supported_models.problems(config, "base")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "qwen9"}, f"base: {HERE} has no model_type 'qwen9'; it has qwen, qwen3, qwen2; {ANOTHER}"),
        ({"model_type": "zzz"}, f"base: {HERE} has no model_type 'zzz'; {ANOTHER}"),
        ({"model_type": "cache"}, f"base: {HERE} has no model_type 'cache'; {ANOTHER}"),
        (
            {"architectures": ["X"]},
            "base: config.json: names no model_type; give the folder of an mlx-lm model, or of a transformers model",
        ),
        (
            {"model_type": "llama", "quantization_config": {"bits": 4}},
            f"base: its quantization_config names no quant_method, which {HERE} {NOT_READ}",
        ),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}},
            f"base: its weights are packed by 'modelopt' with 'FP8', which {HERE} "
            f"{NOT_READ.replace(';', ' for a model of its type;')}",
        ),
    ],
)
def test_what_it_does_not_is_one_sentence(config: dict[str, Any], expected: str) -> None:
    """
    Told before gigabytes are fetched, and with the names of models that are near.
    """
    assert [expected] == [str(problem) for problem in supported_models.problems(config, "base")]


@pytest.mark.parametrize("name", ["../utils", "..", "a.b", "\x00", "/etc/passwd"])
def test_a_model_type_names_no_other_file(name: str) -> None:
    """
    It comes from anyone, and becomes part of a path.
    """
    assert not supported_models.has({"model_type": name})


@pytest.mark.mlx
def test_it_knows_the_names_that_mlx_lm_takes() -> None:
    """
    They are read from its source, whose form another version may change.
    """
    from mlx_lm.utils import MODEL_REMAPPING, _get_classes

    assert set(MODEL_REMAPPING) <= set(supported_models.model_types())
    for name in ("llama", "qwen3_moe", "gemma4", "mistral"):
        assert name in supported_models.model_types()
        _get_classes({"model_type": name})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_experts": 8}, True),
        ({"text_config": {"num_local_experts": 8}}, True),
        ({"num_experts": 1, "n_routed_experts": None}, False),
        ({"num_experts": 0, "text_config": None}, False),
        ({}, False),
    ],
)
def test_experts_are_counted(config: dict[str, Any], expected: bool) -> None:
    """
    A dense model of a family of experts has the keys too.
    """
    assert expected is supported_models.has_experts(config)
