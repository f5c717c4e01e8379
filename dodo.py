"""The task graph, one task creator per stage. graph.py tells what a stage takes and gives, runs.py what it does.

data  ─┬─────────────────────────────────┐
model ─┤                                 │
hostfile, scripts ─> check ─> train ─> evaluate ─> report ─> manifest
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile

from thunder_train import ThunderError
from thunder_train.build import reporter
from thunder_train.build import stage as build
from thunder_train.build.run_cache import RunCache
from thunder_train.config import load
from thunder_train.config.project import Recipe
from thunder_train.core import process
from thunder_train.pipeline import graph

Tasks = Iterator[dict[str, Any]]

try:
    PROJECT = load.load(Path(), build.STATS)
except ThunderError as problem:
    raise InvalidDodoFile(str(problem)) from None

CACHE = RunCache(PROJECT.cache, PROJECT.cache_limit_bytes)
DOIT_CONFIG = {
    "default_tasks": [f"manifest:{name}" for name in PROJECT.default],
    "check_file_uptodate": build.Sha256Checker,
    "reporter": reporter.Reporter,
}
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, process.interrupt)


def task_data() -> Tasks:
    """Sources -> train, valid and test rows with their manifest."""
    for dataset in PROJECT.datasets.values():
        yield build.task(graph.data(dataset), CACHE)


def task_model() -> Tasks:
    """Hub, folder or nano -> model.lock.json."""
    for model in PROJECT.models.values():
        yield build.task(graph.model(model), CACHE)


def task_hostfile() -> Tasks:
    """A cluster of thunder.toml -> hostfile.json."""
    yield from _of_each_recipe(graph.hostfile)


def task_scripts() -> Tasks:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    yield from _of_each_recipe(graph.scripts)


def task_check() -> Tasks:
    """Preflight: every host answers, every rank joins, the all-sum is right. Remote: before each training."""
    for recipe in PROJECT.recipes.values():
        task = build.task(graph.check(recipe), CACHE)
        yield build.guarding(task, graph.train(recipe)) if recipe.cluster.is_remote else task


def task_train() -> Tasks:
    """launch.sh on the cluster -> adapter."""
    for recipe in PROJECT.recipes.values():
        # In this order: the preflight fails before a model's gigabytes are fetched, and after the scripts are there.
        first = [f"{stage}:{recipe.name}" for stage in ("scripts", "hostfile", "check")]
        yield {**build.task(graph.train(recipe), CACHE), "task_dep": first}


def task_evaluate() -> Tasks:
    """Base against adapter on held-out rows -> eval.json."""
    yield from _of_each_recipe(graph.evaluate)


def task_report() -> Tasks:
    """Everything measured -> report.md and the promotion decision."""
    yield from _of_each_recipe(graph.report)


def task_manifest() -> Tasks:
    """The run's identity, inputs, outputs and metrics -> manifest.json, to be committed."""
    yield from _of_each_recipe(graph.manifest)


def task_again() -> Tasks:
    """Make a run again from its manifest, in a clean folder, and compare every bit."""
    for name in PROJECT.recipes:  # doit gives no creator a command's name, and `doit reproduce -m PATH` is one
        yield reporter.telling("reproduce", name, f"runs/{name}/manifest.json")


def task_hosts() -> Tasks:
    """Ask the hosts of a cluster for their addresses and print its table, to paste into thunder.toml."""
    for name, cluster in PROJECT.remote_clusters.items():
        yield reporter.telling("hosts", name, cluster)


def task_sync() -> Tasks:
    """Project, rows, tokens and model -> every remote host: what differs by hash. Part of train and evaluate."""
    for name, recipe in PROJECT.recipes.items():
        yield {**reporter.telling("sync", name, recipe), "task_dep": graph.before_sync(recipe)}


def task_fit() -> Tasks:
    """What the training needs, before it runs: memory of a rank, messages, seconds of a step, advice."""
    for name, recipe in PROJECT.recipes.items():
        needs = [f"model:{recipe.model.name}"] if recipe.model.kind == "nano" else []
        yield {**reporter.telling("fit", name, recipe), "task_dep": needs}


def task_tokens() -> Tasks:
    """What the training will see, before it runs: lengths, targets, padding, and rows token by token [--rows N]."""
    rows = {"name": "rows", "long": "rows", "type": int, "default": 3}
    for name, recipe in PROJECT.recipes.items():
        # A hub model's tokenizer is enough, and whether its gigabytes are worth a download is asked before.
        needs = [f"model:{recipe.model.name}"] if recipe.model.kind != "hub" else []
        yield {**reporter.telling("tokens", name, recipe, rows), "task_dep": [f"data:{recipe.dataset.name}", *needs]}


def task_replay() -> Tasks:
    """Judge a run's proposals again from its decisions.jsonl, and say which verdicts differ."""
    for name, recipe in PROJECT.recipes.items():
        yield {**reporter.telling("replay", name, recipe), "task_dep": [f"evaluate:{name}"]}


def task_index() -> dict[str, Any]:
    """All runs on one page, sortable, any two compared -> runs/index.html."""
    return build.task(graph.index([*PROJECT.recipes]), CACHE)


def task_test() -> dict[str, Any]:
    """Run the test suite, two files at a time: doit test [-- pytest's arguments]."""
    return build.utility("pytest -n 2 --dist loadfile")


def task_lint() -> dict[str, Any]:
    """Check format, lint and types."""
    return build.utility("ruff format --check", "ruff check", "mypy")


def task_reference() -> dict[str, Any]:
    """Write docs/recipe.md and the editors' JSON schemas from schema.py."""
    return build.utility("thunder_train.config.reference")


def _of_each_recipe(stage: Callable[[Recipe], build.Stage]) -> Tasks:
    for recipe in PROJECT.recipes.values():
        yield build.task(stage(recipe), CACHE)
