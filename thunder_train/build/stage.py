"""doit made trustworthy through its own extension points: checker, intact targets, staged actions, run cache, lock.

A stage is stale when its slice of the recipe, an input, its code or a target is not what it was when the stage last
succeeded. It writes into a staging folder; its old targets stay until every new one is complete.
"""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from doit import Globals
from doit.dependency import FileChangedChecker
from doit.exceptions import TaskFailed

from thunder_train import ThunderError
from thunder_train.build.run_cache import RunCache
from thunder_train.core import code_hash, files
from thunder_train.core.process import tool
from thunder_train.core.stat_cache import StatCache

STATE = Path(".thunder")
STAGING = STATE / "staging"
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


@dataclass(frozen=True)
class Stage:
    """One node of the graph.

    make(root) writes every target below `root`, under its own relative path. reads: the slice of the resolved recipe
    that it uses. code: modules of the package that decide its output, as `worker.result`; what they
    import counts too. is_cached: whether its outputs depend on nothing else, and so may come from the run cache.
    """

    name: str
    make: Callable[[Path], None]
    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    reads: dict[str, Any]
    code: tuple[str, ...]
    is_cached: bool = True

    def key(self) -> str:
        """Hash of all that decides the outputs: slice, inputs, code, names of the targets. Needs every input."""
        inputs = {path: STATS.sha256(path) for path in self.inputs}
        made_from = {"reads": self.reads, "inputs": inputs, "code": code_hash.digest(self.code, STATS)}
        return files.digest({**made_from, "targets": self.targets})


class Fresh:
    """doit's `uptodate`: whether slice, code and targets are as they were when the stage last succeeded."""

    # doit asks each callable for its signature; reading it off the class saves a third of a no-op.
    __signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("task", "values")])

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def configure_task(self, task: Any) -> None:
        """Ask doit to keep what `__call__` will compare."""
        task.value_savers.append(self._values)

    def __call__(self, task: Any, values: dict[str, Any]) -> bool:
        """Whether the stage is fresh but for its inputs, which doit itself looks at."""
        stage, made = self._stage, values.get("made", {})
        return (
            "made" in values
            and values["reads"] == files.digest(stage.reads)
            and values["code"] == code_hash.digest(stage.code, STATS)
            and all(_sha256(path) == made.get(path, "") for path in stage.targets)
        )

    def _values(self) -> dict[str, Any]:
        stage, keep = self._stage, Globals.dep_manager.backend.keep
        made = {path: STATS.sha256(path) for path in stage.targets}
        return {"reads": keep(stage.reads), "code": keep(code_hash.hashes(stage.code, STATS)), "made": made}


def reasons(stage: Stage, state: Any) -> Iterator[str]:
    """Why a stage would run now, down to the key; nothing when it is fresh. state: the DurableState. Runs nothing."""
    values = state.get(stage.name, "_values_:") or {}
    if "made" not in values:
        yield state.marked(stage.name) or "never built"
        return
    yield from _differences(state.kept(values["reads"]), stage.reads)
    now, then = code_hash.hashes(stage.code, STATS), state.kept(values["code"]) or {}
    yield from (f"{path}: code changed" for path in sorted(now) if now[path] != then.get(path))
    yield from (f"{path}: code is no longer used" for path in sorted(set(then) - set(now)))
    known = set(state.get(stage.name, "deps:") or [])
    for path in sorted(set(stage.inputs) | known):
        recorded = state.get(stage.name, path)
        if path not in stage.inputs:
            yield f"{path}: no longer an input"
        elif path not in known or not recorded:
            yield f"{path}: new input"
        elif _sha256(path) != recorded[1]:
            yield f"{path}: content changed" if os.path.exists(path) else f"{path}: is missing"
    for path in stage.targets:
        if not os.path.exists(path):
            yield f"{path}: is missing"
        elif _sha256(path) != values["made"].get(path):
            yield f"{path}: edited since it was made"


def is_current(stage: Stage) -> bool:
    """Whether a stage stands as it was last made, its inputs included."""
    return next(reasons(stage, Globals.dep_manager.backend), None) is None


def task(stage: Stage, cache: RunCache) -> dict[str, Any]:
    """The stage as doit wants it: one of its creator's, or the only one."""
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
    """A stage's task that runs whenever another stage would, and else never: the preflight of a remote training."""
    return {**task, "uptodate": [(is_current, [guarded])], "meta": {**task["meta"], "guards": guarded}}


def is_restorable(stage: Stage, cache: RunCache) -> bool:
    """Whether the run cache knows what the stage would make."""
    return stage.is_cached and all(map(os.path.exists, stage.inputs)) and cache.knows(stage.key())


def run(stage: Stage, cache: RunCache) -> TaskFailed | None:
    """Make a stage's targets in staging or restore them, check them, and put them into place."""
    state, staging = Globals.dep_manager.backend, STAGING / f"{stage.name.replace(':', '-')}-{os.getpid()}"
    try:
        state.remove(stage.name)  # from here on a kill must not leave the old record standing
        state.mark(stage.name, "was interrupted")
        key = stage.key()
        if not (stage.is_cached and cache.restore(key, staging)):
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
        files.require(staging / path, hint=f"this is a mistake of {stage.name}'s; please report it")


def _of_machine(error: OSError | sqlite3.Error, stage: Stage) -> ThunderError:
    what = getattr(error, "strerror", None) or str(error)
    where = getattr(error, "filename", None) or (STATE if isinstance(error, sqlite3.Error) else stage.name)
    return ThunderError(what, where=str(where), hint="free space, or make it writable, and run doit again")


def _mark_failed(stage: Stage, problem: ThunderError) -> None:
    try:
        Globals.dep_manager.backend.mark(stage.name, f"failed: {problem}")
    except sqlite3.Error as error:
        print(f"warning: {STATE}: {error}", file=sys.stderr)


def utility(*commands: str) -> dict[str, Any]:
    """A task that always runs Python modules, each with the arguments given after the task's name."""

    def act(arguments: list[str]) -> TaskFailed | None:
        try:
            for words in commands:
                tool([sys.executable, "-m", *words.split(), *arguments], where=words, hint="read the lines above")
        except ThunderError as error:
            return TaskFailed(str(error))
        return None

    return {"actions": [act], "pos_arg": "arguments", "io": {"capture": False}, "uptodate": [False]}


def _sha256(path: str) -> str:
    """sha256 of a file; "" when it is not there."""
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
