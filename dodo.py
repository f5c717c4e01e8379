"""The task graph, one task creator per stage; thunder_train/runs.py holds what a stage does, this file when.

data ─┬─> train ─> evaluate ─> report ─> manifest        check runs before a training, always before a remote one
model ┤     hostfile ─> scripts ─> train
"""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile

from thunder_train import (
    ThunderError,
    build,
    cluster,
    console,
    load,
    manifest,
    process,
    reference,
    runs,
)
from thunder_train.cache import RunCache
from thunder_train.config import section

ROOT = Path()
Tasks = Iterator[dict[str, Any]]

try:
    PROJECT = load.load(ROOT)
except ThunderError as problem:
    raise InvalidDodoFile(str(problem)) from None

DOIT_CONFIG = {
    "default_tasks": [f"manifest:{name}" for name in PROJECT.default],
    "check_file_uptodate": build.Sha256Checker,
    "reporter": console.Reporter,
}
CACHE = RunCache(PROJECT.cache, PROJECT.cache_limit_bytes)
task = partial(build.task, cache=CACHE)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, process.interrupt)


def task_data() -> Tasks:
    """Sources -> train, valid and test rows with their manifest."""
    for each in PROJECT.datasets.values():
        yield task(runs.data_stage(each))


def task_model() -> Tasks:
    """Hub, folder or nano -> model.lock.json."""
    for each in PROJECT.models.values():
        yield task(runs.model_stage(each))


def task_hostfile() -> Tasks:
    """A cluster of thunder.toml -> hostfile.json."""
    for recipe in PROJECT.recipes.values():
        reads = {"cluster": section(recipe.cluster)}
        yield task(runs.stage(recipe, runs.hostfile, ["hostfile.json"], [], reads, "cluster"))


def task_scripts() -> Tasks:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    templates = [f"templates/{name}" for name in runs.SCRIPTS.values()]
    for recipe in PROJECT.recipes.values():
        targets = [*runs.SCRIPTS, "recipe.toml"]
        yield task(runs.stage(recipe, runs.scripts, targets, templates, section(recipe), "render"))


def task_check() -> Tasks:
    """Preflight: every host answers, every rank joins, the all-sum is right. Remote: before each training."""
    for recipe in PROJECT.recipes.values():
        reads = {"cluster": section(recipe.cluster), "environment": runs.environment(recipe)}
        checked = task(runs.stage(recipe, runs.check, ["preflight.json"], [], reads, "cluster", "worker.smoke"))
        if cluster.is_remote(recipe.cluster):
            checked["uptodate"] = [(build.is_current, [runs.train_stage(recipe)])]
        yield checked


def task_train() -> Tasks:
    """launch.sh on the cluster -> adapter."""
    for recipe in PROJECT.recipes.values():
        # In this order: the preflight fails before a model's gigabytes are fetched, and after the scripts are there.
        first = [f"{stage}:{recipe.name}" for stage in ("scripts", "hostfile", "check")]
        yield {**task(runs.train_stage(recipe)), "task_dep": first}


def task_evaluate() -> Tasks:
    """Base against adapter on held-out rows -> eval.json."""
    for recipe in PROJECT.recipes.values():
        adapter = ["adapter/adapters.safetensors", "adapter/adapter_config.json"]
        inputs = runs.inputs(recipe, "evaluate.sh", *adapter)
        reads = {"evaluate": section(recipe.evaluate), "environment": runs.environment(recipe)}
        targets = ["predictions.jsonl", "eval.json"]
        yield task(runs.stage(recipe, runs.evaluate, targets, inputs, reads, "worker.generate", "scores"))


def task_report() -> Tasks:
    """Everything measured -> report.md and the promotion decision."""
    for recipe in PROJECT.recipes.values():
        measured = ["preflight.json", "adapter/done.json", "metrics.jsonl", "eval.json"]
        inputs = [*runs.inputs(recipe, *measured), "templates/report.md.j2"]
        targets = ["report.md", "promotion.json"]
        yield task(runs.stage(recipe, runs.report, targets, inputs, section(recipe), "report", "promotion"))


def task_manifest() -> Tasks:
    """The run's identity, inputs, outputs and metrics -> manifest.json, to be committed."""
    for recipe in PROJECT.recipes.values():
        inputs = runs.inputs(recipe, *manifest.OUTPUTS)
        yield task(runs.stage(recipe, runs.manifest, ["manifest.json"], inputs, section(recipe), "manifest"))


def task_test() -> dict[str, Any]:
    """Run the test suite: doit test [pytest's arguments]."""
    return build.utility("pytest")


def task_lint() -> dict[str, Any]:
    """Check format, lint and types."""
    return build.utility("ruff format --check", "ruff check", "mypy")


def task_reference() -> dict[str, Any]:
    """Write docs/recipe.md and the editors' JSON schemas from schema.py."""
    return {"actions": [lambda: reference.write(ROOT)]}
