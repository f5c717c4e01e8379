"""Each stage's place in the graph: what it reads, which files it takes and gives, which code decides its output.

runs.py does the work and is imported only when a stage runs: a no-op must not pay for it.
"""

import importlib.metadata
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

from thunder_train import models
from thunder_train.build.stage import STATS, Stage
from thunder_train.config.dataset import Dataset
from thunder_train.config.project import Model, Recipe, section
from thunder_train.core import code_hash, files
from thunder_train.core import paths as layout

DATASET_CODE = ("data.builder",)
"""Start modules of the code that decides a dataset's rows, splits and manifest; its audit page decides no number."""


def data(dataset: Dataset) -> Stage:
    """Sources -> rows and their manifest. A source that is not there is no input; making the stage tells of it."""
    patterns = [pattern for source in dataset.sources for pattern in (source.path, source.references)]
    paths = [path for pattern in patterns for path in files.expand(pattern, Path())]
    page = f"templates/{layout.AUDIT}.j2"
    return Stage(
        name=f"data:{dataset.name}",
        make=partial(_make, "data", dataset),
        targets=tuple(f"data/{dataset.name}/{name}" for name in layout.DATA),
        inputs=tuple(path for path in (*paths, *dataset.templates, page) if Path(path).is_file()),
        reads={"dataset": section(dataset)},
        code=(*DATASET_CODE, "data.audit"),
    )


def model(each: Model) -> Stage:
    """Hub, folder or nano -> a base model's lock, and the nano model itself."""
    is_nano = each.kind == "nano"
    return Stage(
        name=f"model:{each.name}",
        make=partial(_make, "model", each),
        targets=models.targets(each),
        inputs=models.inputs(each, Path()),
        reads={"model": section(each)},
        code=("models", *(("worker.nano",) if is_nano else ())),
        is_cached=is_nano,  # the files of others lie elsewhere, and only a look tells whether they still do
    )


def hostfile(recipe: Recipe) -> Stage:
    """A cluster of thunder.toml -> hostfile.json."""
    return _stage(recipe, "hostfile", ("hostfile.json",), (), {"cluster": section(recipe.cluster)}, "cluster.hostfile")


def scripts(recipe: Recipe) -> Stage:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    templates = tuple(f"templates/{name}.j2" for name in layout.SCRIPTS)
    return _stage(recipe, "scripts", (*layout.SCRIPTS, "recipe.toml"), templates, section(recipe), "launch.scripts")


def check(recipe: Recipe) -> Stage:
    """The cluster -> preflight.json."""
    reads = {"cluster": section(recipe.cluster), "environment": environment(recipe)}
    return _stage(
        recipe, "check", ("preflight.json",), (), reads, "cluster.preflight", "agent.main", "worker.allreduce_check"
    )


def before_sync(recipe: Recipe) -> list[str]:
    """Tasks that make what a sync brings to the hosts."""
    name = recipe.name
    return [f"data:{recipe.dataset.name}", f"model:{recipe.model.name}", f"scripts:{name}", f"hostfile:{name}"]


def train(recipe: Recipe) -> Stage:
    """launch.sh -> adapter, metrics, done.json."""
    found = _inputs(recipe, "hostfile.json", "launch.sh")
    reads = {"train": section(recipe.train), "environment": environment(recipe)}
    return _stage(recipe, "train", layout.TRAINED, found, reads, "worker.train.result")


def evaluate(recipe: Recipe) -> Stage:
    """Adapter and held-out rows -> predictions.jsonl, decisions.jsonl, eval.json."""
    found = (*_inputs(recipe, "hostfile.json", "evaluate.sh", *layout.ADAPTER), *_programs(recipe))
    reads = {"evaluate": section(recipe.evaluate), "environment": environment(recipe)}
    return _stage(recipe, "evaluate", layout.EVALUATED, found, reads, "worker.evaluation", "evaluate.conditions")


def report(recipe: Recipe) -> Stage:
    """Everything measured -> report.md and the promotion decision."""
    found = (*_inputs(recipe, *layout.MEASURED), *(f"templates/{name}.j2" for name in (*layout.REPORTS, layout.STYLE)))
    targets = (*layout.REPORTS, "promotion.json")
    return _stage(recipe, "report", targets, found, section(recipe), "report.run_report", "evaluate.promotion")


def manifest(recipe: Recipe) -> Stage:
    """The run's identity, inputs, outputs and metrics -> manifest.json."""
    reads = {**section(recipe), "code": code_of(recipe)}
    return _stage(recipe, "manifest", ("manifest.json",), _inputs(recipe, *layout.OUTPUTS), reads, "reproduce.manifest")


def index(names: list[str]) -> Stage:
    """Every run's manifest -> runs/index.html."""
    manifests = [f"runs/{name}/manifest.json" for name in names]
    found = [path for path in manifests if Path(path).is_file()]
    return Stage(
        name="index",
        make=partial(_make, "index", found),
        targets=("runs/index.html",),
        inputs=(*found, "templates/index.html.j2", "templates/index.js", f"templates/{layout.STYLE}.j2"),
        reads={},
        code=("report.runs_index",),
        is_cached=False,
    )


def code_of(recipe: Recipe) -> dict[str, str]:
    """A hash of the code behind each stage that decides a run's numbers, as the manifest tells it."""
    stages = (model(recipe.model), train(recipe), evaluate(recipe))
    starts = {"data": DATASET_CODE} | {stage.name.partition(":")[0]: stage.code for stage in stages}
    return {name: code_hash.digest(modules, STATS) for name, modules in starts.items()}


def _programs(recipe: Recipe) -> tuple[str, ...]:
    """Files of the project that an external gate is made of: an edited gate judges anew."""
    if not recipe.evaluate.gate.command:
        return ()
    from thunder_train.evaluate import external_gate  # late: few recipes have one

    return tuple(sorted(external_gate.programs(recipe.evaluate.gate.command)))


def environment(recipe: Recipe) -> dict[str, str]:
    """The environment whose change makes train and evaluate stale, as [build] environment says."""
    kind = recipe.build.environment
    if kind == "none":
        return {}
    versions = {name: _version(name) for name in ("mlx", "mlx-lm")}
    if kind == "strict":
        import platform  # late: few recipes ask

        versions |= {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    return versions


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _stage(
    recipe: Recipe, name: str, targets: tuple[str, ...], inputs: tuple[str, ...], reads: dict[str, Any], *starts: str
) -> Stage:
    """A stage of a recipe; `name` is also that of its function in runs.py. targets: names in the run's folder."""
    return Stage(
        name=f"{name}:{recipe.name}",
        make=partial(_make, name, recipe),
        targets=tuple(f"runs/{recipe.name}/{target}" for target in targets),
        inputs=inputs,
        reads=reads,
        code=starts,
        is_cached=name != "check",  # a preflight tells of today
    )


def _make(name: str, part: Any, out: Path) -> None:
    from thunder_train.pipeline import stages as runs

    getattr(runs, name)(part, out)


def _inputs(recipe: Recipe, *own: str) -> tuple[str, ...]:
    """The dataset and the model as one small file each, and files of the run's folder."""
    shared = (f"data/{recipe.dataset.name}/manifest.json", f"runs/models/{recipe.model.name}/model.lock.json")
    return (*shared, *(f"runs/{recipe.name}/{name}" for name in own))
