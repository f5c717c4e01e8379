"""One large input file: the time to hash it, how often it is read, and the time of a no-op afterwards."""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphs import PROJECT
from measure import Cost, median, timed
from rivals import DOIT

BYTES = 2 * 10**9
TURNS = 5
IDLE_TURNS = 41
NOISE_S = 0.02
"""Largest difference between two medians that is attributed to the machine."""

PLAIN = """
import hashlib, sys, time
data = open(sys.argv[1], "rb").read()
start = time.perf_counter(); sha = hashlib.sha256(data).hexdigest(); print(time.perf_counter() - start, sha)
"""
OURS = """
import sys, time
from pathlib import Path
from thunder_train.core.stat_cache import StatCache
cache = StatCache(Path(sys.argv[2]))
start = time.perf_counter(); sha = cache.sha256(sys.argv[1]); print(time.perf_counter() - start, sha)
"""


@dataclass(frozen=True)
class Big:
    """Results for a file of `size` bytes.

    plain, ours: seconds to hash it; reads: how often it was read; idle: time of a no-op with this input and with a
    small one.
    """

    size: int
    plain: float
    ours: float
    reads: dict[str, int]
    idle: tuple[Cost, Cost]

    def lines(self) -> list[str]:
        """A Markdown table."""
        gigabytes = self.size / 1e9
        large, small = self.idle
        return [
            "| | |",
            "|---|---|",
            f"| `hashlib.sha256` of bytes in memory | {gigabytes / self.plain:.2f} GB/s |",
            f"| ours, first hash of the file | {gigabytes / self.ours:.2f} GB/s |",
            *(f"| times the file is read, {when} | {count} |" for when, count in self.reads.items()),
            f"| no-op, {gigabytes:.3g} GB input | {large.wall:.3f} s ({large.cpu:.3f}) |",
            f"| no-op, 3-byte input | {small.wall:.3f} s ({small.cpu:.3f}) |",
        ]

    def targets(self) -> Iterator[tuple[str, str, bool]]:
        """(target, measured value, whether it is met)."""
        speed, (large, small) = self.plain / self.ours, self.idle
        yield "first hash at 90 % of hashlib.sha256", f"{100 * speed:.0f} %", speed >= 0.9
        once = [when for when, count in self.reads.items() if when != "no-op" and count != 1]
        yield "one hash per change, 8 tasks", f"not once: {', '.join(once)}" if once else "once", not once
        extra = max(large.wall - small.wall, large.cpu - small.cpu)
        met = self.reads["no-op"] == 0 and extra < NOISE_S
        yield "an unchanged 2 GB input costs nothing", f"{self.reads['no-op']} reads, {1000 * extra:.0f} ms", met


def measure(home: Path, size: int = BYTES, turns: int = TURNS, idle_turns: int = IDLE_TURNS) -> Big:
    """All results for one file. home: folder for the generated projects."""
    large, small = (_project(home / "projects" / name) for name in ("large", "small"))
    _fill(large / "big.bin", size)
    (small / "big.bin").write_bytes(b"3 b")
    plain, ours = [], []
    for _ in range(turns + 1):
        plain.append(_seconds(PLAIN, large))
        (large / "stats.sqlite").unlink(missing_ok=True)
        ours.append(_seconds(OURS, large, "stats.sqlite"))
    reads = {"first build": _reads(large), "no-op": _reads(large)}
    os.utime(large / "big.bin")
    reads |= {"touched": _reads(large)}
    with open(large / "big.bin", "r+b") as file:
        file.write(b"changed")
    reads |= {"changed, `doit -n 4`": _reads(large, "-n", "4")}
    _reads(small)
    idle = [(timed(DOIT, large, {}), timed(DOIT, small, {})) for _ in range(idle_turns + 1)]
    shutil.rmtree(large)
    costs = (median(pair[0] for pair in idle[1:]), median(pair[1] for pair in idle[1:]))
    return Big(size, statistics.median(plain[1:]), statistics.median(ours[1:]), reads, costs)


def _project(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT / "thunder_train", folder / "thunder_train", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    shutil.copy(PROJECT / "benchmarks" / "big_dodo.py", folder / "dodo.py")
    return folder


def _fill(path: Path, size: int) -> None:
    block = os.urandom(10**6)
    with open(path, "wb") as file:
        for _ in range(size // len(block)):
            file.write(block)


def _seconds(code: str, folder: Path, *arguments: str) -> float:
    """Seconds of the hashing alone, as the program prints them."""
    argv = [sys.executable, "-c", code, "big.bin", *arguments]
    done = subprocess.run(argv, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[0])


def _reads(folder: Path, *arguments: str) -> int:
    timed([*DOIT, *arguments], folder, {})
    return int((folder / "reads.txt").read_text())
