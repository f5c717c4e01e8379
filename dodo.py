"""The task graph, one task creator per stage; thunder_train/runs.py holds what a stage does, this file when.

data ─┬─> train ─> evaluate ─> report ─> manifest        check runs before a training, always before a remote one
model ┤     hostfile ─> scripts ─> train
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile, TaskFailed

from thunder_train import ThunderError, build, cluster, dataset, load, manifest, models, reference, runs
from thunder_train.build import Stage
from thunder_train.config import Recipe, section
from thunder_train.process import command

ROOT = Path()
Tasks = Iterator[dict[str, Any]]

try:
    PROJECT = load.load(ROOT)
except ThunderError as problem:
    raise InvalidDodoFile(str(problem)) from None

DOIT_CONFIG = {
    "default_tasks": [f"manifest:{name}" for name in PROJECT.default],
    "check_file_uptodate": build.Sha256Checker,
}
signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends doit as Ctrl-C does: children first


def task_data() -> Tasks:
    """Sources -> train, valid and test rows with their manifest."""
    for each in PROJECT.datasets.values():
        home = f"data/{each.name}"
        sources = [path for source in each.sources for path in (source.path, source.references)]
        yield build.task(
            Stage(
                name=f"data:{each.name}",
                make=lambda out, each=each, home=home: dataset.build(each, ROOT, out / home),
                targets=tuple(f"{home}/{name}" for name in dataset.FILES),
                inputs=tuple(path for path in (*sources, each.template) if os.path.isfile(path)),
                reads={"dataset": section(each)},
                code=("dataset",),
            )
        )


def task_model() -> Tasks:
    """Hub, folder or nano -> model.lock.json."""
    for each in PROJECT.models.values():
        yield build.task(
            Stage(
                name=f"model:{each.name}",
                make=lambda out, each=each: models.build(each, ROOT, out),
                targets=models.targets(each),
                inputs=models.inputs(each, ROOT),
                reads={"model": section(each)},
                code=("models", "worker.nano") if each.kind == "nano" else ("models",),
            )
        )


def task_hostfile() -> Tasks:
    """A cluster of thunder.toml -> hostfile.json."""
    for recipe in PROJECT.recipes.values():
        reads = {"cluster": section(recipe.cluster)}
        yield build.task(_stage(recipe, runs.hostfile, ["hostfile.json"], [], reads, "cluster"))


def task_scripts() -> Tasks:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    templates = [f"templates/{name}" for name in runs.SCRIPTS.values()]
    for recipe in PROJECT.recipes.values():
        targets = [*runs.SCRIPTS, "recipe.toml"]
        yield build.task(_stage(recipe, runs.scripts, targets, templates, section(recipe), "render"))


def task_check() -> Tasks:
    """Preflight: every host answers, every rank joins, the all-sum is right. Remote: before each training."""
    for recipe in PROJECT.recipes.values():
        reads = {"cluster": section(recipe.cluster), "environment": runs.environment(recipe)}
        inputs = [f"runs/{recipe.name}/hostfile.json"]
        task = build.task(_stage(recipe, runs.check, ["preflight.json"], inputs, reads, "cluster", "worker.smoke"))
        if cluster.is_remote(recipe.cluster):
            task["uptodate"] = [(build.is_current, [_train(recipe)])]
        yield task


def task_train() -> Tasks:
    """launch.sh on the cluster -> adapter."""
    for recipe in PROJECT.recipes.values():
        yield {**build.task(_train(recipe)), "task_dep": [f"check:{recipe.name}"]}


def task_evaluate() -> Tasks:
    """Base against adapter on held-out rows -> eval.json."""
    for recipe in PROJECT.recipes.values():
        own = ["evaluate.sh", "adapter/adapters.safetensors", "adapter/adapter_config.json"]
        inputs = [*_inputs(recipe), *(f"runs/{recipe.name}/{name}" for name in own)]
        reads = {"evaluate": section(recipe.evaluate), "environment": runs.environment(recipe)}
        targets = ["predictions.jsonl", "eval.json"]
        yield build.task(_stage(recipe, runs.evaluate, targets, inputs, reads, "worker.generate", "scores"))


def task_report() -> Tasks:
    """Everything measured -> report.md and the promotion decision."""
    for recipe in PROJECT.recipes.values():
        own = ["preflight.json", "adapter/done.json", "metrics.jsonl", "eval.json"]
        inputs = [*_inputs(recipe), *(f"runs/{recipe.name}/{name}" for name in own), "templates/report.md.j2"]
        targets = ["report.md", "promotion.json"]
        yield build.task(_stage(recipe, runs.report, targets, inputs, section(recipe), "report", "promotion"))


def task_manifest() -> Tasks:
    """The run's identity, inputs, outputs and metrics -> manifest.json, to be committed."""
    for recipe in PROJECT.recipes.values():
        inputs = [*_inputs(recipe), *(f"runs/{recipe.name}/{name}" for name in manifest.OUTPUTS)]
        yield build.task(_stage(recipe, runs.manifest, ["manifest.json"], inputs, section(recipe), "manifest"))


def task_test() -> dict[str, Any]:
    """Run the test suite: doit test [pytest's arguments]."""
    return _utility("pytest")


def task_lint() -> dict[str, Any]:
    """Check format, lint and types."""
    return _utility("ruff format --check", "ruff check", "mypy")


def task_reference() -> dict[str, Any]:
    """Write docs/recipe.md and the editors' JSON schemas from schema.py."""
    return {"actions": [lambda: reference.write(ROOT)]}


def _stage(
    recipe: Recipe, make: Callable[..., None], targets: list[str], inputs: list[str], reads: Any, *code: str
) -> Stage:
    return Stage(
        name=f"{make.__name__}:{recipe.name}",
        make=lambda out: make(recipe, out),
        targets=tuple(f"runs/{recipe.name}/{name}" for name in targets),
        inputs=tuple(inputs),
        reads=reads,
        code=(f"runs:{make.__name__}", *code),
    )


def _train(recipe: Recipe) -> Stage:
    inputs = [*_inputs(recipe), *(f"runs/{recipe.name}/{name}" for name in ("hostfile.json", "launch.sh"))]
    reads = {"train": section(recipe.train), "environment": runs.environment(recipe)}
    return _stage(recipe, runs.train, runs.trained_files(recipe), inputs, reads, "worker.__main__", "launch")


def _inputs(recipe: Recipe) -> list[str]:
    """The dataset and the model, as one small file each."""
    return [f"data/{recipe.dataset.name}/manifest.json", f"runs/models/{recipe.model.name}/model.lock.json"]


def _utility(*commands: str) -> dict[str, Any]:
    def act(arguments: list[str]) -> Any:
        try:
            for words in commands:
                command([sys.executable, "-m", *words.split(), *arguments], where=words, mend="read the lines above")
        except ThunderError as error:
            return TaskFailed(str(error))

    return {"actions": [act], "pos_arg": "arguments", "io": {"capture": False}, "uptodate": [False]}
