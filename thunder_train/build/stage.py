"""Stages: tasks of doit that run again exactly when something that decides their outputs has changed.

A stage is stale when its slice of the recipe, an input, its code or a target differs from when the stage last
succeeded. It writes into a staging folder; its old targets stay until every new one is complete. All of it uses doit's
own extension points: a checker, `uptodate` and actions.
"""

import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from doit import Globals
from doit.dependency import FileChangedChecker
from doit.exceptions import TaskFailed

from thunder_train import ThunderError
from thunder_train.build import running
from thunder_train.build import staging as stagings
from thunder_train.build.run_cache import RunCache
from thunder_train.core import code_hash, files, paths
from thunder_train.core.process import tool
from thunder_train.core.stat_cache import StatCache

STATS = StatCache(Path(paths.STATS))


class Sha256Checker(FileChangedChecker):
    """Compares inputs by content: size first, then sha256 through the stat cache."""

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: list[Any]) -> bool:
        """Whether the file has other content than when the task last succeeded."""
        size, sha = state
        return bool(file_stat.st_size != size or STATS.sha256(file_path, file_stat) != sha)

    def get_state(self, dep: str, current_state: list[Any] | None) -> list[Any] | None:
        """[size, sha256] to remember; None if they are unchanged."""
        stat = os.stat(dep)
        state = [stat.st_size, STATS.sha256(dep, stat)]
        return None if state == current_state else state


class Reads(dict[str, Any]):
    """The slice of a resolved recipe that a stage reads. It must not change: stages share one, and so its digest."""

    @cached_property
    def digest(self) -> str:
        """Hash of the slice."""
        return files.digest(self)


@dataclass(frozen=True, eq=False)
class Stage:
    """One node of the graph.

    make(root) writes every target below `root`, under its own relative path. code: modules of the package that decide
    its output, as `worker.result`; what they import counts too. is_cached: whether its outputs depend on nothing else,
    so that the run cache may restore them.
    """

    name: str
    make: Callable[[Path], None]
    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    reads: Reads
    code: tuple[str, ...]
    is_cached: bool = True

    def key(self) -> str:
        """Hash of all that decides the outputs: slice, inputs, code and names of the targets. All inputs must exist."""
        inputs = {path: STATS.sha256(path) for path in self.inputs}
        code = code_hash.digest(self.code, STATS)
        return files.digest({"reads": self.reads, "inputs": inputs, "code": code, "targets": self.targets})


class Fresh:
    """doit's `uptodate`: whether slice, code and targets are unchanged since the stage last succeeded."""

    # doit asks each callable for its signature; computing it each time would take a third of a no-op build.
    __signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("task", "values")])

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def configure_task(self, task: Any) -> None:
        """Ask doit to keep what `__call__` will compare."""
        task.value_savers.append(self._values)

    def __call__(self, task: Any, values: dict[str, Any]) -> bool:
        """Whether the stage is fresh, apart from its inputs, which doit itself compares."""
        stage, made = self._stage, values.get("made", {})
        return (
            "made" in values
            and values["reads"] == stage.reads.digest
            and values["code"] == code_hash.digest(stage.code, STATS)
            and all(_sha256(path) == made.get(path, "") for path in stage.targets)
        )

    def _values(self) -> dict[str, Any]:
        stage, keep = self._stage, Globals.dep_manager.backend.keep
        made = {path: STATS.sha256(path) for path in stage.targets}
        return {"reads": keep(stage.reads), "code": keep(code_hash.hashes(stage.code, STATS)), "made": made}


def reasons(stage: Stage, state: Any) -> Iterator[str]:
    """Why a stage would run now, down to the key; nothing when it is fresh. state: the DurableState."""
    values = state.get(stage.name, "_values_:") or {}
    if "made" not in values:
        yield running.describe(state.marked(stage.name), stage.name) or "never built"
        return
    if values["reads"] != stage.reads.digest:
        yield from _differences(state.kept(values["reads"]), stage.reads)
    now, then = code_hash.hashes(stage.code, STATS), state.kept(values["code"]) or {}
    yield from (f"{path}: code changed" for path in sorted(now) if now[path] != then.get(path))
    yield from (f"{path}: code is no longer used" for path in sorted(set(then) - set(now)))
    earlier = set(state.get(stage.name, "deps:") or [])
    for path in sorted(set(stage.inputs) | earlier):
        recorded = state.get(stage.name, path)
        if path not in stage.inputs:
            yield f"{path}: no longer an input"
        elif path not in earlier or not recorded:
            yield f"{path}: new input"
        elif _sha256(path) != recorded[1]:
            yield f"{path}: content changed" if os.path.exists(path) else f"{path}: is missing"
    for path in stage.targets:
        if not os.path.exists(path):
            yield f"{path}: is missing"
        elif _sha256(path) != values["made"].get(path):
            yield f"{path}: edited since it was made"


def is_current(stage: Stage) -> bool:
    """Whether a stage would not run now."""
    return next(reasons(stage, Globals.dep_manager.backend), None) is None


def task(stage: Stage, cache: RunCache) -> dict[str, Any]:
    """The stage as a task for doit: a subtask of its creator if its name has a part after the colon."""
    name = stage.name.partition(":")[2]
    return {
        **({"name": name} if name else {}),
        "actions": [(run, [stage, cache])],
        "file_dep": list(stage.inputs),
        "targets": list(stage.targets),
        "uptodate": [Fresh(stage)],
        "clean": True,
        "io": {"capture": False},
        "meta": {"stage": stage, "cache": cache},
    }


def guarding(task: dict[str, Any], guarded: Stage) -> dict[str, Any]:
    """The task, run exactly when another stage would run: the preflight of a remote training."""
    return {**task, "uptodate": [(is_current, [guarded])], "meta": {**task["meta"], "guards": guarded}}


def is_restorable(stage: Stage, cache: RunCache) -> bool:
    """Whether the run cache holds what the stage would make."""
    return stage.is_cached and all(map(os.path.exists, stage.inputs)) and cache.knows(stage.key(), stage.targets)


def run(stage: Stage, cache: RunCache) -> TaskFailed | None:
    """Make a stage's targets in staging or restore them, check them, and move them into place."""
    state = Globals.dep_manager.backend
    staging = stagings.folder(stage.name)
    try:
        state.remove(stage.name)  # a kill after this line must not leave the old record
        state.mark(stage.name, running.mark())
        key = stage.key()
        if not (stage.is_cached and cache.restore(key, staging, stage.targets)):
            _make(stage, staging)
            if stage.key() != key:
                raise ThunderError("an input changed while it ran", where=stage.name, hint="run doit again")
            if stage.is_cached:
                cache.store(key, staging, {path: files.sha256(staging / path) for path in stage.targets})
        for path in stage.targets:
            files.move(staging / path, Path(path))
        shutil.rmtree(staging)
    except (ThunderError, OSError, sqlite3.Error) as error:
        problem = error if isinstance(error, ThunderError) else _of_machine(error, stage)
        _mark_failed(stage, problem)
        return TaskFailed(str(problem))
    return None


def _make(stage: Stage, staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    for path in stage.targets:
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
    stage.make(staging)
    for path in stage.targets:
        files.require(staging / path, hint=f"this is an error in {stage.name}; please report it")


def _of_machine(error: OSError | sqlite3.Error, stage: Stage) -> ThunderError:
    what = getattr(error, "strerror", None) or str(error)
    where = getattr(error, "filename", None) or (paths.STATE if isinstance(error, sqlite3.Error) else stage.name)
    is_limit = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
    remedy = "raise the limit, as with `ulimit -n 1024`" if is_limit else "free space, or make it writable"
    return ThunderError(what, where=str(where), hint=f"{remedy}, and run doit again")


def _mark_failed(stage: Stage, problem: ThunderError) -> None:
    try:
        Globals.dep_manager.backend.mark(stage.name, f"failed: {problem}")
    except sqlite3.Error as error:
        print(f"warning: {paths.STATE}: {error}", file=sys.stderr)


def utility(*commands: str) -> dict[str, Any]:
    """A task that always runs Python modules, each with the arguments that follow the task's name."""

    def act(arguments: list[str]) -> TaskFailed | None:
        try:
            for command in commands:
                tool([sys.executable, "-m", *command.split(), *arguments], where=command, hint="read the lines above")
        except ThunderError as error:
            return TaskFailed(str(error))
        return None

    return {"actions": [act], "pos_arg": "arguments", "io": {"capture": False}, "uptodate": [False]}


def _sha256(path: str) -> str:
    """sha256 of a file; "" when it is missing."""
    try:
        return STATS.sha256(path)
    except FileNotFoundError:
        return ""


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Every key whose value differs, as `train.learning_rate: 1e-06 -> 1e-05`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name}: {old!r} -> {new!r}" if name else "its slice of the recipe changed"
