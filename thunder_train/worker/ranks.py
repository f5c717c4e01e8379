"""This process among the others: its rank, their number, and the sum over all of them.

What all ranks must hold alike: the same task at the start, the same adapter on the way, what one of them knows.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.errors import RanksLostError

if TYPE_CHECKING:
    from thunder_train.worker.watchdog import Watchdog

import hashlib
import json
from collections.abc import Mapping

import numpy as np

BACKENDS = {"ring": "ring", "jaccl": "jaccl", "jaccl-ring": "jaccl", "mpi": "mpi", "nccl": "nccl"}
"""Backend of the hostfile -> name that mx.distributed.init knows."""


@dataclass(frozen=True)
class Ranks:
    """rank: 0 .. size - 1. group: MLX's group, None for a single process. watchdog: told when this rank waits.

    weights: the speed of each rank, for work that is dealt; empty where all are alike.
    """

    rank: int
    size: int
    group: Any = None
    watchdog: "Watchdog | None" = None
    weights: tuple[float, ...] = ()

    def sum(self, values: mx.array) -> mx.array:
        """The element-wise sum over all ranks, evaluated. Raises RanksLostError when a rank is lost.

        On the CPU stream: on a GPU stream a Mac that waits 5 s for its peer is killed by Metal's watchdog.
        """
        mx.eval(values)
        if self.group is None:
            return values
        try:
            with self.watchdog.waiting() if self.watchdog else contextlib.nullcontext():
                total = mx.distributed.all_sum(values, group=self.group, stream=mx.cpu)
                mx.eval(total)
        except RuntimeError as error:
            raise _lost(self.rank, error) from error
        return total


@contextlib.contextmanager
def losses_told(ranks: Ranks) -> Iterator[None]:
    """For computing that communicates inside, as a split model's: a lost rank is told as in Ranks.sum."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1:
            raise
        raise _lost(ranks.rank, error) from error


def _lost(rank: int, error: Exception) -> RanksLostError:
    return RanksLostError(f"another rank was lost: {error}", where=f"rank {rank}", hint="read the other ranks' logs")


def is_first_on_host(hostfile: Path | None, rank: int) -> bool:
    """Whether no rank before this one runs on the same host, by the hostfile's names: one keeps files for all there."""
    if hostfile is None:
        return True
    names = [host["ssh"] for host in files.read_json(hostfile)["hosts"]]
    return names.index(names[rank]) == rank


def join(hostfile: Path | None, watchdog: "Watchdog | None" = None) -> Ranks:
    """Join the ranks that the hostfile lists, or be alone without one. Raises ThunderError on any other number."""
    if hostfile is None:
        if "MLX_RANK" in os.environ:
            raise ThunderError(
                "this is one of several ranks, but it was not told how many",
                where="--hostfile",
                hint="pass the hostfile",
            )
        return Ranks(rank=0, size=1)
    description = files.read_json(hostfile, hint="run `./doit hostfile`")
    try:
        backend, expected = description["backend"], len(description["hosts"])
        name = BACKENDS[backend]
    except (KeyError, TypeError) as error:
        raise ThunderError(f"has no usable {error}", where=str(hostfile), hint="run `./doit hostfile`") from error
    if expected == 1:
        return Ranks(rank=0, size=1)
    with watchdog.joining() if watchdog else contextlib.nullcontext():
        group = _init(backend, name)
    return _check(group, expected, hostfile, watchdog)


def weighted(ranks: Ranks, weights: tuple[float, ...]) -> Ranks:
    """The ranks with a speed for each. Raises ThunderError for any other number of them but none."""
    if len(weights) not in (0, ranks.size):
        what = f"gives {len(weights)} numbers for {ranks.size} ranks"
        raise ThunderError(what, where="--weights", hint="give one for each rank, or none")
    return replace(ranks, weights=weights)


def _init(backend: str, name: str) -> Any:
    try:
        return mx.distributed.init(strict=True, backend=name)
    except (RuntimeError, ValueError) as error:
        raise RanksLostError(
            f"the {backend} ranks did not find each other: {error}",
            where="mx.distributed.init",
            hint="start the ranks with `python -m thunder_train.launch`, and check addresses and cables",
        ) from error


def _check(group: Any, expected: int, hostfile: Path, watchdog: "Watchdog | None") -> Ranks:
    if group.size() != expected:
        raise ThunderError(
            f"{group.size()} ranks run, but the file lists {expected}",
            where=str(hostfile),
            hint="start one process per host of the file",
        )
    return Ranks(rank=group.rank(), size=group.size(), group=group, watchdog=watchdog)


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
            hint="bring project, data and model of all hosts to the same state",
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
            hint="run the preflight; a rank computes or receives other numbers",
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
