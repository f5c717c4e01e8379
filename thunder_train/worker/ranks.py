"""The ranks of a run and their collectives: sum, broadcast, all_gather, and checks that all ranks agree.

Every collective is an all-reduce, the one operation that all of MLX's backends have and that training needs anyway.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from thunder_train import ThunderError
from thunder_train.core import files, hostfiles, privacy
from thunder_train.worker.errors import RanksLostError

if TYPE_CHECKING:  # not at run time: the watchdog cannot change a number, so it is kept out of the training's code hash
    from thunder_train.worker.watchdog import Watchdog

BACKENDS = {"ring": "ring", "jaccl": "jaccl", "jaccl-ring": "jaccl", "mpi": "mpi", "nccl": "nccl"}
"""Backend of the hostfile -> name that mx.distributed.init takes."""
DIGEST_BYTES = 32
"""Of a sha256."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank, from 0, among `size` ranks.

    group: MLX's group, None for a single process. watchdog: is informed while this rank waits for others. weights:
    relative speed of each rank, for dealing work; empty: all equal.
    """

    rank: int
    size: int
    group: Any = None
    watchdog: "Watchdog | None" = None
    weights: tuple[float, ...] = ()

    def sum(self, values: mx.array) -> mx.array:
        """The element-wise sum over all ranks, evaluated, with the same bits on each. Raises RanksLostError."""
        mx.eval(values)
        if self.group is None:
            return values
        try:
            with self.watchdog.waiting() if self.watchdog else contextlib.nullcontext():
                # On the CPU stream, and evaluated here: a GPU command that waits some 5 s for another Mac is killed by
                # Metal's own watchdog (mlx-examples#1185, mlx#4475).
                total = mx.distributed.all_sum(values, group=self.group, stream=mx.cpu)
                mx.eval(total)
        except RuntimeError as error:
            raise _lost(self.rank, error) from error
        return total


@contextlib.contextmanager
def raising_lost_ranks(ranks: Ranks) -> Iterator[None]:
    """Turns MLX errors from collectives inside the model into RanksLostError."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1:
            raise
        raise _lost(ranks.rank, error) from error


def _lost(rank: int, error: Exception) -> RanksLostError:
    return RanksLostError(f"another rank was lost: {error}", where=f"rank {rank}", hint="read the other ranks' logs")


def join(hostfile: Path | None, watchdog: "Watchdog | None" = None) -> Ranks:
    """Join the ranks that the hostfile lists; without a hostfile, or with one host, this process is the only rank.

    Raises ThunderError for a bad hostfile or another number of ranks, RanksLostError when the ranks cannot connect.
    """
    if hostfile is None:
        # MLX would take this process for a world of one: every Mac would train alone and write an adapter of its own.
        if "MLX_RANK" in os.environ:
            raise ThunderError(
                "is missing, but MLX_RANK says that this is one of several ranks",
                where="--hostfile",
                hint="pass the hostfile",
            )
        return Ranks(rank=0, size=1)
    description = hostfiles.read(hostfile)
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


def _init(backend: str, name: str) -> Any:
    try:
        # strict: otherwise MLX returns a group of size 1 when the backend cannot start.
        return mx.distributed.init(strict=True, backend=name)
    except (RuntimeError, ValueError) as error:
        hint = "start the ranks with `python -m thunder_train.launch`, and check addresses and cables"
        raise RanksLostError(
            f"the {backend} ranks could not connect: {error}",
            where="mx.distributed.init",
            hint=privacy.hint(str(error)) or hint,
        ) from error


def _check(group: Any, expected: int, hostfile: Path, watchdog: "Watchdog | None") -> Ranks:
    if group.size() != expected:
        raise ThunderError(
            f"lists {expected} hosts, but {group.size()} ranks are running",
            where=str(hostfile),
            hint="start one process per host of the file",
        )
    return Ranks(rank=group.rank(), size=group.size(), group=group, watchdog=watchdog)


def weighted(ranks: Ranks, weights: tuple[float, ...]) -> Ranks:
    """The ranks with their relative speeds. Raises ThunderError unless there is one for each rank, or none at all."""
    if len(weights) not in (0, ranks.size):
        fact = f"gives {len(weights)} numbers for {ranks.size} ranks"
        raise ThunderError(fact, where="--weights", hint="give one for each rank, or none")
    return replace(ranks, weights=weights)


def is_first_on_host(hostfile: Path | None, rank: int) -> bool:
    """Whether this is the lowest rank of its host, by the hostfile's ssh names: it writes files for all of them."""
    if hostfile is None:
        return True
    names = [host["ssh"] for host in hostfiles.read(hostfile)["hosts"]]
    return names.index(names[rank]) == rank


def broadcast(data: bytes | None, ranks: Ranks, source: int = 0) -> bytes | None:
    """The source's bytes, or its None, on every rank. What the other ranks pass is ignored."""
    if ranks.size == 1:
        return data
    # The others must know how long the message is. -1: None.
    length = -1 if data is None else len(data)
    length = int(np.array(ranks.sum(mx.array([length if ranks.rank == source else 0], mx.int32)))[0])
    if length < 0:
        return None
    is_source = ranks.rank == source and data is not None
    mine = np.frombuffer(data or b"", np.uint8) if is_source else np.zeros(length, np.uint8)
    # Four bytes for each: int32 is a type that every backend sums.
    return np.array(ranks.sum(mx.array(mine.astype(np.int32)))).astype(np.uint8).tobytes()


def all_gather(data: bytes, ranks: Ranks) -> list[bytes]:
    """The bytes of all ranks, in rank order, on every rank."""
    if ranks.size == 1:
        return [data]
    lengths = np.zeros(ranks.size, np.int32)
    lengths[ranks.rank] = len(data)
    ends = np.cumsum(np.array(ranks.sum(mx.array(lengths)))).tolist()
    starts = [0, *ends[:-1]]
    # MLX's all_gather takes arrays of equal shape only, so each rank fills its own part of a sum.
    joined = np.zeros(ends[-1], np.int32)
    joined[starts[ranks.rank] : ends[ranks.rank]] = np.frombuffer(data, np.uint8)
    joined = np.array(ranks.sum(mx.array(joined))).astype(np.uint8)
    return [joined[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]


def identity(
    flags: Mapping[str, Any], paths: Mapping[str, Path], model: str, versions: Mapping[str, str]
) -> dict[str, str]:
    """Everything that decides the numbers of a run, each as text. paths: files, which count by their content."""
    return {
        **{f"--{name.replace('_', '-')}": str(value) for name, value in flags.items()},
        **{name: files.sha256(path)[:16] for name, path in paths.items()},
        "model": model,
        **versions,
    }


def check_identity(identity: Mapping[str, str], ranks: Ranks, task: str = "train") -> None:
    """Raise ThunderError, naming what differs, on each rank whose identity is not rank 0's. task: for the message."""
    first = json.loads(broadcast(json.dumps(dict(identity), sort_keys=True).encode(), ranks) or b"{}")
    differing = sorted(key for key in first.keys() | identity.keys() if first.get(key) != identity.get(key))
    if differing:
        facts = "; ".join(f"{key} is {first.get(key)} there, {identity.get(key)} here" for key in differing)
        raise ThunderError(
            f"would not {task} the same as rank 0: {facts}",
            where=f"rank {ranks.rank}",
            hint="bring project, data and model of all hosts to the same state",
        )


def check_parity(tensors: Mapping[str, np.ndarray[Any, Any]], ranks: Ranks, step: int) -> None:
    """Raise ThunderError when the ranks' adapters are not the same bits."""
    if ranks.size == 1:
        return
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    table = np.zeros((ranks.size, DIGEST_BYTES), np.int32)
    table[ranks.rank] = np.frombuffer(digest.digest(), np.uint8)
    table = np.array(ranks.sum(mx.array(table)))
    differing = [rank for rank in range(ranks.size) if (table[rank] != table[0]).any()]
    if differing:
        raise ThunderError(
            f"the adapters of ranks {differing} differ from rank 0's",
            where=f"step {step}",
            hint="run the preflight; one rank computes or receives other numbers than the rest",
        )
