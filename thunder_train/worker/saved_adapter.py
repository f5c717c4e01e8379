"""Reads the adapter that a training wrote: checks it, copies it to every rank and puts it on its model.

adapter.py writes it. The two are apart because loading is no part of the code that decides a training.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.utils import load_adapters

from thunder_train import ThunderError
from thunder_train.core import files, model_files
from thunder_train.worker.ranks import Ranks, broadcast

NAMES = ("adapters.safetensors", "adapter_config.json")
HINT = "run `./doit train`"


@contextlib.contextmanager
def on_every_rank(folder: Path, ranks: Ranks) -> Iterator[Path]:
    """Yields a folder with rank 0's adapter, on every rank: a training leaves its adapter on the first host only.

    folder: of the adapter on rank 0's host. Raises ThunderError as `check` does.
    """
    if ranks.rank == 0:
        check(folder)
    with tempfile.TemporaryDirectory(prefix="thunder-") as copy:
        for name in NAMES:
            data = broadcast((folder / name).read_bytes() if ranks.rank == 0 else None, ranks)
            if ranks.rank != 0:
                (Path(copy) / name).write_bytes(data or b"")
        yield folder if ranks.rank == 0 else Path(copy)


def check(folder: Path) -> None:
    """Raise ThunderError for an adapter that is missing, unreadable or not finite."""
    for name in NAMES:
        files.require(folder / name, hint=HINT)
    path = folder / NAMES[0]
    model_files.check_weights(path, str(path))
    model_files.read(folder / NAMES[1], model_files.AdapterConfig, str(folder / NAMES[1]))
    try:
        tensors: Any = mx.load(str(path))
    except RuntimeError as error:
        raise ThunderError(f"cannot be read: {error}", where=str(path), hint=HINT) from error
    broken = sorted(name for name, tensor in tensors.items() if not mx.isfinite(tensor).all().item())
    if broken:
        fact = f"{len(broken)} tensors are not finite, first {broken[0]}"
        raise ThunderError(fact, where=str(path), hint="train again with a lower learning rate")


def put_on(network: nn.Module, folder: Path) -> None:
    """Put the adapter on the model. Raises ThunderError if it was trained on another model."""
    try:
        load_adapters(network, str(folder))
    except (ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise ThunderError(f"does not fit the model: {error}", where=str(folder), hint=HINT) from error
