"""Inputs that other tasks of the project may make, such as a user's task that fetches or generates rows.

doit orders a task after the ones that make its file dependencies, if both write the path alike and the files are known
when the tasks are loaded. `order` does so for patterns, folders and other spellings too, also on the first build.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, shipped


class Sources(dict[str, str]):
    """{path: its role}: the files that paths and patterns name now; `look` updates it.

    paths: files that must be there, or folders of files. patterns: of as many files as there are.
    """

    def __init__(self, paths: Iterable[str], patterns: Iterable[str] = ()) -> None:
        super().__init__()
        self.paths, self.patterns = tuple(paths), tuple(patterns)
        self.makers: dict[str, str] = {}
        """{path: the task that makes it}: a file, or a folder above some."""
        self.look()

    def look(self) -> None:
        """Take in the files that match now, and those that other tasks will make."""
        matches = [path for pattern in self.patterns for path in files.expand(pattern, Path())]
        named = [file for path in self.paths for file in files.expand_all(path, Path())]
        self.clear()
        self.update((shipped.file(path), path) for path in (*named, *matches))
        self.update((path, path) for path in self.makers if not os.path.isdir(path))

    def are_there(self) -> bool:
        """Whether every file exists."""
        return all(map(os.path.exists, self))

    def check(self) -> None:
        """Raise ThunderError if a task that names a file as its target has not made it."""
        missing = [(path, maker) for path, maker in self.makers.items() if not os.path.exists(path)]
        hint = "let it write this file, or correct its targets"
        raise_all([ThunderError(f"is missing: {maker} ran and has not made it", path, hint) for path, maker in missing])


def of(task: Any) -> Sources | None:
    """The sources of a task of doit's; None if it is no stage, or a stage whose inputs are all known."""
    stage = (task.meta or {}).get("stage")
    return stage.inputs if stage and isinstance(stage.inputs, Sources) else None


def order(tasks: list[Any]) -> None:
    """Put each stage behind the tasks that make its sources. tasks: all of doit's, as they were loaded."""
    reading = [(task, sources) for task in tasks if (sources := of(task)) is not None]
    targets = [(os.path.abspath(target), task.name) for task in tasks if reading for target in task.targets]
    for task, sources in reading:
        others = [target for target in targets if target[1] != task.name]
        sources.makers = dict(_made(sources, others))
        sources.look()
        take(task, sources)
        task.task_dep.extend(sorted({*sources.makers.values()} - {*task.task_dep}))


def take(task: Any, sources: Sources) -> None:
    """Make the sources doit's file dependencies of the task."""
    task.file_dep = {*sources}


def _made(sources: Sources, targets: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each path that a task makes, written as the sources write it, and the name of the task."""
    for given in (*sources.paths, *sources.patterns):
        full = os.path.abspath(given)
        start = files.before_marks(full)
        for target, name in targets:
            is_near = target.startswith(start) or start.startswith(target)
            if is_near and (files.reaches(full, target) or target.startswith(f"{full}/")):
                yield given if target == full else target if os.path.isabs(given) else os.path.relpath(target), name
