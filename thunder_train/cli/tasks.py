"""Tasks that only look, or only copy: `fit:<recipe>`, `sync:<recipe>` and their like. They are never up to date.

Each action imports what it needs when it runs: dodo.py imports this file, and a build in which nothing runs stays fast.
"""

import functools
import re
import sqlite3
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doit.exceptions import TaskFailed

from thunder_train import ThunderError
from thunder_train.cli.ending import FAILED, as_json, in_words
from thunder_train.config.fields import RUN
from thunder_train.config.load import Broken
from thunder_train.config.project import Cluster, Project, Recipe
from thunder_train.core import console, files, paths

PROJECT = Path()
JSON = {"name": "as_json", "long": "json", "type": bool, "default": False}
ROWS = {"name": "rows", "long": "rows", "type": int, "default": 3}


def task(
    name: str, action: Callable[..., Any], subject: Any, *params: dict[str, Any], before: Iterable[str] = ()
) -> dict[str, Any]:
    """A subtask of doit's that calls action(subject, as_json=...) after the tasks before it.

    params: options beside --json, by their names.
    """
    return {
        "name": name,
        "actions": [(action, [subject])],
        "params": [JSON, *params],
        "task_dep": [*before],
        "uptodate": [False],
        "io": {"capture": False},
    }


def of(recipe: Recipe, action: Callable[..., Any], *params: dict[str, Any], before: Iterable[str]) -> dict[str, Any]:
    """`task` for a recipe."""
    return task(recipe.name, action, recipe, *params, before=before)


def default_tasks(project: Project) -> list[str]:
    """What a bare `doit` makes: a recipe that cannot be used comes last, so that it stops no other."""
    return [f"manifest:{name}" for name in sorted(project.default, key=lambda name: name not in project.recipes)]


def warn_of(broken: Iterable[Broken]) -> None:
    """One line on stderr about each recipe that cannot be used; who asks for one of its tasks reads every problem."""
    for each in broken:
        first, *others = each.problems
        more = f" (and {len(others)} more problems)" if others else ""
        print(f"warning: {first}{more}; tasks of {each.name} cannot run", file=sys.stderr)


def unusable(broken: Iterable[Broken], usable: Container[str]) -> Iterator[dict[str, Any]]:
    """A task for each name of a run that only recipes have that cannot be used: it fails with their problems."""
    problems: dict[str, str] = {}
    for each in broken:
        if each.name not in usable and re.fullmatch(RUN, each.name):
            problems[each.name] = "\n".join([*filter(None, [problems.get(each.name)]), str(each)])
    for name, text in problems.items():
        yield {"name": name, "actions": [_failing(text)], "uptodate": [False], "meta": {"problem": text}}


def _failing(text: str) -> Callable[[], TaskFailed]:
    """An action that fails with a text. doit calls functions only, so it is no functools.partial."""

    def fail() -> TaskFailed:
        return TaskFailed(text)

    return fail


def fails_cleanly(action: Callable[..., None]) -> Callable[..., TaskFailed | None]:
    """The action with its error, or what the machine refused, as a failure, which doit prints without a traceback."""

    @functools.wraps(action)
    def run(*args: Any, **options: Any) -> TaskFailed | None:
        try:
            action(*args, **options)
        except ThunderError as error:
            if options.get("as_json"):
                print(as_json(error, FAILED), file=sys.stderr)
            return TaskFailed(str(error))
        except (OSError, sqlite3.Error) as error:
            return TaskFailed(in_words(error))
        return None

    return run


@fails_cleanly
def reproduce_run(path: str, as_json: bool) -> None:
    """`reproduce:<recipe>`: make the run of a manifest again, and fail if it comes out different."""
    from thunder_train.cli import commands
    from thunder_train.reproduce.reproduce import reproduce

    verdict = reproduce(Path(path), PROJECT)
    commands.show(verdict, as_json)
    if not verdict.is_reproduced:
        raise ThunderError(commands.headline(verdict), where=path)


@fails_cleanly
def show_hosts(cluster: Cluster, as_json: bool) -> None:
    """`hosts:<cluster>`: the addresses that its hosts report, as a table for thunder.toml."""
    from thunder_train.cluster import discover

    text = discover.discover(cluster)
    if as_json:
        console.print_json({"schema": "thunder.hosts/1", "toml": text})
    else:
        sys.stdout.write(text)


@fails_cleanly
def sync_hosts(recipe: Recipe, as_json: bool) -> None:
    """`sync:<recipe>`: bring every remote host to the state of this project."""
    from thunder_train.cluster import sync

    synced = sync.sync(recipe, PROJECT)
    if as_json:
        console.print_json({"schema": "thunder.sync/1", **asdict(synced)})
    else:
        print("\n".join(sync.lines(synced) or ["every rank runs on this machine"]))


@fails_cleanly
def show_fit(recipe: Recipe, as_json: bool) -> None:
    """`fit:<recipe>`: memory, messages and seconds of a step that the training needs."""
    from thunder_train.cli import commands
    from thunder_train.launch import fit

    if recipe.is_imported:
        hint = f"its adapter is evaluated by `./doit evaluate:{recipe.name}`"
        raise ThunderError("has no training to estimate", f"{recipe.file}: adapter", hint)
    needs = fit.measure(recipe, PROJECT)
    if not recipe.cluster.is_remote:  # else the preflight asks each host for its memory
        needs["here"] = fit.here(needs)
    if as_json:
        console.print_json(needs)
    else:
        commands.print_table((recipe.name, ""), fit.table(needs))


@fails_cleanly
def show_tokens(recipe: Recipe, as_json: bool, rows: int) -> None:
    """`tokens:<recipe>`: the worker's statistics of the tokens. rows: how many rows it shows token by token."""
    from thunder_train.core import process
    from thunder_train.launch import fit

    flags = ["--ranks", str(len(recipe.cluster.hosts)), "--rows", str(rows), *["--json"] * as_json]
    argv = [sys.executable, "-m", "thunder_train.worker.inspect.tokens", *fit.worker_flags(recipe), *flags]
    process.command(argv, where=f"tokens {recipe.name}", hint="read the lines above")


@fails_cleanly
def replay_decisions(recipe: Recipe, as_json: bool) -> None:
    """`replay:<recipe>`: decide each proposal again from decisions.jsonl alone, and fail if a decision differs."""
    from thunder_train.data import orthography
    from thunder_train.evaluate import gate, replay

    run = Path(paths.run(recipe.name))
    differences = replay.replay(run, recipe.evaluate.gate, orthography.of_dataset(recipe.dataset))
    if as_json:
        console.print_json({"schema": "thunder.replay/1", "differences": differences})
    else:
        print("\n".join(differences or [f"{run / gate.FILE}: every verdict came out again"]))
    if differences:
        raise ThunderError(f"{len(differences)} differences", where=str(run / gate.FILE))


@fails_cleanly
def attest(recipe: Recipe, as_json: bool) -> None:
    """`attest:<recipe>`: the run's provenance as an in-toto statement."""
    from thunder_train.pipeline import provenance

    made = provenance.attest(recipe, PROJECT)
    if as_json:
        console.print_json(made)
    else:
        print(f"{made['file']}: {made['outputs']} outputs of {made['inputs']} inputs, each as its hash says")


@fails_cleanly
def write_index() -> None:
    """`index`: the page of all runs, from the manifests that are there now."""
    from thunder_train.report import runs_index

    files.write_text(paths.INDEX, runs_index.build(PROJECT))
