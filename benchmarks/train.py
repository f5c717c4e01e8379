"""Measures our training against mlx_lm.lora with mlx.launch, on this machine's CPU.

.venv/bin/python benchmarks/train.py [--turns 3] [--rows 128] [--epochs 4] [--write] [--tiny]

A real model is measured by train_real.py, a large vocabulary by train_vocabulary.py.

--write: write the tables to benchmarks/TRAIN.md. --tiny: a few steps of a tiny model in a temporary folder, to check
that this program works. All other files are below .thunder/bench/train. Run it on an idle machine: the sides take
turns, so that other work affects all of them, but two ranks need two cores.
"""

import argparse
import itertools
import os
import re
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import train_page
import train_run
import train_tables as tables
from train_losses import valid_loss
from train_material import SHAPE, Material, write, write_model
from train_sides import ALONE, EAGER, OURS, PROJECT, QUIET, THEIRS, Side, side

BENCH = PROJECT / ".thunder" / "bench" / "train"
BATCH = 16
"""Rows per step, of all ranks."""
SCALING_TURNS = 4
"""Turns of one rank against two per turn against mlx-lm: they are short, and the required ratio is close to 1."""
LINE = re.compile(r"^(?:step (\d+)/\d+  train loss|\s*(\d+)\s+[\d.]+ [▼▲])")
"""The line after an epoch, ours or mlx-lm's."""
TINY = {"layers": 4, "width": 16, "heads": 2, "kv-heads": 1, "hidden": 16}
"""Shape of the model of --tiny."""


@dataclass(frozen=True)
class Run:
    """Results of one training. epochs_s: of each epoch but the first and the last; first_s: from start to first line.

    peak_bytes: largest peak of a rank, as MLX counts; launcher: its share of a core after the first epoch.
    """

    epochs_s: list[float]
    first_s: float
    peak_bytes: int
    launcher: float


def measure(subject: Side) -> Run:
    """Train once and time the output lines. If it fails, the benchmark stops with its last lines of output."""
    stamps, busy = [], []
    for seconds, line, process in train_run.lines(subject):
        if LINE.match(line):
            stamps.append(seconds)
            busy.append(train_run.cpu_s(process))
    epochs = [after - before for before, after in itertools.pairwise(stamps[:-1])]
    share = (busy[-1] - busy[0]) / (stamps[-1] - stamps[0]) if len(stamps) > 1 else 0.0
    return Run(epochs, stamps[0], train_run.peak_bytes(subject), share)


def compare(names: list[str], material: Material, turns: int, epochs: int, is_pinned: bool) -> dict[str, tables.Cost]:
    """Medians of each side over all turns. In a turn the sides train one after the other."""
    home = material.folder.parent
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names if turn % 2 == 0 else names[::-1]:
            runs[name].append(measure(_side(name, material, epochs, is_pinned)))
            last = runs[name][-1]
            print(
                f"{material.kind}  {name}: {material.targets / statistics.median(last.epochs_s):.0f} targets/s",
                flush=True,
            )
    return {
        name: tables.Cost(
            targets_per_s=material.targets / statistics.median(s for run in each for s in run.epochs_s),
            peak_bytes=max(run.peak_bytes for run in each),
            launcher=statistics.median(run.launcher for run in each),
            loss=0.0 if is_pinned else valid_loss(_side(name, material, epochs, is_pinned), home / "model", material),
        )
        for name, each in runs.items()
    }


def _side(name: str, material: Material, epochs: int, is_pinned: bool) -> Side:
    home = material.folder.parent
    run = home / f"{material.kind}-{re.sub('[^a-z0-9]+', '-', name)}{'-pinned' * is_pinned}"
    return side(name, home / "model", material, epochs, run, is_pinned)


def first_step_s(home: Path, turns: int) -> float:
    """Median seconds from the start of the launcher to the line of the first step, with the nano model, 2 ranks."""
    write_model(home / "nano", {})
    rows = write(home / "first", "uniform", 4, 4)
    subject = side(OURS, home / "nano", rows, 1, home / "first" / "run")
    return statistics.median(measure(subject).first_s for _ in range(turns))


def measure_all(home: Path, shape: Mapping[str, int], rows: int, turns: int, epochs: int, sides: list[str]) -> str:
    """All results as Markdown. home: folder for all files; sides: names to compare."""
    load = os.getloadavg()[0]
    write_model(home / "model", shape)
    kinds = {kind: write(home / kind, kind, rows, BATCH) for kind in ("ragged", "uniform")}
    if QUIET in sides:
        for material in kinds.values():  # mlx-lm keeps its compiled code on disk; ours compiles nothing on a CPU
            measure(_side(QUIET, material, 3, False))
    against = {kind: compare(sides, material, turns, epochs, False) for kind, material in kinds.items()}
    scaling = {
        kind: compare([OURS, ALONE], material, SCALING_TURNS * turns, epochs, True) for kind, material in kinds.items()
    }
    results = tables.Results(against, scaling, first_step_s(home, turns), load, os.getloadavg()[0])
    return tables.page(results, kinds, turns, epochs)


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    if flags.tiny:
        with tempfile.TemporaryDirectory() as folder:
            tiny(Path(folder))
        return
    text = measure_all(BENCH, SHAPE, flags.rows, flags.turns, flags.epochs, [OURS, THEIRS, EAGER, QUIET])
    print(text)
    if flags.write:
        train_page.write("train.py", text)


def tiny(home: Path) -> None:
    """One short run of each kind of side on uniform rows, without a page."""
    write_model(home / "model", TINY)
    material = write(home / "uniform", "uniform", BATCH, BATCH)
    compare([OURS], material, 1, 3, False)
    compare([EAGER, ALONE], material, 1, 3, True)  # to compile mlx-lm's code would take minutes
    first_step_s(home, 1)


if __name__ == "__main__":
    main()
