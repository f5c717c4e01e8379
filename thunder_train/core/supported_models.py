"""Which base models the installed mlx-lm can build, and which packed weights it reads, by config.json alone.

It reads the source of mlx-lm and imports none of it: doit asks before a model's gigabytes are fetched, and the import
of mlx takes longer than a build with nothing to do.
"""

import ast
import difflib
import importlib.util
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from thunder_train import ThunderError

DORA_BITS = (2, 4, 8)
"""mlx-lm's DoRA takes packed width * (32 // bits) for the input width, which is wrong for the others."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")
"""Keys of config.json with the number of experts of a layer."""
UNPACKED = "use the model with its weights unpacked, or one that mlx-lm packed, as mlx-community has many"
ANOTHER = "use a model of a type that mlx-lm has, or install an mlx-lm that has this one"


def problems(config: dict[str, Any], where: str) -> list[ThunderError]:
    """Why mlx-lm cannot build a model or read its weights; empty if it can, as far as a config.json tells."""
    if not _folder().is_dir():  # nothing to ask; the worker fails without mlx-lm, and says so
        return []
    if not isinstance(name := config.get("model_type"), str):
        hint = "give the folder of an mlx-lm model, or of a transformers model"
        return [ThunderError("names no model_type", f"{where}: config.json", hint)]
    if not has(config):
        near = difflib.get_close_matches(name, model_types(), n=3)
        what = f"mlx-lm {_version()} has no model_type {name!r}" + (f"; it has {', '.join(near)}" if near else "")
        return [ThunderError(what, where, ANOTHER)]
    reason = "" if "quantization" in config else _unreadable(packing(config), _source(config))
    return [ThunderError(reason, where, UNPACKED)] if reason else []


def has(config: dict[str, Any]) -> bool:
    """Whether mlx-lm has the code of this model itself."""
    return _file(config).is_file() and "class ModelArgs" in _text(_file(config))


@cache
def model_types() -> tuple[str, ...]:
    """Every model_type that mlx-lm takes."""
    own = (path.stem for path in (_folder() / "models").glob("*.py") if "class ModelArgs" in _text(path))
    return tuple(sorted({*own, *_other_names()}))


def packing(config: dict[str, Any]) -> dict[str, Any]:
    """The quantization_config of other tools than mlx-lm; empty for weights that are not packed."""
    parts = (config, config.get("text_config") or {})
    return next((part["quantization_config"] for part in parts if part.get("quantization_config")), {})


def has_experts(config: dict[str, Any]) -> bool:
    """Whether a config.json names more than one expert in a layer."""
    parts = (config, config.get("text_config") or {})
    return any(isinstance(part.get(key), int) and part[key] > 1 for part in parts for key in EXPERTS)


def _unreadable(settings: dict[str, Any], source: str) -> str:
    """Why mlx-lm does not read packed weights; "" if it does. source: the code of the model in mlx-lm."""
    if not settings:
        return ""
    method, form = settings.get("quant_method"), settings.get("format")
    reads = {
        "bitnet": True,
        "mxfp4": True,
        "mxfp8": True,
        "awq": settings.get("bits", 4) == 4 and settings.get("version", "gemm") == "gemm",
        "fp8": is_mxfp8(settings) or "scale_inv" in source,
        "compressed-tensors": form in ("pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized")
        and "weight_packed" in source,
        "modelopt": _algorithm(settings) == "NVFP4" and "weight_scale" in source,
    }
    if method not in reads:
        packed = f"its weights are packed by {method!r}" if method else "its quantization_config names no quant_method"
        return f"{packed}, which mlx-lm {_version()} does not read"
    details = {
        "awq": f" of {settings.get('bits', 4)} bits, version {settings.get('version', 'gemm')!r}",
        "compressed-tensors": f" in the format {form!r}",
        "modelopt": f" with {_algorithm(settings)!r}",
    }
    what = f"its weights are packed by {method!r}{details.get(method, '')}, which mlx-lm {_version()} does not read"
    return "" if reads[method] else f"{what} for a model of its type"


def is_mxfp8(settings: dict[str, Any]) -> bool:
    """Whether fp8 weights are those that MLX computes with as they are; a model's code unpacks any others."""
    is_blocks = settings.get("scale_fmt") == "ue8m0" and settings.get("weight_block_size") == [32, 32]
    return settings.get("quant_method") == "mxfp8" or is_blocks


def _algorithm(settings: dict[str, Any]) -> Any:
    """What NVIDIA's ModelOpt did: hf_quant_config.json nests the settings, config.json does not."""
    nested = settings.get("quantization")
    return (nested if isinstance(nested, dict) else settings).get("quant_algo")


@cache
def _folder() -> Path:
    package = importlib.util.find_spec("mlx_lm")
    places = package.submodule_search_locations if package else None
    return Path(places[0]) if places else Path("mlx_lm is not installed")


def _file(config: dict[str, Any]) -> Path:
    name = str(config.get("model_type"))
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", name):  # it comes from anyone, and is to name no other file
        return _folder() / "models" / "none"
    return _folder() / "models" / f"{_other_names().get(name, name)}.py"


@cache
def _other_names() -> dict[str, str]:
    """{model_type: the module that mlx-lm takes for it}, where they differ."""
    for node in ast.parse(_text(_folder() / "utils.py")).body:
        if isinstance(node, ast.Assign) and any(getattr(each, "id", "") == "MODEL_REMAPPING" for each in node.targets):
            return {str(name): str(module) for name, module in ast.literal_eval(node.value).items()}
    return {}


def _source(config: dict[str, Any]) -> str:
    """The code of a model in mlx-lm, with that of the models that it wraps."""
    file = _file(config)
    if not file.is_file():
        return ""
    names = re.findall(r"^from \.(\w+) import|^from \. import (\w+)", _text(file), re.MULTILINE)
    wrapped = {file.with_name(f"{one or other}.py") for one, other in names}
    return "\n".join([_text(file), *(_text(path) for path in sorted(wrapped) if path.is_file())])


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _version() -> str:
    try:
        return version("mlx-lm")
    except PackageNotFoundError:
        return "here"
