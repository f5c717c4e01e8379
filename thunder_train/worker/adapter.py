"""The adapter on disk, in the form mlx-lm loads: LoRA leaves only, canonical bytes, whole files or none.

Writes adapters.safetensors, adapter_config.json and done.json, on rank 0 alone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.model import Lora

ADAPTER = "adapters.safetensors"
CONFIG = "adapter_config.json"
DONE = "done.json"

Tensors = Mapping[str, np.ndarray[Any, Any]]


def begin(folder: Path) -> None:
    """Remove what an earlier run left: its end must not be taken for this one's."""
    for name in (DONE, ADAPTER):
        (folder / name).unlink(missing_ok=True)


def write_adapter(folder: Path, tensors: Tensors, lora: Lora) -> None:
    """Write an adapter as mlx-lm loads it. Raises ThunderError when a tensor is not finite."""
    if broken := [name for name, tensor in sorted(tensors.items()) if not np.isfinite(tensor).all()]:
        raise ThunderError(
            f"{len(broken)} adapter tensors are not finite, first {broken[0]}",
            where=str(folder),
            hint="lower the learning rate",
        )
    files.write_json(folder / CONFIG, adapter_config(lora))
    files.write_bytes(folder / ADAPTER, canonical(tensors))


def adapter_config(lora: Lora) -> dict[str, Any]:
    """What mlx-lm needs to put the adapter on the model again."""
    return {"fine_tune_type": lora.kind, "num_layers": lora.num_layers, "lora_parameters": lora.parameters()}


def canonical(tensors: Tensors) -> bytes:
    """safetensors bytes, the same for the same tensors: mlx's own writer orders them by a C++ hash map."""
    return bytes(safetensors_bytes({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}))


def tensor_digest(tensors: Tensors) -> str:
    """Hex sha256 over sorted name, dtype, shape and bytes: what a tensor file holds, whatever its layout."""
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
    """Write done.json, the proof that training came to its end. Nothing is written after it."""
    files.write_json(folder / DONE, {"schema": "thunder.done/1", **done})
