"""Measures the time of a command, and which tasks it ran."""

import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graphs import Node

SETTLE_S = 0.1
"""Wait before each run, so that no file is younger than a clock tick: tools check such files again."""


@dataclass(frozen=True)
class Cost:
    """Seconds. cpu: user and system time of the command and of all children that it waited for."""

    wall: float
    cpu: float


def timed(argv: list[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command. If it fails, the benchmark stops with its last lines of output."""
    time.sleep(SETTLE_S)
    log = folder / "benchmark.log"
    with open(log, "wb") as output:
        start = time.perf_counter()
        child = subprocess.Popen(
            argv, cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if status:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise SystemExit(f"{' '.join(argv)} failed in {folder}:\n{last}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def median(costs: Iterable[Cost]) -> Cost:
    """The median of wall times and the median of CPU times."""
    runs = list(costs)
    return Cost(statistics.median(cost.wall for cost in runs), statistics.median(cost.cpu for cost in runs))


def stamps(folder: Path, nodes: list[Node]) -> dict[str, tuple[int, int]]:
    """Time and inode of every target; one of them changes when the file is written again."""
    stats = {path: os.stat(folder / path) for node in nodes for path in node.targets}
    return {path: (stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


def rebuilt(nodes: list[Node], before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Names of the tasks that wrote a target."""
    return sorted(node.name for node in nodes if any(before[path] != after[path] for path in node.targets))
