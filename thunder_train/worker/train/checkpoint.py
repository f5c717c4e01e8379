"""Checkpoints of a training: everything that the next step depends on, in one file per step, and back.

Writes CHECKPOINT_PATH/{step:07d}.safetensors: adapter, both moments of AdamW and the best adapter so far as tensors,
the rest as JSON in the header, with a digest over all of it. Row order and dropout are functions of seed and step, so
no random state and no data cursor is needed beyond the step.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.adapter import tensor_digest

Tensors = dict[str, np.ndarray[Any, Any]]
SCHEMA = "thunder.checkpoint/1"


@dataclass
class Progress:
    """Where a training stands after `step` steps. Losses in nats per target token."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_step: int = 0
    best_loss: float | None = None
    without_gain: int = 0
    """Validations since the best one."""
    window_loss: float = 0.0
    """Summed loss since the last training line, and its targets."""
    window_tokens: int = 0
    losses: dict[str, list[list[float]]] = field(default_factory=lambda: {"train": [], "valid": []})
    metrics: list[str] = field(default_factory=list)
    """Lines of metrics.jsonl so far."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on. Tensors are whole and by name, as on a single machine."""

    identity: dict[str, str]
    """What the training is: flags, data, model and versions, each as text."""
    progress: Progress
    adapter: Tensors
    first_moment: Tensors
    second_moment: Tensors
    best: Tensors
    """The adapter of progress.best_step; empty before the first validation."""


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write a checkpoint, whole or not at all, and drop all but the last `keep`."""
    files.write_bytes(folder / f"{checkpoint.progress.step:07d}.safetensors", encode(checkpoint))
    for old in _found(folder)[:-keep]:
        old.unlink(missing_ok=True)


def latest(folder: Path) -> bytes | None:
    """The newest checkpoint that is whole; damaged ones are passed over with a warning. None when there is none."""
    for path in reversed(_found(folder)):
        data = path.read_bytes()
        try:
            decode(data)
        except ThunderError as error:
            print(f"warning: {path}: {error}; the one before it is used", file=sys.stderr, flush=True)
        else:
            return data
    return None


def encode(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as safetensors bytes, the same for the same content."""
    parts = {"adapter": checkpoint.adapter, "first": checkpoint.first_moment}
    parts |= {"second": checkpoint.second_moment, "best": checkpoint.best}
    tensors = {
        f"{part}.{name}": np.ascontiguousarray(tensor)
        for part, named in parts.items()
        for name, tensor in sorted(named.items())
    }
    state = {"schema": SCHEMA, "identity": checkpoint.identity, "progress": asdict(checkpoint.progress)}
    text = json.dumps(state, sort_keys=True)
    # One entry: the library writes several in an order of its own, another each time.
    header = json.dumps({"digest": _digest(tensors, text), "state": text})
    return bytes(save_tensors(tensors, metadata={"thunder": header}))


def decode(data: bytes) -> Checkpoint:
    """The checkpoint in the bytes. Raises ThunderError when they are not whole."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["thunder"])
        tensors = load_tensors(data)
        if header["digest"] != _digest(tensors, header["state"]):
            raise ThunderError("is damaged")
        state = json.loads(header["state"])
        progress = Progress(**state["progress"])
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ThunderError(f"is damaged ({type(error).__name__})") from error
    if state["schema"] != SCHEMA:
        raise ThunderError(f"has the form {state['schema']!r}, and this program reads {SCHEMA!r}")
    part = {name: _part(tensors, name) for name in ("adapter", "first", "second", "best")}
    return Checkpoint(state["identity"], progress, part["adapter"], part["first"], part["second"], part["best"])


def check_identity(found: Mapping[str, str], mine: Mapping[str, str], folder: str | Path) -> None:
    """Raise ThunderError, naming each key, when a checkpoint is of another training."""
    differing = sorted(key for key in found.keys() | mine.keys() if found.get(key) != mine.get(key))
    if differing:
        facts = "; ".join(f"{key} was {found.get(key)}, is {mine.get(key)}" for key in differing)
        raise ThunderError(
            f"holds a checkpoint of another training: {facts}",
            where=str(folder),
            hint="delete the folder to begin anew, or give another --checkpoint-path",
        )


def _digest(tensors: Tensors, text: str) -> str:
    return files.digest([tensor_digest(tensors), text])


def _part(tensors: Tensors, name: str) -> Tensors:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdigit())
