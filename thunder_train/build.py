"""doit made trustworthy through its own extension points: checker, durable state, intact targets, staged actions.

A stage is stale when its slice of the recipe, an input, its code or a target is not what it was when the stage last
succeeded. It writes into a staging folder; its old targets stay until every new one is complete.
"""

import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from doit import Globals
from doit.dependency import FileChangedChecker
from doit.exceptions import TaskFailed

from thunder_train import ThunderError, code, files
from thunder_train.process import command
from thunder_train.stats import StatCache, open_database

STATE = Path(".thunder")
STATS = StatCache(STATE / "stats.sqlite")


class Sha256Checker(FileChangedChecker):
    """Inputs by content: size first, then sha256 through the stat cache."""

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: list[Any]) -> bool:
        """Whether the file is another one than when the task last succeeded."""
        size, sha = state
        return bool(file_stat.st_size != size or STATS.sha256(file_path, file_stat) != sha)

    def get_state(self, dep: str, current_state: list[Any] | None) -> list[Any] | None:
        """[size, sha256] to remember."""
        stat = os.stat(dep)
        state = [stat.st_size, STATS.sha256(dep, stat)]
        return None if state == current_state else state


class DurableState:
    """doit's task records in SQLite, committed as each task ends, so that a kill forgets nothing that was finished.

    doit's own backends write once, at the very end of a run.
    """

    desc = "SQLite, committed after every task"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        self.name, self._codec, self._lock = name, codec, threading.RLock()
        self._connection = open_database(Path(name), "tasks (task_id text primary key, record text)")
        self._records: dict[str, dict[str, Any]] = {}
        for task_id, record in self._connection.execute("select * from tasks"):
            self._records[task_id] = codec.decode(record)

    def get(self, task_id: str, dependency: str) -> Any:
        """One value of a task's record, or None."""
        return self._records.get(task_id, {}).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Change a task's record. `deps:` is the last that doit sets when a task has succeeded, so it commits."""
        with self._lock:
            self._records.setdefault(task_id, {})[dependency] = value
            if dependency == "deps:":
                record = (task_id, self._codec.encode(self._records[task_id]))
                self._connection.execute("insert or replace into tasks values (?, ?)", record)
                self._connection.commit()

    def in_(self, task_id: str) -> bool:
        """Whether the task has a record."""
        return task_id in self._records

    def remove(self, task_id: str) -> None:
        """Forget a task, on disk too."""
        with self._lock:
            self._records.pop(task_id, None)
            self._connection.execute("delete from tasks where task_id = ?", (task_id,))
            self._connection.commit()

    def remove_all(self) -> None:
        """Forget every task."""
        with self._lock:
            self._records.clear()
            self._connection.execute("delete from tasks")
            self._connection.commit()

    def dump(self) -> None:
        """Everything is on disk already; doit calls this once, at the end."""
        try:
            self._connection.close()
        except sqlite3.Error as error:
            print(f"warning: closing the build state: {error}", file=sys.stderr)


@dataclass(frozen=True)
class Stage:
    """One node of the graph.

    make(root) writes every target below `root`, under its own relative path. reads: the slice of the resolved recipe
    that it uses. code: modules of the package that it starts from, as `worker.generate`, or `runs:train` for one
    function of a module.
    """

    name: str
    make: Callable[[Path], None]
    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    reads: dict[str, Any]
    code: tuple[str, ...]


class Fresh:
    """doit's `uptodate`: why a stage is stale, by what is not as it was when it last succeeded."""

    # doit asks each callable for its signature; reading it off the class saves a third of a no-op.
    __signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("task", "values")])

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def configure_task(self, task: Any) -> None:
        """Ask doit to keep what `__call__` will compare."""
        task.value_savers.append(lambda: {"reads": self._stage.reads, "code": self._code(), "made": self._made()})

    def __call__(self, task: Any, values: dict[str, Any]) -> bool:
        """Whether slice, code and targets are as recorded; doit itself looks at the inputs."""
        return next(self.reasons(values), None) is None

    def reasons(self, values: dict[str, Any]) -> Iterator[str]:
        """Why the stage is stale, cheapest look first; nothing when it is fresh."""
        if "made" not in values:
            yield "never made"
            return
        yield from _differences(values["reads"], self._stage.reads)
        now = self._code()
        yield from (f"{name}: code changed" for name in sorted(now) if values["code"].get(name) != now[name])
        for path in self._stage.targets:
            if not os.path.exists(path):
                yield f"{path}: is missing"
            elif values["made"].get(path) != STATS.sha256(path):
                yield f"{path}: edited since it was made"

    def _code(self) -> dict[str, str]:
        return code.hashes(self._stage.code, STATS)

    def _made(self) -> dict[str, str]:
        return {path: STATS.sha256(path) for path in self._stage.targets}


def task(stage: Stage) -> dict[str, Any]:
    """The stage as doit wants it."""
    return {
        "name": stage.name.partition(":")[2],
        "actions": [(run, [stage])],
        "file_dep": list(stage.inputs),
        "targets": list(stage.targets),
        "uptodate": [Fresh(stage)],
        "io": {"capture": False},
    }


def is_current(stage: Stage) -> bool:
    """Whether a stage stands as it was last made, its inputs included; for another task to ask."""
    state, checker = Globals.dep_manager.backend, Sha256Checker()
    if next(Fresh(stage).reasons(state.get(stage.name, "_values_:") or {}), None):
        return False
    known = {path: state.get(stage.name, path) for path in stage.inputs}
    return all(
        seen and os.path.exists(path) and not checker.check_modified(path, os.stat(path), seen)
        for path, seen in known.items()
    )


def run(stage: Stage) -> TaskFailed | None:
    """Make a stage's targets in staging, check them, and put them into place."""
    Globals.dep_manager.backend.remove(stage.name)  # from here on a kill must not leave the old record standing
    staging = STATE / "staging" / stage.name.replace(":", "-")
    try:
        before = {path: STATS.sha256(path) for path in stage.inputs}
        shutil.rmtree(staging, ignore_errors=True)
        for path in stage.targets:
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
        stage.make(staging)
        changed = [path for path, sha in before.items() if not os.path.exists(path) or STATS.sha256(path) != sha]
        if changed:
            raise ThunderError("changed while the stage ran", where=", ".join(changed), mend="run doit again")
        for path in stage.targets:
            files.require(staging / path, mend=f"this is a mistake of {stage.name}'s; please report it")
        for path in stage.targets:
            files.move(staging / path, Path(path))
        shutil.rmtree(staging)
    except ThunderError as error:
        return TaskFailed(str(error))
    except OSError as error:
        mend = "free space, or make it writable, and run doit again"
        return TaskFailed(str(ThunderError(error.strerror or str(error), str(error.filename or stage.name), mend)))
    return None


def utility(*commands: str) -> dict[str, Any]:
    """A task that always runs Python modules, each with the arguments given after the task's name."""

    def act(arguments: list[str]) -> TaskFailed | None:
        try:
            for words in commands:
                command([sys.executable, "-m", *words.split(), *arguments], where=words, mend="read the lines above")
        except ThunderError as error:
            return TaskFailed(str(error))
        return None

    return {"actions": [act], "pos_arg": "arguments", "io": {"capture": False}, "uptodate": [False]}


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Every key whose value differs, as `train.learning_rate: 1e-06 -> 1e-05`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name}: {old!r} -> {new!r}"
