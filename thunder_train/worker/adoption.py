"""An adapter that mlx-lm or PEFT wrote, as a training of ours would have left it.

Its files come from anyone: settings are read through a schema, weights as safetensors only, and each tensor must be one
of an adapter on this base, of its shape. Both compute y + scale x A B; PEFT keeps A and B transposed.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.nn as nn
import numpy as np

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, model_files, paths
from thunder_train.core.text import quoted
from thunder_train.worker import adapter, model
from thunder_train.worker.bootstrap import environment
from thunder_train.worker.model import Lora

IN_A_LAYER = re.compile(r"(?P<before>.*\blayers)\.(?P<number>\d{1,4})\.(?P<layer>.+)\.(?P<part>[^.]+)")
PEFT_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.default)?(\.weight)?"
)
PARTS = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}
OTHER_BASE = "give the base that it was trained on"
AFTER = -1
"""In place of a layer's number: behind all layers."""
SHOWN = 3
"""Tensors that an error names."""
Tensors = dict[str, "np.ndarray[Any, Any]"]


class Place(NamedTuple):
    """A tensor's layer of the model, its module inside that layer, and which part of the adapter it is.

    number: AFTER for the output layer.
    """

    number: int
    layer: str
    part: str


def adopt(source: Path, base: str, lock: str, target: Path) -> None:
    """Write the adapter in a folder to target/, and done.json. Raises ThunderError for one that does not fit the base.

    base: the model's folder or repository; lock: its model.lock.json.
    """
    network, _ = model.load(base, model.pinned_commit(lock), lazy=True)
    size, is_peft = model.parameters(network), (source / paths.PEFT[0]).is_file()
    lora, tensors = _of_peft(source, network) if is_peft else _of_mlx_lm(source, network)
    names = paths.PEFT if is_peft else paths.MLX_LM
    where = f"{source}/{names[1]}"
    raise_all([ThunderError(problem.what, where, OTHER_BASE) for problem in model.layer_problems(network, lora)])
    model.add_lora(network, lora, seed=0)
    shapes = {name: tuple(leaf.shape) for name, leaf in model.trainable(network).items()}
    whole = _completed(_renamed(tensors, shapes) if is_peft else tensors, shapes, lora, is_peft, f"{source}/{names[0]}")
    adapter.write_adapter(target, whole, lora, base)
    done = {
        "imported": {
            "form": "peft" if is_peft else "mlx-lm",
            "files": [{"path": f"{source}/{name}", "sha256": files.sha256(source / name)} for name in names],
            "lora": {"kind": lora.kind, "layers": lora.num_layers, **lora.parameters()},
        },
        "trainable_parameters": sum(tensor.size for tensor in whole.values()),
        "parameters": size,
        "losses": {"train": [], "valid": []},
        "rows": {},
        "tokens": {},
        "adapter": adapter.describe(target, whole),
        "environment": environment(),
    }
    adapter.write_done(target, done)


def _of_mlx_lm(source: Path, network: nn.Module) -> tuple[Lora, Tensors]:
    """mlx-lm reads 0 or -1 layers as all layers."""
    where = f"{source}/{paths.MLX_LM[1]}"
    _, config = model_files.read(source / paths.MLX_LM[1], model_files.AdapterConfig, where)
    if config.fine_tune_type not in ("lora", "dora"):
        what = f"is {quoted(config.fine_tune_type)}: no adapter, but weights of the base"
        raise ThunderError(what, f"{where}: fine_tune_type", "fuse it with mlx_lm.fuse and use that model as the base")
    given = config.lora_parameters
    layers = config.num_layers if config.num_layers > 0 else len(network.layers)
    keys = tuple(sorted(given.keys or ()))
    lora = Lora(layers, given.rank, given.scale, given.dropout, keys, config.fine_tune_type)
    return lora, adapter.read_tensors(source / paths.MLX_LM[0])


def _of_peft(source: Path, network: nn.Module) -> tuple[Lora, Tensors]:
    """The adapter on the last layers that has room for each of PEFT's tensors."""
    where = f"{source}/{paths.PEFT[1]}"
    _, config = model_files.read(source / paths.PEFT[1], model_files.PeftConfig, where)
    raise_all(
        [
            ThunderError("is not supported", f"{where}: {key}", "merge it with PEFT and use that model as base")
            for key in config.unsupported()
        ]
    )
    places: dict[Place, Any] = {}
    for name, tensor in adapter.read_tensors(source / paths.PEFT[0]).items():
        match = PEFT_NAME.fullmatch(name)
        place = _place(f"{match['module']}.{PARTS[match['part']]}") if match else None
        if place is None:
            what = f"has a tensor {quoted(name)}, which is no LoRA of a transformer layer"
            raise ThunderError(what, f"{source}/{paths.PEFT[0]}", "train it on linear layers of the layers alone")
        if place in places:
            what = f"has two tensors for {place.layer} of layer {place.number}"
            raise ThunderError(what, f"{source}/{paths.PEFT[0]}", "take out those of other parts, such as vision")
        places[place] = tensor.T if place.part != "m" else tensor.reshape(-1)
    if not places:
        raise ThunderError("holds no tensor", f"{source}/{paths.PEFT[0]}", "save the adapter again")
    numbers = [place.number for place in places if place.number != AFTER]
    layers = max(1, len(network.layers) - min(numbers)) if numbers else 1
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    keys = tuple(sorted({place.layer for place in places}))
    tensors = {_name(place): tensor for place, tensor in places.items()}
    return Lora(layers, config.r, scale, config.lora_dropout, keys, "dora" if config.use_dora else "lora"), tensors


def _renamed(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """The tensors under the names that this model gives them; one without a place in it keeps its own."""
    names = {_place(name): name for name in shapes}
    return {names.get(_place(name), name): tensor for name, tensor in tensors.items()}


def _place(name: str) -> Place | None:
    if match := IN_A_LAYER.fullmatch(name):
        return Place(int(match["number"]), match["layer"], match["part"])
    *_, layer, part = ("", *name.split("."))
    return Place(AFTER, layer, part) if layer == model.HEAD else None


def _name(place: Place) -> str:
    layer = place.layer if place.number == AFTER else f"layers.{place.number}.{place.layer}"
    return f"{layer}.{place.part}"


def _completed(
    tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], lora: Lora, is_peft: bool, where: str
) -> Tensors:
    """Every tensor of the adapter. A layer that PEFT left out gets LoRA of zeros, which does nothing."""
    problems = [
        f"{quoted(name)} belongs to no layer of the base"
        if name not in shapes
        else f"{quoted(name)} is {_by(tensor.shape)}, and the base needs {_by(shapes[name])}"
        for name, tensor in sorted(tensors.items())
        if name not in shapes or tensor.shape != shapes[name]
    ]
    absent = {name for name in shapes if name not in tensors}
    halves = {name for name in absent if not is_peft or lora.kind == "dora" or _other_half(name) not in absent}
    problems += [f"{quoted(name)} is missing" for name in sorted(halves)]
    if problems:
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        raise ThunderError(f"does not fit the base: {'; '.join(problems[:SHOWN])}{more}", where, OTHER_BASE)
    return {**tensors, **{name: np.zeros(shapes[name], np.float32) for name in absent}}


def _other_half(name: str) -> str:
    before, _, part = name.rpartition(".")
    return f"{before}.{'lora_b' if part == 'lora_a' else 'lora_a'}"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
