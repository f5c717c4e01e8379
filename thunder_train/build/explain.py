"""doit commands of ours that look and run nothing: `doit why [TASK...]` and `doit status`."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from thunder_train.build import stage as build

JSON = {"name": "as_json", "long": "json", "type": bool, "default": False, "help": "machine-readable output"}
ORDER = ("data", "model", "hostfile", "scripts", "check", "train", "evaluate", "report", "manifest")
STAGES = tuple(stage for stage in ORDER if stage != "hostfile")
"""Columns of the table; a hostfile is as fresh as its cluster, and says nothing of its own."""
FRESH, WAITING = "fresh", "waiting"


class Why(DoitCmdBase):  # type: ignore[misc]  # doit ships no types
    """doit why: every reason for which a stage would run now."""

    name = "why"
    doc_purpose = "tell why stages are stale; runs nothing"
    doc_usage = "[TASK ...]"
    doc_description = "Without a task: all that the default tasks need."
    cmd_options = (JSON,)

    def _execute(self, as_json: bool) -> int:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `doit why | head` ends quietly, as other tools do
        found = explain(self.task_list, self.sel_tasks, self.dep_manager.backend)
        self.dep_manager.close()
        if as_json:
            self.outstream.write(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
            return 0
        for name, reasons in found.items():
            for reason in reasons or [_made_by(name)]:
                self.outstream.write(f"{name}: {reason}\n")
        return 0


class Status(DoitCmdBase):  # type: ignore[misc]
    """doit status: every recipe by stage, with its run, validation loss and decision."""

    name = "status"
    doc_purpose = "show every recipe by stage: fresh, stale, never built or failed"
    doc_usage = ""
    doc_description = "A stage that waits for a stale one before it is shown as waiting."
    cmd_options = (JSON,)

    def _execute(self, as_json: bool) -> int:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        rows = self._rows()
        self.dep_manager.close()
        if as_json:
            self.outstream.write(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
        else:
            _print_table(rows)
        return 0

    def _rows(self) -> list[dict[str, Any]]:
        recipes = [task.name.partition(":")[2] for task in self.task_list if task.name.startswith("manifest:")]
        found = explain(self.task_list, [f"manifest:{recipe}" for recipe in recipes], self.dep_manager.backend)
        needs = {task.name: _stages_behind(task, self.task_list) for task in self.task_list}
        rows = []
        for recipe in recipes:
            states = {name.partition(":")[0]: _state(found[name]) for name in needs[f"manifest:{recipe}"]}
            rows.append({"recipe": recipe, **{stage: states.get(stage, "") for stage in STAGES}, **_facts(recipe)})
        return rows


def explain(task_list: list[Any], selected: list[str], state: Any) -> dict[str, list[str]]:
    """{stage: reasons} of the selected tasks and all before them, in the order they would run; none when fresh."""
    control = TaskControl(task_list)  # joins targets to the tasks that read them
    control.process(selected)
    found: dict[str, list[str]] = {}
    for name in _in_order(control.tasks, control.selected_tasks):
        task = control.tasks[name]
        stage = (task.meta or {}).get("stage")
        if stage:
            own = _own_reasons(task, stage, state, found)
            late = [before for before in task.task_dep if found.get(before) and before.partition(":")[0] != "check"]
            found[name] = own or [f"after {before}: its output may change" for before in late]
    return found


def _own_reasons(task: Any, stage: build.Stage, state: Any, found: dict[str, list[str]]) -> list[str]:
    if isinstance(task.uptodate[0][0], build.Fresh):
        return list(build.reasons(stage, state))
    # A remote preflight has no state of its own: it runs when the training that it guards would.
    return ["runs before the training"] if list(build.reasons(task.meta["guards"], state)) else []


def _in_order(tasks: dict[str, Any], selected: list[str]) -> list[str]:
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for before in sorted(tasks[name].task_dep, key=_rank):  # doit keeps file dependencies in a set
                visit(before)
            order[name] = None

    for name in selected:
        visit(name)
    return list(order)


def _rank(name: str) -> tuple[int, str]:
    kind = name.partition(":")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), name)


def _stages_behind(task: Any, task_list: list[Any]) -> list[str]:
    tasks = {one.name: one for one in task_list}
    return [name for name in _in_order(tasks, [task.name]) if (tasks[name].meta or {}).get("stage")]


def _state(reasons: list[str]) -> str:
    if not reasons:
        return FRESH
    if reasons[0].startswith(("never built", "failed", "was interrupted")):
        return reasons[0].partition(":")[0]
    return WAITING if reasons[0].startswith("after ") else "stale"


def _made_by(name: str) -> str:
    run_id = _facts(name.partition(":")[2]).get("run_id")
    return f"up to date, made by run {run_id}" if run_id else "up to date"


def _facts(recipe: str) -> dict[str, Any]:
    """Run id, last validation loss and decision, from the run's manifest; nothing when there is none."""
    try:
        manifest = json.loads((Path("runs") / recipe / "manifest.json").read_text(encoding="utf-8"))
        losses = manifest["metrics"]["losses"]["valid"]
        return {
            "run_id": manifest["run_id"],
            "valid_loss": losses[-1][1] if losses else None,
            "decision": manifest["promotion"]["decision"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {"run_id": None, "valid_loss": None, "decision": None}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console  # late: only this command needs them
    from rich.table import Table

    table = Table()
    titles = ("recipe", *STAGES, "run", "valid loss", "decision")
    for title in titles:
        table.add_column(title, overflow="fold")
    colours = {FRESH: "green", WAITING: "yellow", "stale": "yellow", "never built": "dim", "failed": "red"}
    for row in rows:
        states = [f"[{colours.get(row[stage], 'red')}]{row[stage]}[/]" if row[stage] else "" for stage in STAGES]
        loss = "" if row["valid_loss"] is None else f"{row['valid_loss']:.4f}"
        table.add_row(row["recipe"], *states, row["run_id"] or "", loss, row["decision"] or "")
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
