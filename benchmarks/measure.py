"""What a command costs, and which tasks it remade."""

import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graphs import Node

SETTLE_S = 0.1
"""Waited before each run, so that no file is younger than a clock tick: a tool may rightly distrust such a file."""


@dataclass(frozen=True)
class Cost:
    """Seconds. cpu: user and system time of the command and of every child it waited for."""

    wall: float
    cpu: float


def timed(argv: list[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """Run a command to its end. A failure ends the benchmark with the last lines it wrote."""
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
    """The medians of wall and CPU, each by itself."""
    found = list(costs)
    return Cost(statistics.median(cost.wall for cost in found), statistics.median(cost.cpu for cost in found))


def stamps(folder: Path, nodes: list[Node]) -> dict[str, tuple[int, int]]:
    """Time and inode of every target: a file that was written again shows in one of them."""
    found = {}
    for path in (path for node in nodes for path in node.targets):
        stat = os.stat(folder / path)
        found[path] = (stat.st_mtime_ns, stat.st_ino)
    return found


def remade(nodes: list[Node], before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Names of the tasks of which a target was written."""
    return sorted(node.name for node in nodes if any(before[path] != after[path] for path in node.targets))
