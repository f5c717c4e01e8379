"""An adapter in the forms that other programs load: fused into its base, or as PEFT keeps adapters.

Reads runs/<recipe>/adapter/ and the base model; writes runs/<recipe>/fused/ and runs/<recipe>/peft/, each whole or not
at all, with the model card that the adapter has.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.project import Recipe
from thunder_train.core import files, paths, process
from thunder_train.core.text import quoted
from thunder_train.launch import fit, scripts

LAUNCHER_FLAGS = (*fit.LAUNCHER_FLAGS, "--module", "--weights", "--losses", "--predictions", "--partial")
"""Flags of evaluate.sh that a program of one process does not take, or gets from here."""
LEAST_KEPT = 0.25
"""A folder that keeps a smaller share of the adapter's effect is refused: it would answer as the base does."""
LORA_NAME = re.compile(r"(?P<module>.+)\.(?P<part>lora_a|lora_b|m)")
LAYER = re.compile(r"(?P<before>.*\blayers)\.(?P<number>\d+)\.(?P<leaf>.+)")
LINEAR = {
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj"),
    *(
        "fc1",
        "fc2",
        "dense",
        "out_proj",
        "in_proj",
        "c_attn",
        "c_proj",
        "c_fc",
        "wq",
        "wk",
        "wv",
        "wo",
        "w1",
        "w2",
        "w3",
    ),
    "lm_head",
}
"""Linear layers that mlx-lm names as transformers does."""


def fuse(recipe: Recipe, root: Path, dequantize: bool) -> dict[str, Any]:
    """Write runs/<recipe>/fused/; what of the adapter's effect is left in it. Raises ThunderError if too little is."""
    staged, target = root / paths.STATE / "fused" / recipe.name, root / paths.fused(recipe.name)
    _check_space(recipe, root, 4 if dequantize else 1)
    shutil.rmtree(staged, ignore_errors=True)
    given = {name: value for name, value in scripts.evaluate_flags(recipe) if name not in LAUNCHER_FLAGS}
    facts, unused = staged / "fused.json", staged / "unused"
    given |= {
        "--fused": staged / "model",
        "--losses": facts,
        "--predictions": unused,
        "--dequantize": str(dequantize).lower(),
    }
    argv = [sys.executable, "-m", "thunder_train.worker.fuse", *(str(part) for pair in given.items() for part in pair)]
    try:
        process.command(argv, f"fuse:{recipe.name}", "read the lines above")
        measured: dict[str, Any] = files.read_json(facts)
        if measured["kept"] < LEAST_KEPT:
            what = f"the folder keeps {measured['kept']:.0%} of the adapter's effect: its packed weights are too coarse"
            raise ThunderError(what, f"fuse:{recipe.name}", "add --dequantize, or use base and adapter as they are")
        _add_card(recipe, root, staged / "model", "fused")
        _replace(staged / "model", target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return {"schema": "thunder.fused/1", "folder": str(target), **measured}


def export(recipe: Recipe, root: Path, base: str) -> dict[str, Any]:
    """Write runs/<recipe>/peft/, which PEFT loads onto the base as transformers has it. base: its name for PEFT."""
    adapter = root / paths.run(recipe.name) / "adapter"
    from safetensors.numpy import load_file, save_file  # late: numpy takes a tenth of a second

    config = files.read_json(adapter / "adapter_config.json", hint=f"run `./doit train:{recipe.name}`")
    tensors = load_file(adapter / "adapters.safetensors")
    modules = sorted({_module_of(name) for name in tensors})
    raise_all([_no_place(module) for module in modules if module.rpartition(".")[2] not in LINEAR][:5])
    staged, target = root / paths.STATE / "peft" / recipe.name, root / paths.peft(recipe.name)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        save_file(peft_tensors(tensors), staged / "adapter_model.safetensors", metadata={"format": "pt"})
        files.write_json(staged / "adapter_config.json", peft_config(config, modules, base or base_name(recipe)))
        _add_card(recipe, root, staged, "peft")
        _replace(staged, target)
    except OSError as error:
        raise ThunderError(f"cannot be written: {error.strerror}", str(target), "free or unlock it") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return {
        "schema": "thunder.exported/1",
        "folder": str(target),
        "modules": len(modules),
        "base": base or base_name(recipe),
    }


def peft_tensors(tensors: Any) -> dict[str, Any]:
    """mlx-lm computes y + scale (x A) B with A (inputs, rank) and B (rank, outputs); PEFT keeps both transposed."""
    import numpy as np

    renamed = {}
    for name, tensor in tensors.items():
        match = LORA_NAME.fullmatch(name)
        module, part = match["module"], match["part"]  # type: ignore[index]  # _module_of has matched it
        ending = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}[part]
        renamed[f"base_model.model.{module}.{ending}"] = np.ascontiguousarray(tensor.T if part != "m" else tensor)
    return renamed


def peft_config(config: dict[str, Any], modules: list[str], base: str) -> dict[str, Any]:
    """adapter_config.json of PEFT. Its scale is lora_alpha / r, so alpha is scale x rank."""
    lora = config["lora_parameters"]
    rank, scale = int(lora["rank"]), float(lora["scale"])
    layers = [LAYER.fullmatch(module) for module in modules]
    numbers = sorted({int(match["number"]) for match in layers if match})
    leaves = sorted({match["leaf"] for match in layers if match})
    is_regular = all(layers) and len(modules) == len(numbers) * len(leaves)
    targets: dict[str, Any] = {"target_modules": modules}
    if is_regular:  # as a person would write it
        targets = {"target_modules": leaves, "layers_to_transform": numbers, "layers_pattern": "layers"}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank * scale,
        "lora_dropout": float(lora.get("dropout", 0.0)),
        "use_dora": config.get("fine_tune_type") == "dora",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        **targets,
    }


def base_name(recipe: Recipe) -> str:
    """How others may know the base: its repository, else the name of its table."""
    return recipe.model.repo or recipe.model.name


def _module_of(name: str) -> str:
    match = LORA_NAME.fullmatch(name)
    if match is None:
        raise ThunderError(f"has a tensor {quoted(name)}, which is no LoRA", "adapters.safetensors", "train it again")
    return match["module"]


def _no_place(module: str) -> ThunderError:
    what = f"adapts {module}, for which transformers has no linear layer of that name"
    return ThunderError(what, "export", "fuse it instead, or train with lora_keys of attention and MLP alone")


def _check_space(recipe: Recipe, root: Path, factor: int) -> None:
    lock = files.read_json(root / paths.model_lock(recipe.model.name), hint=f"run `./doit model:{recipe.model.name}`")
    needed = factor * sum(each["bytes"] for each in lock["files"])
    free = shutil.disk_usage(root).free
    if needed > free:
        what = f"needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise ThunderError(what, f"fuse:{recipe.name}", "free some space")


def _add_card(recipe: Recipe, root: Path, folder: Path, kind: str) -> None:
    """The card of the adapter, if its run has been evaluated, with how to load this folder."""
    from thunder_train.report import model_card  # late: it needs jinja2

    files.write_text(folder / "README.md", model_card.card(recipe, root, kind))


def _replace(made: Path, target: Path) -> None:
    """Give a folder its place; one that is there goes first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.remove(target)
    os.replace(made, target)
