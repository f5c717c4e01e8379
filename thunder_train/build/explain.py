"""Why stages would run now: every reason for each stage behind the selected tasks. It runs nothing.

Input: doit's tasks and the state. Output: {stage: reasons}, which `doit why` and `doit status` print.
"""

from typing import Any

from doit.control import TaskControl

from thunder_train.build.stage import Fresh, Stage, reasons

ORDER = ("data", "model", "hostfile", "scripts", "check", "train", "evaluate", "report", "manifest")
"""Stages as the graph runs them."""
FRESH, STALE, WAITING = "fresh", "stale", "waiting"


def explain(task_list: list[Any], selected: list[str], state: Any) -> dict[str, list[str]]:
    """{stage: reasons} of the selected tasks and all before them, in the order they would run; none when fresh."""
    control = TaskControl(task_list)  # joins targets to the tasks that read them
    control.process(selected)
    answer: dict[str, list[str]] = {}
    for name in _in_order(control.tasks, control.selected_tasks):
        task = control.tasks[name]
        stage = (task.meta or {}).get("stage")
        if stage:
            stale = [before for before in task.task_dep if answer.get(before) and not before.startswith("check:")]
            waiting = [f"after {before}: its output may change" for before in stale]
            answer[name] = _reasons(task, stage, state) or waiting
    return answer


def _reasons(task: Any, stage: Stage, state: Any) -> list[str]:
    """Reasons of the stage itself, whatever happens before it."""
    if isinstance(task.uptodate[0][0], Fresh):
        return list(reasons(stage, state))
    # A remote preflight has no record: it runs when the training that it guards would run.
    return ["runs before the training"] if list(reasons(task.meta["guards"], state)) else []


def stages_before(task: Any, task_list: list[Any]) -> list[str]:
    """Names of a task's stage and of every stage before it."""
    tasks = {each.name: each for each in task_list}
    return [name for name in _in_order(tasks, [task.name]) if (tasks[name].meta or {}).get("stage")]


def summary(lines: list[str]) -> str:
    """The reasons of a stage in a word or two: fresh, waiting, stale, never built, failed or was interrupted."""
    if not lines:
        return FRESH
    if lines[0].startswith(("never built", "failed", "was interrupted")):
        return lines[0].partition(":")[0]
    return WAITING if lines[0].startswith("after ") else STALE


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
