"""The adapter that a training begins with: read, compared with the one that is to be trained, and put on the model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, model_files
from thunder_train.core.paths import MLX_LM
from thunder_train.core.text import quoted
from thunder_train.worker.adapter import read_tensors
from thunder_train.worker.model import Lora, trainable

SHOWN = 3
"""Tensors that an error names."""


@dataclass(frozen=True)
class Start:
    """An adapter in mlx-lm's form. base: the model that its settings name; "" if they name none."""

    folder: str
    base: str
    config: model_files.AdapterConfig
    tensors: dict[str, "np.ndarray[Any, Any]"]


def read(folder: str) -> Start:
    """The adapter in a folder. Raises ThunderError for one that is missing, damaged or not finite."""
    weights, settings = (Path(folder) / name for name in MLX_LM)
    for path in (weights, settings):
        files.require(path, hint="correct --start-from")
    table, config = model_files.read(settings, model_files.AdapterConfig, str(settings))
    tensors = read_tensors(weights)
    if broken := sorted(name for name, tensor in tensors.items() if not np.isfinite(tensor).all()):
        what = f"{len(broken)} tensors are not finite, first {quoted(broken[0])}"
        raise ThunderError(what, str(weights), "begin with another adapter")
    return Start(folder, str(table.get("model") or ""), config, tensors)


def put_on(network: nn.Module, start: Start, lora: Lora, base: str) -> None:
    """Give the model's adapter the weights of the start. Raises ThunderError with all that does not fit."""
    raise_all(problems(network, start, lora, base))
    network.update(tree_unflatten([(name, mx.array(tensor)) for name, tensor in start.tensors.items()]))


def problems(network: nn.Module, start: Start, lora: Lora, base: str) -> list[ThunderError]:
    """Each setting in which the start is another adapter than the model's; else each tensor. Reads shapes only.

    base: the model's folder or repository.
    """
    given, config, whose = start.config.lora_parameters, start.config, f"the adapter in {start.folder}"
    layers = config.num_layers if config.num_layers > 0 else len(network.layers)
    values = {
        "--fine-tune-type": (lora.kind, config.fine_tune_type),
        "--num-layers": (lora.num_layers, layers),
        "--lora-rank": (lora.rank, given.rank),
        "--lora-scale": (lora.scale, given.scale),
    }
    if lora.keys and given.keys:  # without keys an adapter is on every layer, which its tensors show
        values["--lora-keys"] = (",".join(sorted(lora.keys)), ",".join(sorted(given.keys)))
    if start.base:
        values["--model"] = (files.portable(base), start.base)
    differing = [
        ThunderError(f"is {quoted(mine)}, and {whose} has {quoted(theirs)}", flag, f"use {quoted(theirs)}")
        for flag, (mine, theirs) in values.items()
        if mine != theirs
    ]
    return differing or _tensor_problems(network, start)


def _tensor_problems(network: nn.Module, start: Start) -> list[ThunderError]:
    shapes = {name: tuple(leaf.shape) for name, leaf in trainable(network).items()}
    own = {name: tensor.shape for name, tensor in start.tensors.items()}
    odd = sorted(name for name in shapes.keys() | own.keys() if shapes.get(name) != own.get(name))
    if not odd:
        return []
    facts = [f"{quoted(name)} is {_by(own.get(name))} there and {_by(shapes.get(name))} here" for name in odd[:SHOWN]]
    more = f" (and {len(odd) - SHOWN} more)" if len(odd) > SHOWN else ""
    what = f"does not fit the base and the layers: {'; '.join(facts)}{more}"
    return [ThunderError(what, f"{start.folder}/{MLX_LM[0]}", "begin with an adapter of this base and these layers")]


def _by(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
