"""The page of the training benchmark: results and targets."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from train_material import LONGEST, MEDIAN, SHAPE, SIGMA, Material
from train_sides import ALONE, EAGER, LAYERS, OURS, QUIET, RANK, RATE, THEIRS

QUIET_LOAD = 0.5
"""Load average before the first run above which the machine counts as busy."""


@dataclass(frozen=True)
class Cost:
    """Medians of a side. launcher: share of a core that its launcher uses; loss: validation loss, nats per target."""

    targets_per_s: float
    peak_bytes: int
    launcher: float
    loss: float


@dataclass(frozen=True)
class Results:
    """against: kind of rows -> side -> cost; scaling: the same with each rank on its own core; load: load averages."""

    against: Mapping[str, Mapping[str, Cost]]
    scaling: Mapping[str, Mapping[str, Cost]]
    first_step_s: float
    load_before: float
    load_after: float


def page(results: Results, kinds: Mapping[str, Material], turns: int, epochs: int) -> str:
    """The part of benchmarks/TRAIN.md about a small model."""
    parts = ["# A small model", _setting(results, kinds, turns, epochs), "## Targets", _targets(results)]
    parts += [
        part for kind in results.against for part in (f"## {kind.capitalize()} rows", _sides(results.against[kind]))
    ]
    parts += ["## Two ranks against one, each on its own core", _scaling(results.scaling), _notes()]
    return "\n\n".join(parts) + "\n"


def _setting(results: Results, kinds: Mapping[str, Material], turns: int, epochs: int) -> str:
    first = next(iter(kinds.values()))
    shape = ", ".join(f"{name} {value}" for name, value in SHAPE.items())
    noise = (
        ""
        if results.load_before <= QUIET_LOAD
        else " **The machine was busy: other jobs used part of both cores, so ratios are more reliable than rates.**"
    )
    versions = f"mlx {version('mlx')}, mlx-lm {version('mlx-lm')}"
    load = f"load {results.load_before:.1f} before, {results.load_after:.1f} after"
    return (
        f"Written by `benchmarks/train.py --write`. {os.cpu_count()} cores, {platform.machine()}, {versions}; {load}."
        f"{noise}\n\n"
        f"Model: gemma3_text ({shape}), float32, random. LoRA of rank {RANK} on the last {LAYERS} layers, AdamW at "
        f"{RATE}. {first.rows} rows, {first.batch} per step, {epochs} epochs, medians of {turns} turns (more for one "
        "rank against two) without the first and the last epoch. "
        f"Ragged: lognormal lengths, sigma {SIGMA}, median {MEDIAN['ragged']}, at most {LONGEST} letters; uniform: "
        f"{MEDIAN['uniform']}. One BLAS thread per rank, the same OpenBLAS on both sides. "
        "Targets are the letters of the answers and the ends of their turns, counted from the rows for both sides."
    )


def verdict(what: str, asked: str, value: str, is_met: bool) -> str:
    """A line of a table of targets."""
    return f"| {what} | {asked} | {value} | {'met' if is_met else '**not met**'} |"


def _targets(results: Results) -> str:
    ragged, uniform = results.against["ragged"], results.against["uniform"]
    speed, even = (side[OURS].targets_per_s / side[THEIRS].targets_per_s for side in (ragged, uniform))
    rows = [verdict("supervised tokens/s on ragged rows, ours / mlx-lm", "2.0 or more", f"{speed:.2f}", speed >= 2)]
    rows.append(verdict("the same on uniform rows", "1.0 or more", f"{even:.2f}", even >= 1))
    for kind, side in results.against.items():
        memory = side[OURS].peak_bytes / side[THEIRS].peak_bytes
        rows.append(verdict(f"peak memory per rank, {kind}", "1.0 or less", f"{memory:.2f}", memory <= 1))
    for kind, side in results.scaling.items():
        share = side[OURS].targets_per_s / (2 * side[ALONE].targets_per_s)
        rows.append(verdict(f"efficiency of 2 ranks, {kind}", "0.90 or more", f"{share:.2f}", share >= 0.9))
    first = results.first_step_s
    rows.append(verdict("start to first step, nano model, 2 ranks", "under 4 s", f"{first:.1f} s", first < 4))
    launcher = max(side[OURS].launcher for side in results.against.values())
    rows.append(verdict("launcher, share of a core", "under 2 %", f"{launcher:.1%}", launcher < 0.02))
    return "\n".join(["| target | required | measured | |", "|---|---|---|---|", *rows])


def _sides(costs: Mapping[str, Cost]) -> str:
    ours = costs[OURS].targets_per_s
    rows = [
        f"| {name} | {cost.targets_per_s:.0f} | {ours / cost.targets_per_s:.2f} | {cost.peak_bytes / 1e6:.0f} MB "
        f"| {cost.loss:.3f} | {'-' if name == QUIET else f'{cost.launcher:.1%}'} |"
        for name, cost in costs.items()
    ]
    head = "| side | targets/s | ours / this | peak per rank | validation loss | launcher, share of a core |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def _scaling(scaling: Mapping[str, Mapping[str, Cost]]) -> str:
    rows = [
        f"| {kind} | {side[ALONE].targets_per_s:.0f} | {side[OURS].targets_per_s:.0f} "
        f"| {side[OURS].targets_per_s / (2 * side[ALONE].targets_per_s):.2f} |"
        for kind, side in scaling.items()
    ]
    return "\n".join(["| rows | 1 rank | 2 ranks | efficiency |", "|---|---|---|---|", *rows])


def _notes() -> str:
    return (
        "## How the sides were made equal\n\n"
        "mlx-lm: `mask_prompt`, AdamW with our weight decay and bias correction, the same number of rows per step, no "
        "limit that cuts a row, rows that fill every batch (mlx-lm drops a short one). Both sides are timed by the "
        "arrival of their output lines, data loading included; an uncounted run compiles mlx-lm's code first. mlx-lm "
        "also trains on the line feed after the end of a turn and on one pad token per row, which are not counted. Our "
        "gradient clipping is off, because mlx-lm has none. Our `worker.generate` measures the validation losses of "
        f"both. `{EAGER}` has MLX_DISABLE_COMPILE=1; `{QUIET}` starts its ranks directly, because mlx.launch itself "
        "keeps a core busy."
    )
