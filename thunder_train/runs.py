"""What each stage of a run does, from its input files to its targets below `out`. dodo.py says when.

`out` is a staging folder: a stage writes runs/<recipe>/... below it, and the build moves finished files into place.
"""

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, cluster, contradictions, files, models, promotion, raise_all, render
from thunder_train import dataset as datasets
from thunder_train import manifest as manifests
from thunder_train import report as reports
from thunder_train import scores as scoring
from thunder_train.build import Stage
from thunder_train.config import Dataset, Model, Recipe, resolved_toml, section
from thunder_train.process import command

SCRIPTS = {"launch.sh": "launch.sh.j2", "evaluate.sh": "evaluate.sh.j2"}
"""Rendered script -> its template in templates/."""


def environment(recipe: Recipe) -> dict[str, str]:
    """The environment whose change makes train and evaluate stale, as [build] environment says."""
    if recipe.build.environment == "none":
        return {}
    versions = {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm")}
    if recipe.build.environment == "strict":
        versions |= {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    return versions


def hostfile(recipe: Recipe, out: Path) -> None:
    """hostfile.json."""
    files.write_json(_run(recipe, out) / "hostfile.json", cluster.hostfile(recipe.cluster))


def scripts(recipe: Recipe, out: Path) -> None:
    """launch.sh, evaluate.sh and the resolved recipe."""
    flags = {"launch.sh": render.launch_flags(recipe), "evaluate.sh": render.evaluate_flags(recipe)}
    for name, template in SCRIPTS.items():
        text = render.shell(Path("templates") / template, {"recipe": recipe.name, "flags": flags[name]})
        files.write_text(_run(recipe, out) / name, text)
    files.write_text(_run(recipe, out) / "recipe.toml", resolved_toml(recipe))


def check(recipe: Recipe, out: Path) -> None:
    """preflight.json: every rank's word, or every problem at once."""
    found = cluster.preflight(recipe.cluster, _run(recipe) / "logs" / "check")
    files.write_json(_run(recipe, out) / "preflight.json", found)


def train(recipe: Recipe, out: Path) -> None:
    """The adapter, its metrics and done.json, by running launch.sh with its output in staging."""
    run, staged, rows = _run(recipe), _run(recipe, out), _split_rows(recipe)
    raise_all(contradictions.batch_problems(recipe, rows["train"]))
    if cluster.is_remote(recipe.cluster):  # hosts may have changed since the check task ran, and hours are at stake
        cluster.preflight(recipe.cluster, run / "logs" / "check")
    start = time.perf_counter()
    command(
        ["bash", str(run / "launch.sh"), "--adapter-path", str(staged / "adapter")],
        where=f"training {recipe.name}",
        mend=f"read the lines above and {run}/logs/",
    )
    done = files.read_json(staged / "adapter" / "done.json", mend="the training ended without it; read its logs")
    read = {name: done["rows"][name] + done["dropped"][name] for name in ("train", "valid")}
    if any(read[name] != rows[name] for name in read):
        mend = f"run `./doit data:{recipe.dataset.name}`"
        raise ThunderError(f"trained on {read} rows, its manifest has {rows}", recipe.dataset.name, mend)
    facts = {"seconds": round(time.perf_counter() - start, 3), "machine": platform.platform()}
    files.write_json(staged / "timing.json", facts)


def trained_files(recipe: Recipe) -> list[str]:
    """What a training leaves: the final adapter, and those saved on the way, named by step as mlx-lm names them."""
    steps = range(recipe.train.save_every, recipe.train.num_iters + 1, recipe.train.save_every)
    saved = [f"adapter/{step:07d}_adapters.safetensors" for step in steps]
    final = ["adapter/adapters.safetensors", "adapter/adapter_config.json", "adapter/done.json"]
    return [*saved, *final, "metrics.jsonl", "timing.json"]


def evaluate(recipe: Recipe, out: Path) -> None:
    """predictions.jsonl by running evaluate.sh, eval.json by scoring them here."""
    run, staged = _run(recipe), _run(recipe, out)
    predictions, losses = staged / "predictions.jsonl", staged / "losses.json"
    command(
        ["bash", str(run / "evaluate.sh"), "--predictions", str(predictions), "--losses", str(losses)],
        where=f"evaluating {recipe.name}",
        mend="read the lines above",
    )
    files.write_json(staged / "eval.json", scoring.evaluate(files.read_jsonl(predictions), files.read_json(losses)))


def report(recipe: Recipe, out: Path) -> None:
    """report.md and the decision it carries, promotion.json."""
    run, data = _run(recipe), Path("data") / recipe.dataset.name / "manifest.json"
    found = [files.read_json(path) for path in (run / "eval.json", data, run / "adapter" / "done.json")]
    decision = promotion.decide(*found)
    files.write_json(_run(recipe, out) / "promotion.json", decision)
    files.write_text(_run(recipe, out) / "report.md", reports.build(recipe, Path(), decision))


def manifest(recipe: Recipe, out: Path) -> None:
    """manifest.json, the file to commit."""
    files.write_json(_run(recipe, out) / "manifest.json", manifests.build(recipe, Path()))


def data_stage(each: Dataset) -> Stage:
    """A dataset's rows and manifest. A source that is not there is no input; making the stage tells of it."""
    home = f"data/{each.name}"
    paths = [path for source in each.sources for path in (source.path, source.references)]
    return Stage(
        name=f"data:{each.name}",
        make=lambda out: _make_data(each, out / home),
        targets=tuple(f"{home}/{name}" for name in datasets.FILES),
        inputs=tuple(path for path in (*paths, each.template) if Path(path).is_file()),
        reads={"dataset": section(each)},
        code=("dataset",),
    )


def _make_data(each: Dataset, out: Path) -> None:
    datasets.build(each, Path(), out)


def model_stage(each: Model) -> Stage:
    """A base model's lock, and the nano model itself."""
    is_nano = each.kind == "nano"
    return Stage(
        name=f"model:{each.name}",
        make=lambda out: models.build(each, Path(), out),
        targets=models.targets(each),
        inputs=models.inputs(each, Path()),
        reads={"model": section(each)},
        code=("models", "worker.nano") if is_nano else ("models",),
        is_cached=is_nano,  # the files of others lie elsewhere, and only a look tells whether they still do
    )


def stage(
    recipe: Recipe,
    make: Callable[[Recipe, Path], None],
    targets: list[str],
    inputs: list[str],
    reads: dict[str, Any],
    *code: str,
) -> Stage:
    """A stage of a recipe, named after the function here that makes it. targets: names in the run's folder."""
    return Stage(
        name=f"{make.__name__}:{recipe.name}",
        make=lambda out: make(recipe, out),
        targets=tuple(f"runs/{recipe.name}/{name}" for name in targets),
        inputs=tuple(inputs),
        reads=reads,
        code=(f"runs:{make.__name__}", *code),
        is_cached=make is not check,  # a preflight tells of today
    )


def train_stage(recipe: Recipe) -> Stage:
    """The training, which the remote preflight asks about too."""
    found = [*inputs(recipe, "hostfile.json", "launch.sh")]
    reads = {"train": section(recipe.train), "environment": environment(recipe)}
    return stage(recipe, train, trained_files(recipe), found, reads, "worker.__main__", "launch")


def inputs(recipe: Recipe, *own: str) -> list[str]:
    """Files of the run's folder, and the dataset and the model as one small file each."""
    shared = [f"data/{recipe.dataset.name}/manifest.json", f"runs/models/{recipe.model.name}/model.lock.json"]
    return [*shared, *(f"runs/{recipe.name}/{name}" for name in own)]


def _run(recipe: Recipe, out: Path = Path()) -> Path:
    return out / "runs" / recipe.name


def _split_rows(recipe: Recipe) -> dict[str, int]:
    splits = files.read_json(Path("data") / recipe.dataset.name / "manifest.json")["splits"]
    return {name: split["rows"] for name, split in splits.items()}
