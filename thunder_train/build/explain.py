"""Why stages would run now: every reason for each stage behind the selected tasks. It runs nothing.

Input: doit's tasks and the state. Output: {stage: reasons}, which `doit why` and `doit status` print.
"""

from typing import Any

from doit import Globals
from doit.control import TaskControl

from thunder_train.build import running, sources
from thunder_train.build.key import Stage
from thunder_train.build.stage import Fresh, reasons

ORDER = ("data", "model", "hostfile", "scripts", "check", "train", "evaluate", "report", "manifest")
"""Stages as the graph runs them."""
FRESH, STALE, WAITING, IGNORED, BROKEN = "fresh", "stale", "waiting", "ignored", "broken"


def explain(task_list: list[Any], selected: list[str], state: Any) -> dict[str, list[str]]:
    """{stage: reasons} of the selected tasks and all before them, in the order they would run; none when fresh."""
    control = TaskControl(task_list)  # joins targets to the tasks that read them
    control.process(selected)
    answer: dict[str, list[str]] = {}
    running_first: set[str] = set()
    remade: set[str] = set()
    for name in _in_order(control.tasks, control.selected_tasks):
        task = control.tasks[name]
        meta = task.meta or {}
        makers = [before for before in task.task_dep if before in running_first and _feeds(control.tasks[before], task)]
        if "stage" in meta:
            waiting = [f"after {before}: its output may change" for before in makers]
            answer[name] = _ignored(task, answer, state) or _reasons(task, meta["stage"], state, remade) or waiting
        elif "problem" in meta:
            answer[name] = [f"{BROKEN}: {line}" for line in meta["problem"].splitlines()]
        if answer.get(name) or makers or _would_run(task, control.tasks):
            running_first.add(name)
            remade |= {*task.targets}
    return answer


def _feeds(maker: Any, task: Any) -> bool:
    """Whether a task makes an input of another."""
    inputs = sources.of(task)
    return bool({*maker.targets} & task.file_dep) or (inputs is not None and maker.name in inputs.makers.values())


def _would_run(task: Any, tasks: dict[str, Any]) -> bool:
    """Whether doit would run a task that is no stage, such as a user's task that makes a source."""
    if "stage" in (task.meta or {}) or not task.targets:
        return False
    return bool(Globals.dep_manager.get_status(task, tasks).status != "up-to-date")


def _ignored(task: Any, answer: dict[str, list[str]], state: Any) -> list[str]:
    """Why doit would skip the task although it is stale: a person said `doit ignore`, of it or of one before it."""
    if state.get(task.name, "ignore:"):
        return [f"{IGNORED}; `doit forget {task.name}` ends that"]
    return next((answer[name] for name in task.task_dep if summary(answer.get(name, [])) == IGNORED), [])


def _reasons(task: Any, stage: Stage, state: Any, remade: set[str]) -> list[str]:
    """Reasons of the stage itself, whatever happens before it. remade: files that will be made again before it."""
    if isinstance(task.uptodate[0][0], Fresh):
        return list(reasons(stage, state, remade))
    # A remote preflight has no record: it runs when the training that it guards would run.
    return ["runs before the training"] if list(reasons(task.meta["guards"], state)) else []


def stages_before(name: str, tasks: dict[str, Any]) -> list[str]:
    """Names of a task's stage and of every stage before it. tasks: all of doit's, by name."""
    return [before for before in _in_order(tasks, [name]) if {"stage", "problem"} & {*(tasks[before].meta or {})}]


def summary(lines: list[str]) -> str:
    """A stage's reasons in a word or two: fresh, waiting, stale, running, never built, failed or was interrupted."""
    if not lines:
        return FRESH
    words = ("never built", "failed", running.INTERRUPTED, running.RUNNING, IGNORED, BROKEN)
    begins = next((word for word in words if lines[0].startswith(word)), "")
    return begins or (WAITING if lines[0].startswith("after ") else STALE)


def in_a_cell(lines: list[str]) -> str:
    """`summary`; of a stage that runs, also since when and at which step."""
    return lines[0] if summary(lines) == running.RUNNING else summary(lines)


def would_run(lines: list[str]) -> bool:
    """Whether a stage with these reasons is not as it should be. One that a person chose to ignore is."""
    return summary(lines) not in (FRESH, IGNORED)


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
