"""What the tasks do that only look and tell, or only bring: `fit:<recipe>`, `sync:<recipe>` and their like."""

import sys
from dataclasses import asdict
from pathlib import Path

from doit.exceptions import TaskFailed

from thunder_train import ThunderError
from thunder_train.cli.commands import headline, print_json, print_table, show
from thunder_train.cluster import discover, sync
from thunder_train.config.project import Cluster, Recipe
from thunder_train.core import process
from thunder_train.core.text import printable_lines
from thunder_train.evaluate import gate, replay
from thunder_train.launch import fit
from thunder_train.reproduce.reproduce import reproduce


def reproduce_task(path: str, as_json: bool) -> TaskFailed | None:
    """The action of `reproduce:<recipe>`."""
    try:
        verdict = reproduce(Path(path), Path())
    except ThunderError as error:
        return TaskFailed(printable_lines(str(error)))
    show(verdict, as_json)
    return None if verdict.is_reproduced else TaskFailed(printable_lines(f"{path}: {headline(verdict)}"))


def fit_task(recipe: Recipe, as_json: bool) -> TaskFailed | None:
    """The action of `fit:<recipe>`."""
    try:
        found = fit.measure(recipe, Path())
    except ThunderError as error:
        return TaskFailed(printable_lines(str(error)))
    if as_json:
        print_json(found)
    else:
        print_table((recipe.name, ""), fit.table(found))
    return None


def hosts_task(cluster: Cluster, as_json: bool) -> TaskFailed | None:
    """The action of `hosts:<cluster>`: what its hosts say of their addresses, as a table for thunder.toml."""
    try:
        text = discover.discover(cluster)
    except ThunderError as error:
        return TaskFailed(printable_lines(str(error)))
    if as_json:
        print_json({"schema": "thunder.hosts/1", "toml": text})
    else:
        sys.stdout.write(printable_lines(text))
    return None


def sync_task(recipe: Recipe, as_json: bool) -> TaskFailed | None:
    """The action of `sync:<recipe>`."""
    try:
        found = sync.sync(recipe, Path())
    except ThunderError as error:
        return TaskFailed(printable_lines(str(error)))
    if as_json:
        print_json({"schema": "thunder.sync/1", **asdict(found)})
    else:
        print(printable_lines("\n".join(sync.lines(found) or ["every rank runs on this machine"])))
    return None


def replay_task(recipe: Recipe, as_json: bool) -> TaskFailed | None:
    """The action of `replay:<recipe>`: every verdict again, from decisions.jsonl alone."""
    run = Path("runs") / recipe.name
    try:
        differences = replay.replay(run, recipe.evaluate.gate)
    except ThunderError as error:
        return TaskFailed(printable_lines(str(error)))
    if as_json:
        print_json({"schema": "thunder.replay/1", "differences": differences})
    else:
        print(printable_lines("\n".join(differences or [f"{run / gate.FILE}: every verdict came out again"])))
    return TaskFailed(printable_lines(f"{run / gate.FILE}: {len(differences)} differences")) if differences else None


def tokens_task(recipe: Recipe, as_json: bool, rows: int) -> TaskFailed | None:
    """The action of `tokens:<recipe>`: the worker tells. rows: how many it shows token by token."""
    words = ["--ranks", str(len(recipe.cluster.hosts)), "--rows", str(rows), *["--json"] * as_json]
    argv = [sys.executable, "-m", "thunder_train.worker.inspect.tokens", *fit.worker_flags(recipe), *words]
    try:
        process.command(argv, where=f"tokens {recipe.name}", hint="read the lines above")
    except ThunderError as error:
        return TaskFailed(printable_lines(str(error)))
    return None
