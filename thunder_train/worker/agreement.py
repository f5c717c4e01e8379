"""What all ranks must hold alike: the same task at the start, the same adapter on the way, what one of them knows."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.ranks import Ranks

DIGEST_BYTES = 32


def share(data: bytes | None, ranks: Ranks, holder: int = 0) -> bytes | None:
    """The holder's bytes on every rank; None when it has none. What the other ranks pass is not looked at."""
    if ranks.size == 1:
        return data
    length = -1 if data is None else len(data)
    length = int(np.array(ranks.sum(mx.array([length if ranks.rank == holder else 0], mx.int32)))[0])
    if length < 0:
        return None
    is_mine = ranks.rank == holder and data is not None
    mine = np.frombuffer(data or b"", np.uint8) if is_mine else np.zeros(length, np.uint8)
    return np.array(ranks.sum(mx.array(mine.astype(np.int32)))).astype(np.uint8).tobytes()


def gather(data: bytes, ranks: Ranks) -> list[bytes]:
    """The bytes of all ranks, in their order, on every rank."""
    if ranks.size == 1:
        return [data]
    lengths = np.zeros(ranks.size, np.int32)
    lengths[ranks.rank] = len(data)
    ends = np.cumsum(np.array(ranks.sum(mx.array(lengths)))).tolist()
    starts = [0, *ends[:-1]]
    joined = np.zeros(ends[-1], np.int32)
    joined[starts[ranks.rank] : ends[ranks.rank]] = np.frombuffer(data, np.uint8)
    joined = np.array(ranks.sum(mx.array(joined))).astype(np.uint8)
    return [joined[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]


def check_identity(identity: Mapping[str, str], ranks: Ranks, what: str = "train") -> None:
    """Raise ThunderError on each rank that is not about to do what rank 0 does, naming what differs."""
    told = share(json.dumps(dict(identity), sort_keys=True).encode(), ranks)
    first = json.loads(told or b"{}")
    differing = sorted(key for key in first.keys() | identity.keys() if first.get(key) != identity.get(key))
    if differing:
        facts = "; ".join(f"{key}: {first.get(key)} there, {identity.get(key)} here" for key in differing)
        raise ThunderError(
            f"is not about to {what} what rank 0 {what}s: {facts}",
            where=f"rank {ranks.rank}",
            mend="bring project, data and model of all hosts to the same state",
        )


def check_parity(tensors: Mapping[str, np.ndarray[Any, Any]], ranks: Ranks, step: int) -> None:
    """Raise ThunderError when the ranks' adapters are no longer the same bits."""
    if ranks.size == 1:
        return
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    table = np.zeros((ranks.size, DIGEST_BYTES), np.int32)
    table[ranks.rank] = np.frombuffer(digest.digest(), np.uint8)
    table = np.array(ranks.sum(mx.array(table)))
    astray = [rank for rank in range(ranks.size) if (table[rank] != table[0]).any()]
    if astray:
        raise ThunderError(
            f"the adapters of ranks {astray} are not that of rank 0",
            where=f"step {step}",
            mend="run the preflight; a rank computes or receives other numbers",
        )


def identity(
    flags: Mapping[str, Any], paths: Mapping[str, Path], model: str, versions: Mapping[str, str]
) -> dict[str, str]:
    """A training in words: what must be the same for two runs to be one. paths: files named by their content."""
    return {
        **{f"--{name.replace('_', '-')}": str(value) for name, value in flags.items()},
        **{name: files.sha256(path)[:16] for name, path in paths.items()},
        "model": model,
        **versions,
    }
