"""Checks that the ranks connect and that their sums are right: each prints `thunder-smoke {json}`, and exits 1 if not.

Run by the preflight through thunder_train.launch. One message is long, because some MLX releases summed long messages
wrongly without an error (mlx#3451).
"""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter, remove_files
from thunder_train.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from thunder_train.worker.ranks import Ranks

LENGTHS = (1, 17, 4_096, 1_000_003)
"""Numbers in each message; the last is 4 MB and prime, so no splitting into chunks comes out even."""
ROUNDS = 3


def main(argv: list[str]) -> None:
    """Join the ranks, check their sums, print the line."""
    parser = Parser(prog="thunder_train.worker.allreduce_check", description="check that the ranks sum correctly")
    parser.add_argument("--hostfile", type=Path, default=None, help="backend and hosts; without it one process")
    parser.add_argument("--start-timeout", type=float, default=0.0, help="most seconds for everything; 0: no limit")
    flags = parser.parse_args(argv)
    from thunder_train.worker.bootstrap import environment
    from thunder_train.worker.ranks import join

    with Watchdog(0, flags.start_timeout) as watchdog:
        ranks = join(flags.hostfile, watchdog)
        remove_files()
        start = time.perf_counter()
        is_right = all(sums_are_right(ranks, length) for _ in range(ROUNDS) for length in LENGTHS)
        seconds = round(time.perf_counter() - start, 4)
        speed = bytes_per_second(ranks)
    versions = {name: text for name, text in environment().items() if name in ("python", "mlx", "mlx_lm", "platform")}
    answer = {"rank": ranks.rank, "size": ranks.size, "all_sum": is_right, "seconds": seconds, **versions}
    answer["bytes_per_second"] = speed
    print(f"thunder-smoke {json.dumps(answer, sort_keys=True)}", flush=True)
    if not is_right:
        sys.exit(1)


def sums_are_right(ranks: "Ranks", length: int) -> bool:
    """Whether a message of small whole numbers, different on each rank, sums exactly to the computed total."""
    import mlx.core as mx

    position = (mx.arange(length) % 1009).astype(mx.float32)
    total = ranks.sum(position * (ranks.rank + 1) + ranks.rank)
    size = ranks.size
    expected = position * (size * (size + 1) // 2) + size * (size - 1) // 2
    return bool((total == expected).all().item())


def bytes_per_second(ranks: "Ranks") -> int:
    """Bytes of the longest message per second of its fastest sum."""
    import mlx.core as mx

    message, times = mx.ones(LENGTHS[-1]), []
    mx.eval(message)
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ranks.sum(message)
        times.append(time.perf_counter() - start)
    return round(message.nbytes / min(times))


if __name__ == "__main__":
    enter(main)
