"""The task graph: one task creator per stage, and the tasks that only look. graph.py says what each reads and makes.

A project's dodo.py imports all of it and may add tasks of its own.

data  ─┬─────────────────────────────────┐
model ─┤                                 │
hostfile, scripts ─> check ─> train ─> evaluate ─> report ─> manifest
"""

import os
import sys

# doit puts the project's folder first; a random.py in it must not stand in for Python's own
sys.path.sort(key=lambda folder: folder == os.getcwd() or os.path.exists(os.path.join(folder, "dodo.py")))

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile

from thunder_train import ThunderError
from thunder_train.build.key import STATS
from thunder_train.build.reporter import Reporter
from thunder_train.build.run_cache import RunCache
from thunder_train.build.stage import Sha256Checker, guarding, task
from thunder_train.build.turns import TURNS
from thunder_train.cli import tasks, use
from thunder_train.config import load
from thunder_train.config.project import Recipe
from thunder_train.core import paths, process
from thunder_train.pipeline import graph

Tasks = Iterator[dict[str, Any]]

try:
    PROJECT, BROKEN = load.usable(Path(), STATS)
except ThunderError as problem:
    raise InvalidDodoFile(str(problem)) from problem
tasks.warn_of(BROKEN)
process.follow_signals()  # also where doit was started without ./doit
CACHE = RunCache(PROJECT.cache, PROJECT.cache_limit_bytes)
TURNS.at_once = PROJECT.trainings_at_once
DEFAULT = tasks.default_tasks(PROJECT)
DOIT_CONFIG = {
    # one small file per project, committed after every task (docs/decisions/0002)
    "backend": "thunder",
    "dep_file": paths.MEMORY,
    "par_type": "thread",
    "verbosity": 2,
    "default_tasks": DEFAULT,
    "check_file_uptodate": Sha256Checker,
    "reporter": Reporter,
    "store": PROJECT.store,  # the default of an option of push and pull
}


def task_data() -> Tasks:
    """Sources -> train, valid and test rows with their manifest."""
    return (task(graph.data(dataset), CACHE) for dataset in PROJECT.datasets.values())


def task_model() -> Tasks:
    """Hub, folder or nano -> model.lock.json."""
    return (task(graph.model(model), CACHE) for model in PROJECT.models.values())


def task_hostfile() -> Tasks:
    """A cluster of thunder.toml -> hostfile.json."""
    return _each("hostfile", lambda recipe: task(graph.hostfile(recipe), CACHE))


def task_scripts() -> Tasks:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    return _each("scripts", lambda recipe: task(graph.scripts(recipe), CACHE))


def task_check() -> Tasks:
    """Preflight: hosts answer, ranks join, their sum is right. Runs before each remote training."""
    for recipe in PROJECT.recipes.values():
        preflight = task(graph.check(recipe), CACHE)
        yield guarding(preflight, graph.train(recipe)) if recipe.cluster.is_remote else preflight
    yield from _others("check")


def task_train() -> Tasks:
    """launch.sh on the cluster -> adapter."""
    return _each("train", lambda recipe: {**task(graph.train(recipe), CACHE), "task_dep": graph.before_train(recipe)})


def task_evaluate() -> Tasks:
    """Base against adapter on held-out rows -> eval.json."""
    return _each(
        "evaluate", lambda recipe: {**task(graph.evaluate(recipe), CACHE), "task_dep": graph.before_evaluate(recipe)}
    )


def task_report() -> Tasks:
    """Everything measured -> report.md and the promotion decision."""
    return _each("report", lambda recipe: task(graph.report(recipe), CACHE))


def task_manifest() -> Tasks:
    """The run's identity, inputs, outputs and metrics -> manifest.json, to be committed."""
    return _each("manifest", lambda recipe: task(graph.manifest(recipe), CACHE))


def task_again() -> Tasks:
    """Make a run again from its manifest in a clean folder and compare every bit."""
    again = _each(
        "reproduce", lambda recipe: tasks.task(recipe.name, tasks.reproduce_run, paths.run_manifest(recipe.name))
    )
    # doit refuses a creator named as a command, and `doit reproduce -m PATH` is one
    return ({**subtask, "basename": "reproduce"} for subtask in again)


def task_attest() -> Tasks:
    """A run's provenance for others, as an in-toto statement -> attestation.json."""
    return _each("attest", lambda recipe: tasks.of(recipe, tasks.attest, before=[f"manifest:{recipe.name}"]))


def task_hosts() -> Tasks:
    """Ask the hosts of a cluster for their addresses and print its table, to paste into thunder.toml."""
    for name, cluster in PROJECT.remote_clusters.items():
        yield tasks.task(name, tasks.show_hosts, cluster)


def task_sync() -> Tasks:
    """Copy project, rows, tokens and model to every remote host where they differ. Part of train and evaluate."""
    return _each("sync", lambda recipe: tasks.of(recipe, tasks.sync_hosts, before=graph.before_sync(recipe)))


def task_fit() -> Tasks:
    """Estimate what a training needs: memory of a rank, messages, seconds of a step, advice."""
    return _each("fit", lambda recipe: tasks.of(recipe, tasks.show_fit, before=graph.before_fit(recipe)))


def task_tokens() -> Tasks:
    """Show the tokens that a training will see: lengths, targets, padding, and rows token by token [--rows N]."""
    return _each(
        "tokens", lambda recipe: tasks.of(recipe, tasks.show_tokens, tasks.ROWS, before=graph.before_tokens(recipe))
    )


def task_replay() -> Tasks:
    """Decide a run's proposals again from its decisions.jsonl and show which decisions differ."""
    return _each("replay", lambda recipe: tasks.of(recipe, tasks.replay_decisions, before=[f"evaluate:{recipe.name}"]))


def task_correct() -> Tasks:
    """New rows without references through adapter and gate [--rows FILE] [--out FILE]."""
    return _each(
        "correct",
        lambda recipe: tasks.of(recipe, use.correct_rows, use.ROWS_FILE, use.OUT, before=graph.before_use(recipe)),
    )


def task_chat() -> Tasks:
    """Talk with base and adapter [--prompt TEXT] [--base] [--max-tokens N]."""
    options = (use.PROMPT, use.BASE, use.MAX_TOKENS)
    return _each("chat", lambda recipe: tasks.of(recipe, use.chat, *options, before=graph.before_use(recipe)))


def task_fuse() -> Tasks:
    """The adapter in the weights of its base, as a model folder [--dequantize]."""
    return _each("fuse", lambda recipe: tasks.of(recipe, use.fuse, use.DEQUANTIZE, before=graph.before_use(recipe)))


def task_export() -> Tasks:
    """The adapter as PEFT loads it [--for OWNER/NAME of the base]."""
    return _each("export", lambda recipe: tasks.of(recipe, use.export, use.FOR, before=graph.before_use(recipe)))


def task_index() -> dict[str, Any]:
    """All runs that have a manifest on one page, sortable, any two compared -> runs/index.html. It builds no run."""
    return {"actions": [tasks.write_index], "targets": [paths.INDEX], "uptodate": [False], "clean": True}


def _each(kind: str, make: Callable[[Recipe], dict[str, Any]]) -> Tasks:
    """The task of each recipe, and `_others`. kind: what is before the colon of a task's name."""
    yield from map(make, PROJECT.recipes.values())
    yield from _others(kind)


def _others(kind: str) -> Tasks:
    """A task for each sweep, of all its recipes; then for each recipe that cannot be used, one that says why."""
    for name, members in PROJECT.sweeps.items():
        yield {"name": name, "actions": None, "task_dep": [f"{kind}:{member}" for member in members]}
    yield from tasks.unusable(BROKEN, PROJECT.recipes)
