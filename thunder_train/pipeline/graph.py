"""Each stage's place in the graph: what it reads, which files it takes and makes, which code decides its output.

stages.py does the work. It is imported only when a stage runs, because a build in which nothing runs must stay fast.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from thunder_train import models
from thunder_train.build.stage import STATS, Reads, Stage
from thunder_train.config.dataset import Dataset
from thunder_train.config.project import Cluster, Model, Recipe, section
from thunder_train.core import code_hash, files, paths

DATA_CODE = ("data.builder",)
"""Start modules of the code that decides a dataset's rows, splits and manifest; its audit page decides no number."""
TRAIN_CODE = ("worker.train.result",)
EVALUATE_CODE = ("worker.evaluation", "evaluate.conditions")


def data(dataset: Dataset) -> Stage:
    """Sources -> rows and their manifest. A missing source is not an input; the stage itself reports it."""
    patterns = [pattern for source in dataset.sources for pattern in (source.path, source.references)]
    sources = [path for pattern in patterns for path in files.expand(pattern, Path())]
    inputs = (*sources, *dataset.templates, f"templates/{paths.AUDIT}.j2")
    return Stage(
        name=f"data:{dataset.name}",
        make=lambda out: _stages().data(dataset, out, code=code_hash.digest(DATA_CODE, STATS)),
        targets=tuple(f"{paths.dataset(dataset.name)}/{name}" for name in paths.DATA),
        inputs=tuple(path for path in inputs if Path(path).is_file()),
        reads=Reads(dataset=section(dataset)),
        code=(*DATA_CODE, "data.audit"),
    )


def model(base: Model) -> Stage:
    """Hub, folder or nano -> a base model's lock, and the nano model itself."""
    return Stage(
        name=f"model:{base.name}",
        make=lambda out: _stages().model(base, out),
        targets=models.targets(base),
        inputs=models.inputs(base, Path()),
        reads=Reads(model=section(base)),
        code=_model_code(base),
        is_cached=base.kind == "nano",  # the files of the others lie elsewhere and may have been deleted
    )


def hostfile(recipe: Recipe) -> Stage:
    """A cluster of thunder.toml -> hostfile.json."""
    return _stage(
        recipe,
        "hostfile",
        make=lambda out: _stages().hostfile(recipe, out),
        targets=("hostfile.json",),
        inputs=(),
        reads=_cluster(recipe.cluster),
        code=("cluster.hostfile",),
    )


def scripts(recipe: Recipe) -> Stage:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    return _stage(
        recipe,
        "scripts",
        make=lambda out: _stages().scripts(recipe, out),
        targets=(*paths.SCRIPTS, "recipe.toml"),
        inputs=tuple(f"templates/{name}.j2" for name in paths.SCRIPTS),
        reads=_whole(recipe),
        code=("launch.scripts",),
    )


def check(recipe: Recipe) -> Stage:
    """The cluster -> preflight.json."""
    return _stage(
        recipe,
        "check",
        make=lambda out: _stages().check(recipe, out),
        targets=("preflight.json",),
        inputs=(),
        reads=_checked(recipe.cluster, recipe.build.environment),
        code=("cluster.preflight", "agent.main", "worker.allreduce_check"),
        is_cached=False,  # hosts change: an earlier preflight says nothing about them now
    )


def train(recipe: Recipe) -> Stage:
    """launch.sh -> adapter, metrics, done.json."""
    return _stage(
        recipe,
        "train",
        make=lambda out: _stages().train(recipe, out, key=train(recipe).key()),
        targets=paths.TRAINED,
        inputs=_inputs(recipe, "hostfile.json", "launch.sh"),
        reads=Reads(train=section(recipe.train), environment=environment(recipe.build.environment)),
        code=TRAIN_CODE,
    )


def evaluate(recipe: Recipe) -> Stage:
    """Adapter and held-out rows -> predictions.jsonl, decisions.jsonl, eval.json."""
    return _stage(
        recipe,
        "evaluate",
        make=lambda out: _stages().evaluate(recipe, out),
        targets=paths.EVALUATED,
        inputs=(*_inputs(recipe, "hostfile.json", "evaluate.sh", *paths.ADAPTER), *_gate_programs(recipe)),
        reads=Reads(evaluate=section(recipe.evaluate), environment=environment(recipe.build.environment)),
        code=EVALUATE_CODE,
    )


def report(recipe: Recipe) -> Stage:
    """Everything measured -> report.md, report.html and the promotion decision."""
    templates = [f"templates/{name}.j2" for name in (*paths.REPORTS, paths.STYLE)]
    return _stage(
        recipe,
        "report",
        make=lambda out: _stages().report(recipe, out),
        targets=(*paths.REPORTS, "promotion.json"),
        inputs=(*_inputs(recipe, *paths.MEASURED), *templates),
        reads=_whole(recipe),
        code=("report.run_report", "evaluate.promotion"),
    )


def manifest(recipe: Recipe) -> Stage:
    """The run's identity, inputs, outputs and metrics -> manifest.json."""
    decisive = {"data": DATA_CODE, "model": _model_code(recipe.model), "train": TRAIN_CODE, "evaluate": EVALUATE_CODE}
    starts = dict.fromkeys(start for code in decisive.values() for start in code)
    return _stage(
        recipe,
        "manifest",
        make=lambda out: _stages().manifest(recipe, out, code=_digests(decisive)),
        targets=("manifest.json",),
        inputs=_inputs(recipe, *paths.OUTPUTS),
        reads=_whole(recipe),
        code=("reproduce.manifest", *starts),  # the manifest records a hash of the code of each stage
    )


def before_train(recipe: Recipe) -> list[str]:
    """Tasks that run first: the preflight fails before a model's gigabytes are fetched, and reads the scripts."""
    return [f"{stage}:{recipe.name}" for stage in ("scripts", "hostfile", "check")]


def before_sync(recipe: Recipe) -> list[str]:
    """Tasks that make what a sync copies to the hosts."""
    name = recipe.name
    return [f"data:{recipe.dataset.name}", f"model:{recipe.model.name}", f"scripts:{name}", f"hostfile:{name}"]


def before_fit(recipe: Recipe) -> list[str]:
    """Tasks that make what an estimate reads: config.json, which a model that is not nano has already."""
    return [f"model:{recipe.model.name}"] if recipe.model.kind == "nano" else []


def before_tokens(recipe: Recipe) -> list[str]:
    """Tasks that make what a preview of tokens reads: rows and a tokenizer, for which a hub model need not be whole."""
    model_task = [f"model:{recipe.model.name}"] if recipe.model.kind != "hub" else []
    return [f"data:{recipe.dataset.name}", *model_task]


def _digests(starts: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """{stage: hash of its code} for {stage: its start modules}."""
    return {name: code_hash.digest(modules, STATS) for name, modules in starts.items()}


def _model_code(base: Model) -> tuple[str, ...]:
    return ("models", "worker.nano") if base.kind == "nano" else ("models",)


def _gate_programs(recipe: Recipe) -> tuple[str, ...]:
    """Files of the project that an external gate runs: an edited gate decides again."""
    if not recipe.evaluate.gate.command:
        return ()
    from thunder_train.evaluate import external_gate  # late: few recipes have one

    return tuple(sorted(external_gate.programs(recipe.evaluate.gate.command)))


@cache
def _whole(recipe: Recipe) -> Reads:
    return Reads(section(recipe))


@cache
def _cluster(cluster: Cluster) -> Reads:
    return Reads(cluster=section(cluster))


@cache
def _checked(cluster: Cluster, kind: str) -> Reads:
    return Reads(cluster=section(cluster), environment=environment(kind))


@cache
def environment(kind: str) -> dict[str, str]:
    """The versions whose change makes train and evaluate stale. kind: [build] environment of the recipe."""
    if kind == "none":
        return {}
    versions = {name: _version(name) for name in ("mlx", "mlx-lm")}
    if kind == "strict":
        import platform  # late: few recipes ask

        versions |= {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    return versions


def _version(package: str) -> str:
    """The version of an installed package. importlib.metadata.version parses the whole file: a millisecond each."""
    lines = (importlib.metadata.distribution(package).read_text("METADATA") or "").splitlines()
    return next(line.removeprefix("Version: ") for line in lines if line.startswith("Version: "))


def _stages() -> Any:
    """The module that does the work, imported when the first stage runs."""
    from thunder_train.pipeline import stages

    return stages


def _stage(
    recipe: Recipe,
    name: str,
    *,
    make: Callable[[Path], None],
    targets: tuple[str, ...],
    inputs: tuple[str, ...],
    reads: Reads,
    code: tuple[str, ...],
    is_cached: bool = True,
) -> Stage:
    """A stage of a recipe. targets: names in the run's folder."""
    folder = paths.run(recipe.name)
    targets = tuple(f"{folder}/{target}" for target in targets)
    return Stage(f"{name}:{recipe.name}", make, targets, inputs, reads, code, is_cached)


def _inputs(recipe: Recipe, *names: str) -> tuple[str, ...]:
    """The dataset and the model as one small file each, and files of the run's folder by their names."""
    shared = (paths.dataset_manifest(recipe.dataset.name), paths.model_lock(recipe.model.name))
    return (*shared, *(f"{paths.run(recipe.name)}/{name}" for name in names))
