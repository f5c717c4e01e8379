"""`doit runs`: one table of all runs, with the keys in which they differ."""

import fnmatch
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doit.cmd_base import Command

from thunder_train import ThunderError
from thunder_train.cli.commands import JSON
from thunder_train.cli.ending import USER_ERROR, in_form
from thunder_train.cli.word_order import AnyOrder
from thunder_train.core import console
from thunder_train.core.text import printable_lines
from thunder_train.report import run_facts
from thunder_train.report.run_facts import Facts, Runs

SORT = {
    "name": "sort",
    "long": "sort",
    "type": str,
    "default": "score",
    "help": "score, loss, name, date, seconds, or a key such as train.learning_rate",
}
WIDTH = 80
SHOWN_KEYS = 6
"""Most differing keys in the table."""
BEST = "*"


class ShowRuns(AnyOrder, Command):  # type: ignore[misc]  # doit ships no types
    """doit runs: all runs that have a manifest, whoever made them."""

    name = "runs"
    doc_purpose = "show all runs side by side: differing keys, losses, scores, decisions"
    doc_usage = "[--sort KEY] [NAME ...]"
    doc_description = (
        "NAME may be a pattern. * marks the best run of those that can be compared: the lowest error rate on the same "
        "test rows, or without one the lowest validation loss on the same rows."
    )
    cmd_options = (SORT, JSON)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print the table and return the exit status."""
        try:
            runs = _chosen(pos_args)
            rows = _sorted(runs, opt_values["sort"])
        except ThunderError as error:
            print(printable_lines(in_form(error, "ERROR: ")), file=sys.stderr)
            return USER_ERROR
        for problem in runs.problems:
            print(f"warning: {problem}", file=sys.stderr)
        if opt_values["as_json"]:
            console.print_json(_as_json(rows, runs))
        elif rows:
            _print(rows, runs)
        else:
            print("no run has a manifest yet")
        return 0


def _chosen(patterns: list[str]) -> Runs:
    root = Path()
    if not patterns:
        return run_facts.gather(root)
    present = [path.parent.name for path in (root / "runs").glob("*/manifest.json")]
    names = {name for pattern in patterns for name in present if _matches(name, pattern)}
    if lost := [pattern for pattern in patterns if not any(_matches(name, pattern) for name in present)]:
        raise ThunderError(f"no run is named {lost[0]!r}", hint="`./doit runs` shows all")
    return run_facts.gather(root, names)


def _matches(name: str, pattern: str) -> bool:
    """By name, by pattern, or as a member of a sweep."""
    return fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}@")


def _sorted(runs: Runs, key: str) -> list[Facts]:
    """By a column, what has no value last. Raises ThunderError for a key that no run has."""
    columns: dict[str, Callable[[Facts], Any]] = {
        "score": lambda run: run.score and run.score.rate,
        "loss": lambda run: run.loss,
        "name": lambda run: run.name,
        "date": lambda run: run.date,
        "seconds": lambda run: run.seconds,
        "decision": lambda run: run.decision,
    }
    names = [*runs.differing, *sorted({name for run in runs.runs for name in run.settings})]
    full = next((name for name in names if name == key or name.endswith(f".{key}")), "")
    if key not in columns and not full and runs.runs:
        raise ThunderError(f"no column or key is named {key!r}", "--sort", f"one of {', '.join(columns)}, or a key")

    def order(run: Facts) -> tuple[Any, ...]:
        value = columns[key](run) if key in columns else run.settings.get(full)
        number = value if isinstance(value, int | float) else None
        return value is None, number is None, number or 0, str(value), run.loss or 0.0, run.name

    return sorted(runs.runs, key=order)


def _print(rows: list[Facts], runs: Runs) -> None:
    """A table as wide as the terminal; keys that do not fit stand below their run's name."""
    best = {*run_facts.best(rows)}
    keys = list(runs.differing)[:SHOWN_KEYS]
    titles = ("run", *(key.rpartition(".")[2] for key in keys), "loss", "score", "decision", "date")
    lines = [(*_head(run, best), *(_value(run.settings.get(key)) for key in keys), *_tail(run)) for run in rows]
    width = sum(max(map(len, column)) + 3 for column in zip(titles, *lines, strict=True)) + 1
    if width > (console.width() or WIDTH) and keys:
        titles = ("run", "loss", "score", "decision", "date")
        lines = [(_with_keys(run, best, keys), *_tail(run)) for run in rows]
    cells = [
        [(cell, "bold" if run.name in best else "") for cell in line] for run, line in zip(rows, lines, strict=True)
    ]
    console.draw_table(titles, cells, width=None if sys.stdout.isatty() else WIDTH)
    more = len(runs.differing) - len(keys)
    if more:
        print(f"they differ in {more} more keys; --json shows all, and `doit compare A B` two runs")
    conditions = {run.score.condition for run in rows if run.score}
    print(f"loss: best validation, from the base's; score: {' or '.join(sorted(conditions)) or 'none'}, 95 % interval")


def _head(run: Facts, best: set[str]) -> tuple[str]:
    return (f"{run.name} {BEST}" if run.name in best else run.name,)


def _with_keys(run: Facts, best: set[str], keys: list[str]) -> str:
    pairs = [f"{key.rpartition('.')[2]} {_value(run.settings.get(key))}" for key in keys]
    return f"{_head(run, best)[0]}: {', '.join(pairs)}"


def _tail(run: Facts) -> tuple[str, str, str, str]:
    first = run.losses[0][1] if run.losses else None
    loss = "" if run.loss is None else f"{first:.3f} > {run.loss:.3f}"
    score = ""
    if run.score:
        low, high = run.score.low, run.score.high
        score = f"{run.score.rate:.4f}" + ("" if low is None or high is None else f" ({low:.3f}-{high:.3f})")
    return loss, score, run.decision, run.date


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_json(rows: list[Facts], runs: Runs) -> dict[str, Any]:
    best = {*run_facts.best(rows)}
    tables = [{**asdict(run), "loss": run.loss, "best": run.name in best} for run in rows]
    return {"schema": "thunder.runs/1", "differing": list(runs.differing), "runs": tables}
