"""The task graph: one task creator per stage, and the tasks that only look.

graph.py says what each stage reads and makes, stages.py does the work.

data  ─┬─────────────────────────────────┐
model ─┤                                 │
hostfile, scripts ─> check ─> train ─> evaluate ─> report ─> manifest
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from doit.exceptions import InvalidDodoFile

from thunder_train import ThunderError
from thunder_train.build.reporter import Reporter
from thunder_train.build.run_cache import RunCache
from thunder_train.build.stage import STATS, Sha256Checker, Stage, guarding, task, utility
from thunder_train.cli import tasks
from thunder_train.config import load
from thunder_train.core import paths, process
from thunder_train.pipeline import graph

Tasks = Iterator[dict[str, Any]]
Part = TypeVar("Part")

try:
    PROJECT = load.load(Path(), STATS)
except ThunderError as problem:
    raise InvalidDodoFile(str(problem)) from None

CACHE = RunCache(PROJECT.cache, PROJECT.cache_limit_bytes)
DOIT_CONFIG = {
    "default_tasks": [f"manifest:{name}" for name in PROJECT.default],
    "check_file_uptodate": Sha256Checker,
    "reporter": Reporter,
}
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, process.interrupt)


def task_data() -> Tasks:
    """Sources -> train, valid and test rows with their manifest."""
    return _stages(graph.data, PROJECT.datasets)


def task_model() -> Tasks:
    """Hub, folder or nano -> model.lock.json."""
    return _stages(graph.model, PROJECT.models)


def task_hostfile() -> Tasks:
    """A cluster of thunder.toml -> hostfile.json."""
    return _stages(graph.hostfile, PROJECT.recipes)


def task_scripts() -> Tasks:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    return _stages(graph.scripts, PROJECT.recipes)


def task_check() -> Tasks:
    """Preflight: hosts answer, ranks join, their sum is right. Runs before each remote training."""
    for recipe in PROJECT.recipes.values():
        preflight = task(graph.check(recipe), CACHE)
        yield guarding(preflight, graph.train(recipe)) if recipe.cluster.is_remote else preflight


def task_train() -> Tasks:
    """launch.sh on the cluster -> adapter."""
    for recipe in PROJECT.recipes.values():
        yield {**task(graph.train(recipe), CACHE), "task_dep": graph.before_train(recipe)}


def task_evaluate() -> Tasks:
    """Base against adapter on held-out rows -> eval.json."""
    return _stages(graph.evaluate, PROJECT.recipes)


def task_report() -> Tasks:
    """Everything measured -> report.md and the promotion decision."""
    return _stages(graph.report, PROJECT.recipes)


def task_manifest() -> Tasks:
    """The run's identity, inputs, outputs and metrics -> manifest.json, to be committed."""
    return _stages(graph.manifest, PROJECT.recipes)


def task_again() -> Tasks:
    """Make a run again from its manifest in a clean folder and compare every bit."""
    for name in PROJECT.recipes:  # doit refuses a creator named as a command, and `doit reproduce -m PATH` is one
        yield {**tasks.task(name, tasks.reproduce_run, paths.run_manifest(name)), "basename": "reproduce"}


def task_hosts() -> Tasks:
    """Ask the hosts of a cluster for their addresses and print its table, to paste into thunder.toml."""
    for name, cluster in PROJECT.remote_clusters.items():
        yield tasks.task(name, tasks.show_hosts, cluster)


def task_sync() -> Tasks:
    """Copy project, rows, tokens and model to every remote host where they differ. Part of train and evaluate."""
    for name, recipe in PROJECT.recipes.items():
        yield {**tasks.task(name, tasks.sync_hosts, recipe), "task_dep": graph.before_sync(recipe)}


def task_fit() -> Tasks:
    """Estimate what a training needs: memory of a rank, messages, seconds of a step, advice."""
    for name, recipe in PROJECT.recipes.items():
        yield {**tasks.task(name, tasks.show_fit, recipe), "task_dep": graph.before_fit(recipe)}


def task_tokens() -> Tasks:
    """Show the tokens that a training will see: lengths, targets, padding, and rows token by token [--rows N]."""
    for name, recipe in PROJECT.recipes.items():
        yield {**tasks.task(name, tasks.show_tokens, recipe, tasks.ROWS), "task_dep": graph.before_tokens(recipe)}


def task_replay() -> Tasks:
    """Decide a run's proposals again from its decisions.jsonl and show which decisions differ."""
    for name, recipe in PROJECT.recipes.items():
        yield {**tasks.task(name, tasks.replay_decisions, recipe), "task_dep": [f"evaluate:{name}"]}


def task_index() -> dict[str, Any]:
    """All runs on one page, sortable, any two compared -> runs/index.html."""
    return task(graph.index([*PROJECT.recipes]), CACHE)


def task_test() -> dict[str, Any]:
    """Run the test suite, two files at a time: doit test [-- pytest's arguments]."""
    return utility("pytest -n 2 --dist loadfile")


def task_lint() -> dict[str, Any]:
    """Check format, lint and types."""
    return utility("ruff format --check", "ruff check", "mypy")


def task_reference() -> dict[str, Any]:
    """Write docs/recipe.md and the editors' JSON schemas from the configuration's tables."""
    return utility("thunder_train.config.reference")


def _stages(stage: Callable[[Part], Stage], parts: Mapping[str, Part]) -> Tasks:
    """The task of a stage for each dataset, model or recipe."""
    return (task(stage(part), CACHE) for part in parts.values())
