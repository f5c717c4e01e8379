"""doit commands of the project, which run no stage: `doit why`, `status`, `reproduce` and `compare`.

They print tables for people, and JSON for machines with --json.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doit.cmd_base import Command, DoitCmdBase

from thunder_train import ThunderError
from thunder_train.build import explain, running
from thunder_train.build.key import Stage
from thunder_train.build.stage import operational_changes
from thunder_train.cli import comparison
from thunder_train.cli.ending import USER_ERROR, in_form
from thunder_train.core import caller, console, files, paths
from thunder_train.core.text import printable
from thunder_train.reproduce import compare, manifest
from thunder_train.reproduce.compare import ABSENT, DIFFERENT, IDENTICAL, IMPOSSIBLE, Verdict
from thunder_train.reproduce.reproduce import reproduce

JSON = {"name": "as_json", "long": "json", "type": bool, "default": False, "help": "machine-readable output"}
CONFIRMED = {
    "name": "confirmed",
    "long": "run-command",
    "type": str,
    "default": "",
    "help": "the manifest's evaluate.gate.command, word for word, if you want to run it",
}
CHECK = {
    "name": "check",
    "long": "check",
    "type": bool,
    "default": False,
    "help": "exit with 1 if any would run, for CI",
}
WHOLE = {"name": "whole", "long": "all", "type": bool, "default": False, "help": "also metrics that are only counted"}
FILE = f"a manifest.json, or an {paths.ATTESTATION} of `doit attest:NAME`"
EXIT_STATUS = {DIFFERENT: 1, IMPOSSIBLE: 2}
"""Exit statuses of `doit reproduce` by verdict; 0 for a run that was reproduced."""
COLUMNS = tuple(stage for stage in explain.ORDER if stage != "hostfile")
"""Stages that `doit status` names; a hostfile is as fresh as its cluster, so it is left out."""
COLOURS = {
    explain.FRESH: "green",
    explain.WAITING: "yellow",
    explain.STALE: "yellow",
    running.RUNNING: "cyan",
    explain.IGNORED: "dim",
    "never built": "dim",
    "failed": "red",
}
SEVERITY = ("green", "dim", "cyan", "yellow", "red")
"""Colours, the most urgent last."""
STATUS_WIDTH = 80
"""Width of the table of `doit status` in a pipe, in characters."""
SHA256 = re.compile("[0-9a-f]{64}")
SHOWN_ROWS = 40
"""Most rows of a table; --json has all."""


class Why(DoitCmdBase):  # type: ignore[misc]  # doit ships no types
    """doit why: every reason for which a stage would run now."""

    name = "why"
    doc_purpose = "show why stages are stale; runs nothing"
    doc_usage = "[TASK ...]"
    doc_description = "Without a task: all that the default tasks need."
    cmd_options = (JSON, CHECK)

    def _execute(self, as_json: bool, check: bool) -> int:
        reasons = explain.explain(self.task_list, self.sel_tasks, self.dep_manager.backend)
        if as_json:
            console.print_json(reasons, indent=1)
        else:
            stages = {task.name: task.meta["stage"] for task in self.task_list if "stage" in (task.meta or {})}
            for name, lines in reasons.items():
                for line in lines or [_up_to_date(stages[name], self.dep_manager.backend)]:
                    self.outstream.write(f"{name}: {line}\n")
        self.dep_manager.close()
        return int(check and any(map(explain.would_run, reasons.values())))


class Status(DoitCmdBase):  # type: ignore[misc]
    """doit status: every recipe by stage, with its run, validation loss and decision."""

    name = "status"
    doc_purpose = "show every recipe by stage: fresh, stale, never built or failed"
    doc_usage = ""
    doc_description = "A stage after a stale one is shown as waiting."
    cmd_options = (JSON,)

    def _execute(self, as_json: bool) -> int:
        rows = self._rows()
        self.dep_manager.close()
        if as_json:
            console.print_json(rows, indent=1)
        else:
            _print_status(rows)
        return 0

    def _rows(self) -> list[dict[str, Any]]:
        manifests = [task for task in self.task_list if task.name.startswith("manifest:") and task.meta]  # no group's
        reasons = explain.explain(self.task_list, [task.name for task in manifests], self.dep_manager.backend)
        tasks = {task.name: task for task in self.task_list}
        rows = []
        for task in manifests:
            names = explain.stages_before(task.name, tasks)
            states = {name.partition(":")[0]: explain.in_a_cell(reasons[name]) for name in names}
            recipe = task.name.partition(":")[2]
            columns = {stage: states.get(stage, "") for stage in COLUMNS}
            rows.append({"recipe": recipe, **columns, **_manifest_facts(recipe)})
        return rows


class Reproduce(Command):  # type: ignore[misc]  # doit ships no types
    """doit reproduce: make the run of any manifest again."""

    name = "reproduce"
    doc_purpose = "make the run of a manifest again in a clean folder and compare every bit"
    doc_usage = "-m PATH [--run-command TEXT]"
    doc_description = "Exit status: 0 identical or equivalent, 1 different, 2 impossible, 3 no manifest to rely on."
    cmd_options = (
        {"name": "manifest", "short": "m", "long": "manifest", "type": str, "default": "", "help": FILE},
        CONFIRMED,
        JSON,
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print the verdict and return the exit status."""
        try:
            if pos_args or not opt_values["manifest"]:
                hint = "`doit reproduce -m PATH`, or `doit reproduce:NAME` for a recipe"
                raise ThunderError("needs one manifest", "doit reproduce", hint)
            path = Path(caller.path(opt_values["manifest"]))
            verdict = reproduce(path, Path(), opt_values["confirmed"])
        except ThunderError as error:
            print(in_form(error), file=sys.stderr)
            return USER_ERROR
        show(verdict, opt_values["as_json"])
        return EXIT_STATUS.get(verdict.word, 0)


class Compare(Command):  # type: ignore[misc]
    """doit compare: what differs between two runs."""

    name = "compare"
    doc_purpose = "show what differs between two runs, side by side"
    doc_usage = "A B"
    doc_description = "A and B are recipes that have been built, or paths of manifests."
    cmd_options = (WHOLE, JSON)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print what differs and return the exit status."""
        try:
            runs = [arg for arg in pos_args if arg not in ("--json", "--all")]  # doit reads options only before A
            if len(runs) != 2:
                raise ThunderError("needs two runs", "doit compare", "`doit compare A B`, recipes or manifests")
            manifests = [_manifest_path(run) for run in runs]
            left, right = (manifest.read(path) for path in manifests)
        except ThunderError as error:
            print(in_form(error), file=sys.stderr)
            return USER_ERROR
        differences = compare.differences(left, right)
        if opt_values["as_json"] or "--json" in pos_args:
            sides = {
                side: {"manifest": str(path), "run_id": run["run_id"]}
                for side, path, run in zip("ab", manifests, (left, right), strict=True)
            }
            rows = [difference.as_json() for difference in differences]
            console.print_json({"schema": "thunder.compare/1", **sides, "differences": rows})
        elif differences:
            headline, is_judged = comparison.headline(*manifests)
            print(headline)
            names = [f"{side}: {name}" for side, name in zip("AB", map(printable, runs), strict=True)]
            comparison.show(
                differences, names, is_whole=opt_values["whole"] or "--all" in pos_args, is_judged=is_judged
            )
        else:
            print("the two runs are the same")
        return 0


def show(verdict: Verdict, as_json: bool) -> None:
    """Print a verdict: one line of JSON, or the verdict in words and what differs."""
    if as_json:
        console.print_json(_as_json(verdict))
        return
    lines = [f"{verdict.recipe}, run {verdict.run_id}: {headline(verdict)}", *verdict.problems]
    print("\n".join(lines if verdict.word == IMPOSSIBLE else [*lines, _counts(verdict)]))
    changed = [file for file in verdict.files if file.before != file.now]
    rows = [(file.path, _text(file.before or ABSENT), _text(file.now or ABSENT)) for file in changed]
    rows += [_row(difference) for difference in verdict.differences if difference.section != "outputs"]
    if rows and verdict.word != IDENTICAL:  # other code may give the same bytes
        print_table(("", "manifest", "made again"), rows)
    if verdict.apart:
        print(f"not compared, because they also show when and where a run was made: {', '.join(verdict.apart)}")
    if verdict.folder:
        print(f"kept: {verdict.folder}")


def headline(verdict: Verdict) -> str:
    """A verdict in one line."""
    if verdict.word == DIFFERENT:
        code = [one for one in verdict.differences if one.section == "code"]
        versions = ", ".join(f"{one.key}: {_text(one.left)} -> {_text(one.right)}" for one in code)
        why = verdict.why.replace("code", f"code ({versions})") if versions else verdict.why
        return f"{DIFFERENT}, because of {why}; first: {verdict.first}"
    if verdict.word in (IDENTICAL, IMPOSSIBLE):
        return verdict.word
    changed = [one for one in verdict.differences if one.section == "environment"]
    named = (f"{one.key} {_text(one.left)} -> {_text(one.right)}" for one in changed)
    return f"{verdict.word} in another environment: {', '.join(named)}"


def _counts(verdict: Verdict) -> str:
    same = sum(file.before == file.now for file in verdict.files)
    metrics = verdict.metrics - len({one.key for one in verdict.differences if one.section == "metrics"})
    return f"{same} of {len(verdict.files)} files and {metrics} of {verdict.metrics} metrics came out equal"


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "schema": "thunder.reproduce/1",
        "verdict": verdict.word,
        "recipe": verdict.recipe,
        "run_id": verdict.run_id,
        "why": verdict.why,
        "first": verdict.first,
        "problems": list(verdict.problems),
        "files": [{"path": one.path, "manifest": one.before, "made": one.now} for one in verdict.files],
        "differences": [one.as_json() for one in verdict.differences],
        "metrics": verdict.metrics,
        "folder": verdict.folder,
        **({"not_compared": list(verdict.apart)} if verdict.apart else {}),
    }


def _manifest_path(run: str) -> Path:
    """The manifest of a recipe's run, or the path itself when the argument looks like one."""
    return Path(caller.path(run) if "/" in run or run.endswith(".json") else paths.run_manifest(run))


def _row(difference: compare.Difference) -> tuple[str, str, str]:
    return f"{difference.section}.{difference.key}", _text(difference.left), _text(difference.right)


def _text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value[:12] if SHA256.fullmatch(value) else value
    return "-" if value is ABSENT else files.json_line(value).strip()


def print_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns in a pipe, a table on a terminal; of many rows the first."""
    console.print_table(titles, rows[:SHOWN_ROWS])
    if len(rows) > SHOWN_ROWS:
        print(f"... and {len(rows) - SHOWN_ROWS} more; --json shows all")


def _up_to_date(stage: Stage, state: Any) -> str:
    run_id = _manifest_facts(stage.name.partition(":")[2]).get("run_id")
    made = f"up to date, made by run {run_id}" if run_id else "up to date"
    changes = [change.replace(":", "", 1) for change in operational_changes(stage, state)]
    if not changes:
        return made
    return f"{made} ({', '.join(changes)} {'changes' if len(changes) == 1 else 'change'} no number)"


def _manifest_facts(recipe: str) -> dict[str, Any]:
    """Run id, last validation loss and decision, from the run's manifest; None for each when there is none."""
    try:
        run = json.loads(files.read_text(paths.run_manifest(recipe)))
        losses = run["metrics"]["losses"]["valid"]
        return {
            "run_id": str(run["run_id"]),
            "valid_loss": _number(losses[-1][1]) if losses else None,
            "decision": str(run["promotion"]["decision"]),
        }
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return {"run_id": None, "valid_loss": None, "decision": None}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _print_status(rows: list[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        loss = "" if row["valid_loss"] is None else f"{row['valid_loss']:.4f}"
        ends = [(text, "") for text in (row["run_id"] or "", loss, row["decision"] or "")]
        lines.append([(row["recipe"], ""), _state(row), *ends])
    titles = ("recipe", "stages", "run", "loss", "decision")
    console.draw_table(titles, lines, width=None if sys.stdout.isatty() else STATUS_WIDTH)


def _state(row: dict[str, Any]) -> tuple[str, str]:
    """The states of a recipe's stages in words, with a colour: `stale: train; waiting: evaluate, report, manifest`."""
    stages: dict[str, list[str]] = {}
    for stage in COLUMNS:
        if row[stage] not in ("", explain.FRESH):
            stages.setdefault(row[stage], []).append(stage)
    words = [f"{state}: {', '.join(names)}" for state, names in stages.items()]
    worst = max(stages, key=lambda state: SEVERITY.index(_colour(state)), default=explain.FRESH)
    return "; ".join(words) or explain.FRESH, _colour(worst)


def _colour(state: str) -> str:
    return COLOURS.get(state.partition(" since ")[0], "red")
