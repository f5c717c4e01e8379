"""Runs a side of a training benchmark: its lines as they arrive, and the memory that its processes used."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from train_sides import Side

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def lines(subject: Side) -> Iterator[tuple[float, str, int]]:
    """Start all commands; yield of the first one each line: seconds since the start, text, its process's id.

    If a command fails, the benchmark stops with the last lines of output.
    """
    for name in ("checkpoints", "adapter", "probe"):
        shutil.rmtree(subject.run / name, ignore_errors=True)
    (subject.run / "probe").mkdir(parents=True)
    start, last = time.perf_counter(), []
    children = [_start(argv, environment) for argv, environment in subject.commands]
    for raw in children[0].stdout or ():
        last = [*last[-19:], COLOUR.sub("", raw.rstrip())]
        yield time.perf_counter() - start, last[-1], children[0].pid
    if any(child.wait() for child in children):
        raise SystemExit(f"{subject.name} failed:\n" + "\n".join(last))


def _start(argv: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        argv,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def peak_bytes(subject: Side, kind: str = "mlx_bytes") -> int:
    """The largest peak of a process. kind: as MLX counts, or "rss_bytes", as the system does."""
    return max(int(json.loads(path.read_text())[kind]) for path in (subject.run / "probe").iterdir())


def cpu_s(process: int) -> float:
    """CPU seconds of a process without its children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
