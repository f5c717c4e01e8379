"""The training benchmark's page: what was measured, beside what was asked for."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from train_material import LONGEST, MEDIAN, SHAPE, SIGMA, Material
from train_sides import ALONE, EAGER, LAYERS, OURS, QUIET, RANK, RATE, THEIRS

QUIET_LOAD = 0.5
"""Load average before the first run above which the machine was not quiet."""


@dataclass(frozen=True)
class Cost:
    """Medians of a side. launcher: share of a core that its launcher uses; loss: validation, nats per target."""

    targets_per_s: float
    peak_bytes: int
    launcher: float
    loss: float


@dataclass(frozen=True)
class Found:
    """against: kind of rows -> side -> cost. scaling: the same with each rank on a core of its own. load: averages."""

    against: Mapping[str, Mapping[str, Cost]]
    scaling: Mapping[str, Mapping[str, Cost]]
    first_step_s: float
    load_before: float
    load_after: float


def loss_of(losses: Path) -> float:
    """The adapter's validation loss as worker.generate writes it."""
    return float(json.loads(losses.read_text())["adapter"]["valid"]["loss"])


def page(found: Found, kinds: Mapping[str, Material], turns: int, epochs: int) -> str:
    """benchmarks/TRAIN.md."""
    parts = ["# What the training costs", _setting(found, kinds, turns, epochs), "## Asked for", _targets(found)]
    parts += [part for kind in found.against for part in (f"## {kind.capitalize()} rows", _sides(found.against[kind]))]
    parts += ["## Two ranks against one, each on a core of its own", _scaling(found.scaling), _notes()]
    return "\n\n".join(parts) + "\n"


def _setting(found: Found, kinds: Mapping[str, Material], turns: int, epochs: int) -> str:
    first = next(iter(kinds.values()))
    shape = ", ".join(f"{name} {value}" for name, value in SHAPE.items())
    noise = (
        ""
        if found.load_before <= QUIET_LOAD
        else " **The machine was not quiet: other jobs took part of both cores, so ratios hold better than rates.**"
    )
    versions = f"mlx {version('mlx')}, mlx-lm {version('mlx-lm')}"
    load = f"load {found.load_before:.1f} before, {found.load_after:.1f} after"
    return (
        f"Written by `benchmarks/train.py --write`. {os.cpu_count()} cores, {platform.machine()}, {versions}; {load}."
        f"{noise}\n\n"
        f"Model: gemma3_text ({shape}), float32, random. LoRA of rank {RANK} on the last {LAYERS} layers, AdamW at "
        f"{RATE}. {first.rows} rows, {first.batch} of them a step, {epochs} epochs, medians of {turns} turns (of more "
        "for one rank against two) without the first and the last epoch. "
        f"Ragged: lognormal lengths, sigma {SIGMA}, median {MEDIAN['ragged']}, at most {LONGEST} letters; uniform: "
        f"{MEDIAN['uniform']}. One BLAS thread a rank, the same OpenBLAS on both sides. "
        "Targets are letters of the answers and the ends of their turns, counted from the rows, alike for both sides."
    )


def _verdict(what: str, asked: str, value: str, is_met: bool) -> str:
    return f"| {what} | {asked} | {value} | {'met' if is_met else '**not met**'} |"


def _targets(found: Found) -> str:
    ragged, uniform = found.against["ragged"], found.against["uniform"]
    speed, even = (side[OURS].targets_per_s / side[THEIRS].targets_per_s for side in (ragged, uniform))
    rows = [_verdict("supervised tokens/s on ragged rows, ours / mlx-lm", "2.0 or more", f"{speed:.2f}", speed >= 2)]
    rows.append(_verdict("the same on uniform rows", "1.0 or more", f"{even:.2f}", even >= 1))
    for kind, side in found.against.items():
        memory = side[OURS].peak_bytes / side[THEIRS].peak_bytes
        rows.append(_verdict(f"peak memory of a rank, {kind}", "1.0 or less", f"{memory:.2f}", memory <= 1))
    for kind, side in found.scaling.items():
        share = side[OURS].targets_per_s / (2 * side[ALONE].targets_per_s)
        rows.append(_verdict(f"efficiency of 2 ranks, {kind}", "0.90 or more", f"{share:.2f}", share >= 0.9))
    first = found.first_step_s
    rows.append(_verdict("start to first step, nano model, 2 ranks", "under 4 s", f"{first:.1f} s", first < 4))
    launcher = max(side[OURS].launcher for side in found.against.values())
    rows.append(_verdict("launcher, share of a core", "under 2 %", f"{launcher:.1%}", launcher < 0.02))
    return "\n".join(["| what | asked | measured | |", "|---|---|---|---|", *rows])


def _sides(costs: Mapping[str, Cost]) -> str:
    ours = costs[OURS].targets_per_s
    rows = [
        f"| {name} | {cost.targets_per_s:.0f} | {ours / cost.targets_per_s:.2f} | {cost.peak_bytes / 1e6:.0f} MB "
        f"| {cost.loss:.3f} | {'-' if name == QUIET else f'{cost.launcher:.1%}'} |"
        for name, cost in costs.items()
    ]
    head = "| side | targets/s | ours / it | peak of a rank | validation loss | launcher's core |"
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
        "mlx-lm: `mask_prompt`, AdamW with our weight decay and bias correction, `batch_size` of all ranks together as "
        "ours, no cap that cuts a row, rows that fill every batch (it drops a short one). Its clock is ours: lines are "
        "timed as they come, data and all; its code is compiled before, in a run that is not counted. It also trains "
        "on the line feed after the end of a turn and on one pad token a row, which are not counted. Our clipping is "
        "off, for it has none. Validation losses are measured by our `worker.generate` for both. "
        f"`{EAGER}` has MLX_DISABLE_COMPILE=1; `{QUIET}` starts its ranks directly, because mlx.launch itself spins on "
        "a core."
    )
