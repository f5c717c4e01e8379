"""Stages: tasks of doit that run again exactly when something that decides their outputs has changed.

A stage is stale when its slice of the recipe, an input, its code or a target differs from when the stage last
succeeded. It writes into a staging folder; its old targets stay until every new one is complete. All of it uses doit's
own extension points: a checker, `uptodate` and actions.
"""

import contextlib
import errno
import importlib.util
import os
import shutil
import sqlite3
import sys
from collections.abc import Collection, Iterator
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from doit import Globals
from doit.dependency import FileChangedChecker
from doit.exceptions import TaskFailed

from thunder_train import ThunderError
from thunder_train.build import accepted, environment, records, running, sources
from thunder_train.build import staging as stagings
from thunder_train.build.key import (
    STATS,
    Parts,
    Stage,
    changes,
    code_changes,
    differences,
    sha256,
    version_changes,
    view_differences,
)
from thunder_train.build.run_cache import RunCache
from thunder_train.build.turns import TURNS
from thunder_train.core import code_hash, files, paths, revisions, shipped, speaker
from thunder_train.core.process import tool


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


class Fresh:
    """doit's `uptodate`: whether nothing that decides a stage's outputs changed since it last succeeded, nor they."""

    # doit asks each callable for its signature; computing it each time would take a third of a no-op build.
    __signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("task", "values")])

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __call__(self, task: Any, values: dict[str, Any]) -> bool:
        """Whether the stage is fresh, apart from its inputs, which doit itself compares."""
        stage, made = self._stage, values.get("made", {})
        inputs = stage.inputs if isinstance(stage.inputs, sources.Sources) else None
        if inputs is not None:  # tasks that ran before may have made some; a missing one the stage itself reports
            inputs.look()
            sources.take(task, inputs)
        return (
            "made" in values
            and (inputs is None or inputs.are_there())
            and values["reads"] == stage.reads.digest
            and values.get("decisive") == _decisive_digest(stage.code)
            and (not stage.optional or values.get("optional") == _digest_of(tuple(stage.found().items())))
            and _has_same_views(stage, values)
            and _environment_of(stage, values) == environment.part(stage.compared or ())
            and all(sha256(path) == made.get(path, "") for path in stage.targets)
        )


@cache
def decisive(starts: tuple[str, ...]) -> dict[str, str]:
    """What keys and records hold of a stage's code as it was when this process began."""
    return revisions.decisive(starts, code_hash.hashes(starts, STATS), STATS)


@cache
def _decisive_digest(starts: tuple[str, ...]) -> str:
    return files.digest(decisive(starts))


@cache
def _digest_of(pairs: tuple[tuple[str, str], ...]) -> str:
    return files.digest(dict(pairs))


def _has_same_views(stage: Stage, values: dict[str, Any]) -> bool:
    try:
        return not stage.views or values.get("views") == stage.views_digest()
    except FileNotFoundError:
        return True  # it decides nothing until the stage has another reason to run; then it fails


def _environment_of(stage: Stage, values: dict[str, Any]) -> dict[str, str]:
    """The part of the recorded environment that the stage compares."""
    recorded = values.get("environment", {})
    return {name: recorded.get(name, "") for name in stage.compared or ()}


def reasons(stage: Stage, state: Any, remade: Collection[str] = ()) -> Iterator[str]:
    """Why a stage would run now, down to the key; nothing when it is fresh.

    state: the DurableState. remade: files that other stages will make again before, which may come out the same.
    """
    values = state.get(stage.name, "_values_:") or {}
    if "made" not in values:
        yield running.describe(state.marked(stage.name), stage.name) or "never built"
        return
    yield from _slice_reasons(stage, state, values, remade)
    yield from differences(_environment_of(stage, values), environment.part(stage.compared or ()), "environment")
    if values.get("decisive") != _decisive_digest(stage.code):
        then, hashes = state.kept(values["code"]) or {}, code_hash.hashes(stage.code, STATS)
        yield from version_changes(state.kept(values.get("decisive", "")) or {}, decisive(stage.code), then, hashes)
    yield from _file_reasons(stage, state, values, remade)


def lasting_reasons(stage: Stage, state: Any) -> Iterator[str]:
    """Those that lie in no code and no environment: other recipe keys, other inputs, edited outputs."""
    values = state.get(stage.name, "_values_:")
    yield from _slice_reasons(stage, state, values)
    yield from _file_reasons(stage, state, values)


def _slice_reasons(stage: Stage, state: Any, values: dict[str, Any], remade: Collection[str] = ()) -> Iterator[str]:
    if values["reads"] != stage.reads.digest:
        yield from differences(state.kept(values["reads"]), stage.reads)
    yield from _view_reasons(stage, state.kept(values.get("views", "")) or {}, remade)


def _file_reasons(stage: Stage, state: Any, values: dict[str, Any], remade: Collection[str] = ()) -> Iterator[str]:
    earlier = {shipped.logical(path): path for path in state.get(stage.name, "deps:") or []}
    now = {shipped.logical(path): path for path in stage.inputs}
    for name in sorted({*now} | {*earlier}):
        recorded = state.get(stage.name, earlier.get(name, ""))
        if name not in now:
            yield f"{name}: no longer an input"
        elif not recorded:
            yield f"{name}: new input"
        elif now[name] not in remade and sha256(now[name]) != recorded[1]:
            yield f"{name}: content changed" if os.path.exists(now[name]) else f"{name}: is missing"
        elif now[name] != earlier[name]:
            yield f"{name}: lies elsewhere now"  # doit compares paths; the run cache knows the outputs
    found = state.kept(values.get("optional", "")) or {}
    changed = (path for path in stage.optional if found.get(stage.local(path), "") != sha256(path))
    yield from (f"{path}: content changed" for path in changed)
    for path in stage.targets:
        if not os.path.exists(path):
            yield f"{path}: is missing"
        elif sha256(path) != values["made"].get(path):
            yield f"{path}: edited since it was made"


def _view_reasons(stage: Stage, recorded: dict[str, Any], remade: Collection[str]) -> Iterator[str]:
    for path, view in stage.views.items():
        with contextlib.suppress(FileNotFoundError, ThunderError):  # the stage that renders it says so
            now = view.part(view.render()) if path in remade else view.of(path)
            yield from view_differences(path, recorded.get(stage.local(path)), now)


def operational_changes(stage: Stage, state: Any) -> list[str]:
    """Every operational key that differs from when a stage last succeeded; none of them makes it stale."""
    values = state.get(stage.name, "_values_:") or {}
    recorded = state.kept(values["operational"]) if "operational" in values else None
    return [] if recorded is None else [*differences(recorded, stage.operational())]


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
        **({"teardown": [(_tidy, [stage])]} if stage.after else {}),
    }


def guarding(task: dict[str, Any], guarded: Stage) -> dict[str, Any]:
    """The task, run exactly when another stage would run: the preflight of a remote training."""
    return {**task, "uptodate": [(is_current, [guarded])], "meta": {**task["meta"], "guards": guarded}}


def is_restorable(stage: Stage, cache: RunCache) -> bool:
    """Whether the run cache holds what the stage would make."""
    if not stage.is_cached or not all(map(os.path.exists, (*stage.inputs, *stage.views))):
        return False
    return cache.knows(stage.key(stage.parts()), stage.kept)


def run(stage: Stage, cache: RunCache, task: Any) -> TaskFailed | None:
    """Run a stage when its turn has come, or restore it at once.

    task: doit's, which gives itself to a parameter of that name; gets the values to record.
    """
    if TURNS.jobs < 2:
        return _run(stage, cache, task)
    try:
        machines = () if is_restorable(stage, cache) else stage.machines
        with TURNS.of(stage.name, machines), speaker.named(stage.name.rpartition(":")[2]):
            return _run(stage, cache, task)
    except ThunderError as error:
        return TaskFailed(str(error))


def _run(stage: Stage, cache: RunCache, task: Any) -> TaskFailed | None:
    """Make a stage's targets in staging or restore them, check them, and move them into place."""
    state = Globals.dep_manager.backend
    staging = stagings.folder(stage.name)
    try:
        made = (state.get(stage.name, "_values_:") or {}).get("made", {})
        state.remove(stage.name)  # a kill after this line must not leave the old record
        state.mark(stage.name, running.mark())
        _check_code(stage)
        if isinstance(stage.inputs, sources.Sources):
            stage.inputs.check()
        parts = _parts(stage)
        key = stage.key(parts)
        is_restored = stage.is_cached and cache.restore(key, staging / stage.folder, stage.kept)
        if is_restored:
            _render(stage, staging)
        else:
            _make(stage, staging)
            is_same_code = _check_unchanged(stage, parts)
            if stage.is_cached and is_same_code:
                outputs = {name: files.sha256(staging / path) for name, path in stage.kept.items()}
                cache.store(key, staging / stage.folder, outputs)
        for line in records.replaced(stage.targets, staging, made):
            print(line, flush=True)
        for path in stage.targets:
            files.move(staging / path, Path(path))
        shutil.rmtree(staging)
        accepted.withdraw(stage.name)
        task.values |= _record(stage, parts, state)
        task.meta["is_made"] = not is_restored
    except (ThunderError, OSError, sqlite3.Error) as error:
        problem = error if isinstance(error, ThunderError) else _of_machine(error, stage)
        _mark_failed(stage, problem)
        return TaskFailed(str(problem))
    return None


def _check_code(stage: Stage) -> None:
    """Refuse a stage of which this process has loaded modules that were edited since: it would run other code."""
    then, now = code_hash.at_first(STATS), code_hash.hashes_now(stage.code, STATS)
    edited = [path for path in now if then.get(path) != now[path] and code_hash.module_name(path) in sys.modules]
    if edited:
        what = f"{', '.join(edited)} changed since this build began, which has the code before in its memory"
        raise ThunderError(what, where=stage.name, hint="run doit again")


def _parts(stage: Stage) -> Parts:
    try:
        return stage.parts()
    except FileNotFoundError as error:
        hint = f"run `./doit scripts:{stage.name.partition(':')[2]}`"
        raise ThunderError("is missing", where=str(error.filename), hint=hint) from None


def _check_unchanged(stage: Stage, before: Parts) -> bool:
    """Whether the code is what it was when the stage began. Raises ThunderError if an input is not."""
    now = _parts_at_end(stage, before)
    if changed := [*changes(stage, before, now)]:
        kept = "; what it computed is kept for when they are as before" if stage.after else ""
        raise ThunderError(f"while it ran, {', '.join(changed)}", where=stage.name, hint=f"run doit again{kept}")
    if edited := [*code_changes(before["code"], now["code"])]:
        print(
            f"warning: {stage.name}: while it ran, {', '.join(edited)}: the result is of the code before, is not kept "
            "in the run cache, and is stale until the code is as before",
            file=sys.stderr,
            flush=True,
        )
    return not edited


def _parts_at_end(stage: Stage, before: Parts) -> Parts:
    try:
        views = stage.viewed()
    except FileNotFoundError:
        views = before["views"]  # a script that was removed after it was read
    return {**stage.parts_without_views(), "views": views}


def _record(stage: Stage, parts: Parts, state: Any) -> dict[str, Any]:
    """What `Fresh` compares and `doit why` shows."""
    kept = {name: state.keep(parts[name]) for name in ("views", "code", "optional")}
    return {
        **kept,
        "reads": state.keep(stage.reads, stage.reads.digest),
        "environment": parts["environment"],
        "decisive": state.keep(revisions.decisive(stage.code, parts["code"], STATS)),
        "operational": state.keep(stage.operational()),
        "made": {path: STATS.sha256(path) for path in stage.targets},
    }


def _tidy(stage: Stage, task: Any) -> None:
    """Remove what would have saved a stage's work from a failure, once the stage stands and is recorded."""
    if stage.after and task.meta.get("is_made") and Globals.dep_manager.backend.get(stage.name, "deps:") is not None:
        task.meta["is_made"] = False  # each of doit's threads does this as it ends
        stage.after()


def _render(stage: Stage, staging: Path) -> None:
    if stage.render:
        stage.render(staging)


def _make(stage: Stage, staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    for path in stage.targets:
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
    stage.make(staging)
    _render(stage, staging)
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
                module = command.partition(" ")[0]
                if importlib.util.find_spec(module.partition(".")[0]) is None:
                    hint = "./doit adds the packages of developers before such a task: run it so, as `./doit test`"
                    raise ThunderError("is not installed", where=module, hint=hint)
                tool([sys.executable, "-m", *command.split(), *arguments], where=command, hint="read the lines above")
        except ThunderError as error:
            return TaskFailed(str(error))
        return None

    return {"actions": [act], "pos_arg": "arguments", "io": {"capture": False}, "uptodate": [False]}
