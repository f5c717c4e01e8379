"""This process among the others: its rank, their number, and the sum over all of them."""

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
    return RanksLostError(f"another rank was lost: {error}", where=f"rank {rank}", mend="read the other ranks' logs")


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
                mend="pass the hostfile",
            )
        return Ranks(rank=0, size=1)
    description = files.read_json(hostfile, mend="run `./doit hostfile`")
    try:
        backend, expected = description["backend"], len(description["hosts"])
        name = BACKENDS[backend]
    except (KeyError, TypeError) as error:
        raise ThunderError(f"has no usable {error}", where=str(hostfile), mend="run `./doit hostfile`") from error
    if expected == 1:
        return Ranks(rank=0, size=1)
    with watchdog.joining() if watchdog else contextlib.nullcontext():
        group = _init(backend, name)
    return _check(group, expected, hostfile, watchdog)


def weighted(ranks: Ranks, weights: tuple[float, ...]) -> Ranks:
    """The ranks with a speed for each. Raises ThunderError for any other number of them but none."""
    if len(weights) not in (0, ranks.size):
        what = f"gives {len(weights)} numbers for {ranks.size} ranks"
        raise ThunderError(what, where="--weights", mend="give one for each rank, or none")
    return replace(ranks, weights=weights)


def _init(backend: str, name: str) -> Any:
    try:
        return mx.distributed.init(strict=True, backend=name)
    except (RuntimeError, ValueError) as error:
        raise RanksLostError(
            f"the {backend} ranks did not find each other: {error}",
            where="mx.distributed.init",
            mend="start the ranks with `python -m thunder_train.launch`, and check addresses and cables",
        ) from error


def _check(group: Any, expected: int, hostfile: Path, watchdog: "Watchdog | None") -> Ranks:
    if group.size() != expected:
        raise ThunderError(
            f"{group.size()} ranks run, but the file lists {expected}",
            where=str(hostfile),
            mend="start one process per host of the file",
        )
    return Ranks(rank=group.rank(), size=group.size(), group=group, watchdog=watchdog)
