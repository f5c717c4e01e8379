"""Do the ranks find each other and add up right? Each prints one line, `thunder-smoke {json}`, and exits 1 if not.

Run by preflight through thunder_train.launch. Some releases of MLX summed long messages wrongly, so one is long.
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
"""Numbers in each message; the last is 4 MB and no multiple of anything."""
ROUNDS = 3


def main(argv: list[str]) -> None:
    """Join, add up, print the line."""
    parser = Parser(prog="thunder_train.worker.allreduce_check", description="check that the ranks sum correctly")
    parser.add_argument("--hostfile", type=Path, default=None, help="backend and hosts; without it one process")
    parser.add_argument("--start-timeout", type=float, default=0.0, help="seconds that all of it may take; 0: any")
    flags = parser.parse_args(argv)
    from thunder_train.worker.bootstrap import environment
    from thunder_train.worker.ranks import join

    with Watchdog(0, flags.start_timeout) as watchdog:
        ranks = join(flags.hostfile, watchdog)
        remove_files()
        start = time.perf_counter()
        right = all(sums_are_right(ranks, length) for _ in range(ROUNDS) for length in LENGTHS)
        seconds = round(time.perf_counter() - start, 4)
        speed = bytes_per_second(ranks)
    known = environment()
    said = {name: known[name] for name in ("python", "mlx", "mlx_lm", "platform")}
    answer = {"rank": ranks.rank, "size": ranks.size, "all_sum": right, "seconds": seconds, **said}
    answer["bytes_per_second"] = speed
    print(f"thunder-smoke {json.dumps(answer, sort_keys=True)}", flush=True)
    if not right:
        sys.exit(1)


def sums_are_right(ranks: "Ranks", length: int) -> bool:
    """Whether a message of small whole numbers, other ones on each rank, sums to what arithmetic says, exactly."""
    import mlx.core as mx

    position = (mx.arange(length) % 1009).astype(mx.float32)
    total = ranks.sum(position * (ranks.rank + 1) + ranks.rank)
    size = ranks.size
    expected = position * (size * (size + 1) // 2) + size * (size - 1) // 2
    return bool((total == expected).all().item())


def bytes_per_second(ranks: "Ranks") -> int:
    """Size of the longest message by the time of its fastest sum, sending and adding."""
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
