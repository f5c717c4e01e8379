"""Writes a training's adapter in the form that mlx-lm loads: adapters.safetensors, adapter_config.json and done.json.

Only LoRA tensors, the same bytes for the same tensors, each file whole or not at all; on rank 0 alone. It also reads
the tensors of an adapter's file. saved_adapter.py puts an adapter on its model to use it: it is a module of its own
because that is no part of the code that decides a training, whose hash says when to train again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors.numpy import save as safetensors_bytes

from thunder_train import ThunderError
from thunder_train.core import files, model_files
from thunder_train.core.text import quoted
from thunder_train.worker.model import Lora

ADAPTER = "adapters.safetensors"
CONFIG = "adapter_config.json"
DONE = "done.json"

Tensors = Mapping[str, np.ndarray[Any, Any]]


def remove_old(folder: Path) -> None:
    """Remove an earlier run's adapter, so that it cannot be taken for this run's."""
    for name in (DONE, ADAPTER):
        (folder / name).unlink(missing_ok=True)


def write_adapter(folder: Path, tensors: Tensors, lora: Lora, base: str) -> None:
    """Write adapter and config. Raises ThunderError, and writes nothing, when a tensor is not finite.

    base: the model's folder or repository.
    """
    if broken := [name for name, tensor in sorted(tensors.items()) if not np.isfinite(tensor).all()]:
        raise ThunderError(
            f"{len(broken)} adapter tensors are not finite, first {broken[0]}",
            where=str(folder),
            hint="lower the learning rate",
        )
    files.write_json(folder / CONFIG, adapter_config(lora, base))
    files.write_bytes(folder / ADAPTER, canonical_bytes(tensors))


def adapter_config(lora: Lora, base: str) -> dict[str, Any]:
    """What mlx-lm needs to put the adapter on the model again, and the base's name as mlx-lm's own trainer keeps it."""
    return {
        "model": files.portable(base),
        "fine_tune_type": lora.kind,
        "num_layers": lora.num_layers,
        "lora_parameters": lora.parameters(),
    }


def canonical_bytes(tensors: Tensors) -> bytes:
    """safetensors bytes, the same for the same tensors. (mlx's own writer orders tensors by a C++ hash map.)"""
    return bytes(safetensors_bytes({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}))


def read_tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a safetensors file as float32, which holds each float16 and bfloat16. Raises ThunderError."""
    model_files.check_weights(path, str(path))
    try:
        loaded: Any = mx.load(str(path))
    except RuntimeError as error:
        raise ThunderError(f"cannot be read: {error}", str(path), "copy it again") from error
    if broken := [name for name, tensor in sorted(loaded.items()) if not mx.issubdtype(tensor.dtype, mx.floating)]:
        raise ThunderError(f"{quoted(broken[0])} holds no fractions", str(path), "save the adapter unquantised")
    return {name: np.array(tensor.astype(mx.float32)) for name, tensor in loaded.items()}


def tensor_digest(tensors: Tensors) -> str:
    """Hex sha256 over sorted name, dtype, shape and bytes: of the content of a tensor file, not of its layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, tensor.dtype.str, list(tensor.shape)]).encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def describe(folder: Path, tensors: Tensors) -> dict[str, Any]:
    """The adapter as done.json names it: file hash, tensor digest, bytes."""
    path = folder / ADAPTER
    return {"sha256": files.sha256(path), "tensors": tensor_digest(tensors), "bytes": path.stat().st_size}


def write_done(folder: Path, done: dict[str, Any]) -> None:
    """Write done.json, the proof that the training is complete. It is the last file of a training."""
    files.write_json(folder / DONE, {"schema": "thunder.done/1", **done})
