"""Tasks that only look, or only copy: `fit:<recipe>`, `sync:<recipe>` and their like. They are never up to date.

Each action imports what it needs when it runs: dodo.py imports this file, and a build in which nothing runs stays fast.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doit.exceptions import TaskFailed

from thunder_train import ThunderError
from thunder_train.config.project import Cluster, Recipe
from thunder_train.core import paths

PROJECT = Path()
JSON = {"name": "as_json", "long": "json", "type": bool, "default": False}
ROWS = {"name": "rows", "long": "rows", "type": int, "default": 3}


def task(name: str, action: Callable[..., Any], subject: Any, *params: dict[str, Any]) -> dict[str, Any]:
    """A subtask of doit's that calls action(subject, as_json=...). params: options beside --json, by their names."""
    return {
        "name": name,
        "actions": [(action, [subject])],
        "params": [JSON, *params],
        "uptodate": [False],
        "io": {"capture": False},
    }


def _fails_cleanly(action: Callable[..., None]) -> Callable[..., TaskFailed | None]:
    """The action with each ThunderError as the failure of its task, which doit prints without a traceback."""

    @functools.wraps(action)
    def run(*args: Any, **options: Any) -> TaskFailed | None:
        try:
            action(*args, **options)
        except ThunderError as error:
            from thunder_train.core.text import printable_lines

            return TaskFailed(printable_lines(str(error)))
        return None

    return run


@_fails_cleanly
def reproduce_run(path: str, as_json: bool) -> None:
    """`reproduce:<recipe>`: make the run of a manifest again, and fail if it comes out different."""
    from thunder_train.cli import commands
    from thunder_train.reproduce.reproduce import reproduce

    verdict = reproduce(Path(path), PROJECT)
    commands.show(verdict, as_json)
    if not verdict.is_reproduced:
        raise ThunderError(commands.headline(verdict), where=path)


@_fails_cleanly
def show_hosts(cluster: Cluster, as_json: bool) -> None:
    """`hosts:<cluster>`: the addresses that its hosts report, as a table for thunder.toml."""
    from thunder_train.cli import commands
    from thunder_train.cluster import discover
    from thunder_train.core.text import printable_lines

    text = discover.discover(cluster)
    if as_json:
        commands.print_json({"schema": "thunder.hosts/1", "toml": text})
    else:
        sys.stdout.write(printable_lines(text))


@_fails_cleanly
def sync_hosts(recipe: Recipe, as_json: bool) -> None:
    """`sync:<recipe>`: bring every remote host to the state of this project."""
    from thunder_train.cli import commands
    from thunder_train.cluster import sync
    from thunder_train.core.text import printable_lines

    synced = sync.sync(recipe, PROJECT)
    if as_json:
        commands.print_json({"schema": "thunder.sync/1", **asdict(synced)})
    else:
        print(printable_lines("\n".join(sync.lines(synced) or ["every rank runs on this machine"])))


@_fails_cleanly
def show_fit(recipe: Recipe, as_json: bool) -> None:
    """`fit:<recipe>`: memory, messages and seconds of a step that the training needs."""
    from thunder_train.cli import commands
    from thunder_train.launch import fit

    needs = fit.measure(recipe, PROJECT)
    if as_json:
        commands.print_json(needs)
    else:
        commands.print_table((recipe.name, ""), fit.table(needs))


@_fails_cleanly
def show_tokens(recipe: Recipe, as_json: bool, rows: int) -> None:
    """`tokens:<recipe>`: the worker's statistics of the tokens. rows: how many rows it shows token by token."""
    from thunder_train.core import process
    from thunder_train.launch import fit

    flags = ["--ranks", str(len(recipe.cluster.hosts)), "--rows", str(rows), *["--json"] * as_json]
    argv = [sys.executable, "-m", "thunder_train.worker.inspect.tokens", *fit.worker_flags(recipe), *flags]
    process.command(argv, where=f"tokens {recipe.name}", hint="read the lines above")


@_fails_cleanly
def replay_decisions(recipe: Recipe, as_json: bool) -> None:
    """`replay:<recipe>`: decide each proposal again from decisions.jsonl alone, and fail if a decision differs."""
    from thunder_train.cli import commands
    from thunder_train.core.text import printable_lines
    from thunder_train.evaluate import gate, replay

    run = Path(paths.run(recipe.name))
    differences = replay.replay(run, recipe.evaluate.gate)
    if as_json:
        commands.print_json({"schema": "thunder.replay/1", "differences": differences})
    else:
        print(printable_lines("\n".join(differences or [f"{run / gate.FILE}: every verdict came out again"])))
    if differences:
        raise ThunderError(f"{len(differences)} differences", where=str(run / gate.FILE))
