"""The part of the training benchmark's page about a real model: results and targets."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

from train_english import ANSWER, LONGEST_WORDS, MEDIAN_WORDS
from train_material import SIGMA
from train_sides import OURS, RANK, THEIRS
from train_tables import QUIET_LOAD, verdict

PEFT = "PEFT on torch"


class Case(NamedTuple):
    """A base model and the last blocks that get LoRA. numbers: float32, bfloat16 or 4bit; layers: 0 for all."""

    name: str
    numbers: str
    layers: int
    title: str


CASES = {
    case.name: case
    for case in (
        Case("float32-4", "float32", 4, "float32, LoRA on the last 4 blocks"),
        Case("float32-all", "float32", 0, "float32, LoRA on all blocks"),
        Case("4bit-4", "4bit", 4, "4 bits, LoRA on the last 4 blocks"),
        Case("4bit-all", "4bit", 0, "4 bits, LoRA on all blocks"),
        Case("bfloat16-4", "bfloat16", 4, "bfloat16, LoRA on the last 4 blocks"),
        Case("bfloat16-all", "bfloat16", 0, "bfloat16, LoRA on all blocks"),
    )
}


@dataclass(frozen=True)
class Result:
    """One training. targets: supervised tokens of all epochs. seconds: of the steps; total_s: of the whole command.

    mlx_bytes: largest peak of a rank as MLX counts it, 0 for torch; rss_bytes: as the system does. loss: of the
    validation rows, nats per target.
    """

    case: str
    side: str
    epochs: int
    targets: int
    seconds: float
    total_s: float
    mlx_bytes: int
    rss_bytes: int
    loss: float

    @property
    def targets_per_s(self) -> float:
        """Supervised tokens per second of the steps."""
        return self.targets / self.seconds


class Row(NamedTuple):
    """Medians of a side's turns in one case; peaks are the largest."""

    turns: int
    rate: float
    total_s: float
    mlx_bytes: int
    rss_bytes: int
    loss: float


def page(results: Sequence[Result], model: str, rows: int, batch: int, load: float) -> str:
    """The part as Markdown. load: load average before the first run."""
    keys = dict.fromkeys((each.case, each.epochs) for each in results)
    tables = {key: _rows([each for each in results if (each.case, each.epochs) == key]) for key in keys}
    parts = ["# A real model", _setting(model, rows, batch, load), "## Targets of the real model", _targets(tables)]
    for (case, epochs), table in tables.items():
        parts += [f"## {CASES[case].title}, {epochs} epochs", _table(table)]
    return "\n\n".join([*parts, _notes()]) + "\n"


def _rows(results: Sequence[Result]) -> dict[str, Row]:
    sides = {each.side: [one for one in results if one.side == each.side] for each in results}
    return {
        name: Row(
            turns=len(turns),
            rate=statistics.median(one.targets_per_s for one in turns),
            total_s=statistics.median(one.total_s for one in turns),
            mlx_bytes=max(one.mlx_bytes for one in turns),
            rss_bytes=max(one.rss_bytes for one in turns),
            loss=statistics.median(one.loss for one in turns),
        )
        for name, turns in sides.items()
    }


def _setting(model: str, rows: int, batch: int, load: float) -> str:
    busy = "" if load <= QUIET_LOAD else " **The machine was busy, so ratios are more reliable than rates.**"
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, mlx {version('mlx')}, "
        f"mlx-lm {version('mlx-lm')}; load {load:.1f} before.{busy}\n\n"
        f"Model: {model}. LoRA of rank {RANK} on every linear layer of these blocks, AdamW. {rows} rows, {batch} per "
        f"step. Ragged English: lognormal numbers of words, sigma {SIGMA}, median {MEDIAN_WORDS}, at most "
        f"{LONGEST_WORDS}; {ANSWER:.0%} of them are the answer. Ours and mlx-lm: 2 ranks with one BLAS thread each; "
        "PEFT: one process with 2 threads, because torch shares a CPU's work among threads. Supervised tokens are "
        "counted once, by our tokenisation, for all sides."
    )


def _targets(tables: dict[tuple[str, int], dict[str, Row]]) -> str:
    lines = []
    for (case, epochs), table in tables.items():
        if OURS not in table:
            continue
        ours, what = table[OURS], f"{CASES[case].title}, {epochs} epochs"
        asked = (8 if epochs >= 10 else 4) if CASES[case].layers else 2
        if THEIRS in table:
            ratio = ours.rate / table[THEIRS].rate
            lines.append(verdict(f"{what}: ours / mlx-lm", f"{asked} or more", f"{ratio:.2f}", ratio >= asked))
        if THEIRS in table and CASES[case].layers:
            ratio = ours.mlx_bytes / table[THEIRS].mlx_bytes
            lines.append(verdict(f"{what}: peak memory of a rank", "0.50 or less", f"{ratio:.2f}", ratio <= 0.5))
        if PEFT in table and CASES[case].layers:
            ratio = ours.rate / table[PEFT].rate
            lines.append(verdict(f"{what}: ours / PEFT", "2 or more", f"{ratio:.2f}", ratio >= 2))
    return "\n".join(["| target | required | measured | |", "|---|---|---|---|", *lines])


def _table(table: dict[str, Row]) -> str:
    ours = table[OURS].rate if OURS in table else 0.0
    head = "| side | targets/s | ours / this | peak of a rank, MLX | peak of a process, system | whole command "
    lines = [
        f"| {name} | {row.rate:.0f} | {ours / row.rate:.2f} | {_gb(row.mlx_bytes)} | {_gb(row.rss_bytes)} "
        f"| {row.total_s:.0f} s | {row.loss:.4f} | {row.turns} |"
        for name, row in table.items()
    ]
    return "\n".join([f"{head}| validation loss | turns |", "|---|---|---|---|---|---|---|---|", *lines])


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count else "-"


def _notes() -> str:
    return (
        "Targets/s: supervised tokens of all epochs over the seconds from the end of the first validation to the end "
        "of the last step, without the validations between. The whole command includes the start, loading and two "
        "validations. Medians of the turns, the largest peaks. Validation losses are measured by our `worker.generate` "
        "for all sides; PEFT's adapter is read by `worker.adopt`. Rows are in another order on each side, so losses "
        "are near, not equal. mlx-lm: as with the small model above (`mask_prompt`, no limit that cuts a row, compiled "
        "code on disk before the first turn; its padded batches are sorted by length). PEFT: padded batches in random "
        "order as transformers' Trainer makes them, all logits, float32; it has no part in the 4-bit cases."
    )
