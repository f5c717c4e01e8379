"""Checkpoints of a training: everything that the next step depends on, in one file per step.

Writes and reads CHECKPOINT_PATH/{step:07d}.safetensors: the adapter, the optimizer's whole state and the best adapter
so far as tensors, everything else as JSON in the header, with a digest over all of it. The order of the rows and the
dropout are functions of seed and step, so a checkpoint needs no random state and no data cursor.
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
SCHEMA = "thunder.checkpoint/2"
STEPS = "--num-iters"
"""Of an identity: the number of steps."""


@dataclass
class Progress:
    """Where a training stands after `step` steps. Losses in nats per target."""

    step: int = 0
    skipped: int = 0
    """Steps without an update, because the gradient was not finite or had no target."""
    skipped_in_a_row: int = 0
    is_base_validated: bool = False
    """Whether the validation at step 0 has been made."""
    skipped_validations: int = 0
    """Validations whose loss was not finite."""
    skipped_validations_in_a_row: int = 0
    best_step: int = 0
    best_loss: float | None = None
    without_gain: int = 0
    """Validations since the best one."""
    window_loss: float = 0.0
    """Summed loss since the last training line, in nats."""
    window_tokens: int = 0
    """Targets since the last training line."""
    losses: dict[str, list[list[float]]] = field(default_factory=lambda: {"train": [], "valid": []})
    """[step, loss] of each training line and each validation; that of the base is at step 0."""
    metrics: list[str] = field(default_factory=list)
    """Lines of metrics.jsonl so far."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training needs to resume. Tensors are whole and by name, also with strategy "tensor"."""

    identity: dict[str, str]
    """What decides the training's numbers: flags, data, model and versions, each as text."""
    progress: Progress
    adapter: Tensors
    optimizer: Tensors
    """All that the optimizer remembers, its counters among it, by the names that mlx gives them."""
    best: Tensors
    """The adapter of progress.best_step; empty before the first validation with a finite loss."""

    @property
    def steps(self) -> int:
        """Number of steps of the training that left it."""
        return int(self.identity[STEPS])


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write a checkpoint, whole or not at all, and delete all but the last `keep`."""
    files.write_bytes(folder / f"{checkpoint.progress.step:07d}.safetensors", encode(checkpoint))
    for old in _paths(folder)[:-keep]:
        old.unlink(missing_ok=True)


def latest(folder: Path) -> bytes | None:
    """The newest undamaged checkpoint, or None. Damaged ones are skipped with a warning."""
    for path in reversed(_paths(folder)):
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
    parts = {"adapter": checkpoint.adapter, "optimizer": checkpoint.optimizer, "best": checkpoint.best}
    tensors = {
        f"{part}.{name}": np.asarray(tensor, order="C")  # not ascontiguousarray: a counter has no dimension
        for part, named in parts.items()
        for name, tensor in sorted(named.items())
    }
    state = {"schema": SCHEMA, "identity": checkpoint.identity, "progress": asdict(checkpoint.progress)}
    text = json.dumps(state, sort_keys=True)
    # A single metadata entry: safetensors writes several in the order of a hash map, which differs in each process.
    header = json.dumps({"digest": _digest(tensors, text), "state": text})
    return bytes(save_tensors(tensors, metadata={"thunder": header}))


def decode(data: bytes) -> Checkpoint:
    """The checkpoint in the bytes. Raises ThunderError when they are damaged or of another schema."""
    try:
        # A safetensors file begins with the length of its JSON header; the numpy reader does not return the metadata.
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["thunder"])
        tensors = load_tensors(data)
        # The format has no checksum of its own, and a flipped bit in a weight would go unnoticed.
        if header["digest"] != _digest(tensors, header["state"]):
            raise ThunderError("is damaged")
        state = json.loads(header["state"])
        progress = Progress(**state["progress"])
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ThunderError(f"is damaged ({type(error).__name__})") from error
    if state["schema"] != SCHEMA:
        raise ThunderError(f"has the schema {state['schema']!r}, but this program reads {SCHEMA!r}")
    part = {name: _part(tensors, name) for name in ("adapter", "optimizer", "best")}
    return Checkpoint(state["identity"], progress, **part)


def check_identity(saved: Mapping[str, str], mine: Mapping[str, str], folder: str | Path) -> None:
    """Raise ThunderError, naming each differing key, when a checkpoint is of another training.

    The number of steps alone may differ: `not_extended` says whether that matters.
    """
    differing = sorted(key for key in saved.keys() | mine.keys() if saved.get(key) != mine.get(key))
    if differing and differing != [STEPS]:
        facts = "; ".join(f"{key} was {saved.get(key)}, is {mine.get(key)}" for key in differing)
        raise ThunderError(
            f"holds a checkpoint of another training: {facts}",
            where=str(folder),
            hint="delete the folder to start from the beginning, or give another --checkpoint-path",
        )


def not_extended(last: Checkpoint, steps: int, schedule: str, intervals: Mapping[str, int]) -> str:
    """Why a training of `steps` does not go on from a checkpoint of another number of steps; "" if it does.

    It does where it would have come to the same checkpoint by itself. intervals: {flag: steps between two events that
    the last step always has}; an event that the longer training would not have there makes them two.
    """
    ended = last.steps
    if ended == steps:
        return ""
    if ended > steps:
        return f"it is of {ended} steps, and these are {steps}"
    if schedule != "constant":
        return f"the number of steps is part of each learning rate with --schedule {schedule}"
    uneven = [f"{flag} {every}" for flag, every in intervals.items() if ended % every]
    if last.progress.step == ended and uneven:
        return f"the {ended} steps of then are no multiple of {' and of '.join(uneven)}"
    return ""


def remove(folder: Path) -> None:
    """Remove all checkpoints of a folder."""
    for path in _paths(folder):
        path.unlink(missing_ok=True)


def _digest(tensors: Tensors, text: str) -> str:
    return files.digest([tensor_digest(tensors), text])


def _part(tensors: Tensors, name: str) -> Tensors:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdigit() and path.is_file())
