"""A rank that sums over real ranks, writes a checkpoint, and fails as its flags say.

Writes to the working folder: pid-R-A (rank, attempt), checkpoint (the last step, by rank 0).
"""

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter, remove_files
from thunder_train.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from thunder_train.worker.ranks import Ranks

STEP_S = 0.02
FOREVER_S = 600
listeners: list[socket.socket] = []
"""Keeps taken ports open."""


def main(argv: list[str]) -> None:
    """Run --steps steps, or fail."""
    flags = parse(argv)
    rank = int(os.environ["MLX_RANK"])
    attempt = 1 + len(list(Path().glob(f"pid-{rank}-?")))
    files.write_text(f"pid-{rank}-{attempt}", str(os.getpid()))
    fault = flags.fault if rank == flags.rank and attempt <= flags.attempts else ""
    before_joining(fault, rank)
    with Watchdog(flags.stall_timeout, flags.start_timeout) as watchdog:
        from thunder_train.worker.ranks import join

        with watchdog.joining():
            ranks = join(flags.hostfile)
        done = Path("checkpoint")
        for step in range(1 + int(done.read_text() if done.exists() else 0), flags.steps + 1):
            time.sleep(STEP_S)
            if step == flags.step:
                fail(fault)
            with watchdog.waiting():
                add_up(ranks)
            watchdog.beat(step)
            if rank == 0:
                files.write_text(done, str(step))
                print(f"step {step}/{flags.steps}", flush=True)


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags; --attempts: how many attempts fail."""
    parser = Parser(prog="tests.helpers.fault_probe")
    parser.add_argument("--hostfile", type=Path, default=None)
    parser.add_argument("--fault", default="")
    for name, default in (("rank", 1), ("step", 5), ("steps", 10), ("attempts", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("stall", "start"):
        parser.add_argument(f"--{name}-timeout", type=float, default=0.0)
    return parser.parse_args(argv)


def before_joining(fault: str, rank: int) -> None:
    """Faults of the start. port: another program listens on this rank's port."""
    if fault == "never":
        time.sleep(FOREVER_S)
    if fault == "alone":
        remove_files()
        del os.environ["MLX_HOSTFILE"], os.environ["THUNDER_FILE_MLX_HOSTFILE"]
    if fault == "port":
        host, _, port = files.read_json(Path(os.environ["MLX_HOSTFILE"]))[rank][0].rpartition(":")
        listeners.append(socket.create_server((host, int(port)), reuse_port=False))
    if fault == "mistake":
        raise ThunderError("is wrong", where="--probe")


def fail(fault: str) -> None:
    """Faults of a step."""
    if fault == "sleep":
        time.sleep(FOREVER_S)
    if fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "quit":
        sys.exit(5)


def add_up(ranks: "Ranks") -> None:
    """A sum that needs all ranks."""
    import mlx.core as mx

    assert ranks.size == ranks.sum(mx.ones(1000))[0].item()


if __name__ == "__main__":
    enter(main)
