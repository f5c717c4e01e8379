"""`doit accept TASK...`: outputs stand as they are, although code or environment changed since they were made."""

import sys
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from thunder_train import ThunderError, raise_all
from thunder_train.build.accept import accept
from thunder_train.build.key import Stage
from thunder_train.cli.ending import USER_ERROR
from thunder_train.core import revisions
from thunder_train.core.text import printable_lines

STAGES = ", ".join(revisions.CODE)


class Accept(DoitCmdBase):  # type: ignore[misc]  # doit ships no types
    """doit accept: change what is remembered of stages, and nothing that they made."""

    name = "accept"
    doc_purpose = "let outputs stand although code or environment changed"
    doc_usage = "TASK ..."
    doc_description = (
        f"Of {STAGES}; never under other keys of the recipe, other inputs or edited outputs. accepted.json beside the "
        "outputs says so, to be committed; manifest and report show it. A later run of the stage ends it."
    )
    cmd_options = ()

    def _execute(self) -> int:
        try:
            if self.sel_default_tasks:
                hint = "`./doit accept train:NAME`; `./doit why` shows what is stale"
                raise ThunderError("needs the tasks whose outputs stand", "doit accept", hint)
            for line in accept(selected(self.task_list, self.sel_tasks), self.dep_manager.backend):
                self.outstream.write(printable_lines(f"{line}\n"))
        except ThunderError as error:
            print(printable_lines(str(error)), file=sys.stderr)
            return USER_ERROR
        finally:
            self.dep_manager.close()
        return 0


def selected(tasks: list[Any], words: list[str]) -> list[Stage]:
    """The stages that are named, by themselves or by their group. Raises ThunderError for one that has no revision."""
    control = TaskControl(tasks)  # knows targets and patterns, too
    control.process(words)
    chosen: dict[str, Stage] = {}
    problems = []
    for word in control.selected_tasks:
        task = control.tasks[word]
        for name in task.task_dep if task.has_subtask else [word]:
            meta = control.tasks[name].meta or {}
            if "problem" in meta:
                problems.append(ThunderError(meta["problem"]))
            elif "stage" not in meta or name.partition(":")[0] not in revisions.CODE:
                what = f"cannot be accepted; only {STAGES} can, because the others take seconds"
                problems.append(ThunderError(what, name, f"`./doit {name}`"))
            else:
                chosen[name] = meta["stage"]
    raise_all(problems)
    return [*chosen.values()]
