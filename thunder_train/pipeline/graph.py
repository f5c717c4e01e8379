"""Each stage's place in the graph: what it reads, which files it takes and makes, which code decides its output.

stages.py does the work. It is imported only when a stage runs, because a build in which nothing runs must stay fast.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from thunder_train import models
from thunder_train.build import accepted
from thunder_train.build.environment import COMPARED
from thunder_train.build.key import STATS, Reads, Stage, View
from thunder_train.build.sources import Sources
from thunder_train.config import start
from thunder_train.config.dataset import Dataset
from thunder_train.config.project import CHAT, Model, Recipe, section
from thunder_train.core import code_hash, files, paths, revisions, shipped
from thunder_train.pipeline import reads

DATA_CODE = revisions.CODE["data"]
"""Start modules of the code that decides a dataset's rows, splits and manifest; its audit page decides no number."""


def data(dataset: Dataset) -> Stage:
    """Sources -> rows and their manifest."""
    local = [source for source in dataset.sources if not source.repo]
    given = [path for source in local for path in (source.path, source.references) if path]
    patterns = [path for path in given if files.is_pattern(path)]
    one_each = [path for path in given if not files.is_pattern(path)]
    return Stage(
        name=f"data:{dataset.name}",
        make=lambda out: _stages().data(dataset, out, code=_stated("data")),
        targets=tuple(f"{paths.dataset(dataset.name)}/{name}" for name in paths.DATA),
        inputs=Sources((*one_each, *dataset.templates, f"templates/{paths.AUDIT}.j2"), patterns),
        reads=Reads(dataset=section(dataset)),
        code=(*DATA_CODE, "data.audit"),
        is_cached=len(local) == len(dataset.sources),  # a revision may mean another commit now
        page=f"{paths.dataset(dataset.name)}/{paths.AUDIT}",
        render=lambda out: _stages().audit_page(dataset, out),
    )


def model(base: Model) -> Stage:
    """Hub, folder or nano -> a base model's lock, and the nano model itself."""
    return Stage(
        name=f"model:{base.name}",
        make=lambda out: _stages().model(base, out),
        targets=models.targets(base),
        inputs=models.inputs(base, Path()),
        reads=Reads(model={name: value for name, value in section(base).items() if name not in CHAT}),
        code=revisions.CODE["model"],
        is_cached=base.kind == "nano",  # the files of the others lie elsewhere and may have been deleted
    )


def hostfile(recipe: Recipe) -> Stage:
    """A cluster of thunder.toml -> hostfile.json."""
    return _stage(
        recipe,
        "hostfile",
        make=lambda out: _stages().hostfile(recipe, out),
        targets=("hostfile.json",),
        inputs={},
        reads=reads.cluster(recipe.cluster),
        code=("cluster.hostfile",),
    )


def scripts(recipe: Recipe) -> Stage:
    """The recipe -> launch.sh and evaluate.sh, which show every flag."""
    return _stage(
        recipe,
        "scripts",
        make=lambda out: _stages().scripts(recipe, out),
        targets=(*recipe.scripts, "recipe.toml"),
        inputs={_template(name): name for name in recipe.scripts},
        reads=reads.whole(recipe),
        code=("launch.scripts",),
    )


def check(recipe: Recipe) -> Stage:
    """The cluster -> preflight.json."""
    return _stage(
        recipe,
        "check",
        make=lambda out: _stages().check(recipe, out),
        targets=("preflight.json",),
        inputs={},
        reads=reads.cluster(recipe.cluster),
        code=("cluster.preflight", "agent.main", "worker.allreduce_check"),
        machines=recipe.cluster.machines,
        compared=COMPARED[recipe.build.environment],
    )


def train(recipe: Recipe) -> Stage:
    """Rows and base model -> adapter, metrics, done.json, by running launch.sh; or an adapter from elsewhere."""
    if recipe.is_imported:
        return _adopt(recipe)

    @cache  # as the key is when the training begins
    def checkpoints() -> str:
        return paths.checkpoints(stage.partial_key())

    @cache
    def last() -> str:
        return paths.last_checkpoint(stage.open_key()) if stage.open_ended else ""

    folder = paths.dataset(recipe.dataset.name)
    stage = _stage(
        recipe,
        "train",
        make=lambda out: _stages().train(recipe, out, checkpoints(), last()),
        targets=paths.TRAINED,
        inputs={
            **_chat_inputs(recipe),
            **{f"{folder}/{name}.jsonl": name for name in ("train", "valid")},
            **_start_inputs(recipe),
        },
        reads=reads.trained(recipe),
        code=revisions.CODE["train"],
        is_cached=True,
        views=_script(recipe, "launch.sh"),
        compared=COMPARED[recipe.build.environment],
        operational=lambda: reads.operational(recipe),
        after=lambda: _stages().keep_last(recipe, checkpoints(), last()),
        machines=recipe.cluster.machines,
        open_ended=reads.open_ended(recipe),
    )
    return stage


def _adopt(recipe: Recipe) -> Stage:
    """An adapter that was trained elsewhere -> the same as mlx-lm keeps it, checked against its base, and done.json."""
    source = recipe.adapter.path
    names = paths.PEFT if os.path.isfile(os.path.join(source, paths.PEFT[0])) else paths.MLX_LM
    return _stage(
        recipe,
        "train",
        make=lambda out: _stages().adopt(recipe, out),
        targets=(*paths.ADAPTER, "adapter/done.json"),
        inputs={
            **_chat_inputs(recipe),
            **{f"{source}/{name}": name for name in names},
        },
        reads=Reads(adapter={"path": source}),
        code=("worker.adoption",),
        is_cached=True,
        compared=COMPARED[recipe.build.environment],
    )


def evaluate(recipe: Recipe) -> Stage:
    """Adapter and held-out rows -> predictions.jsonl, decisions.jsonl, eval.json, by running evaluate.sh."""
    folder = paths.dataset(recipe.dataset.name)
    rows = {f"{folder}/{name}.jsonl": name for name in ("train", "valid", "test", "decisions")}
    return _stage(
        recipe,
        "evaluate",
        make=lambda out: _stages().evaluate(recipe, out),
        targets=paths.EVALUATED,
        inputs={**_chat_inputs(recipe), **rows, **_own(recipe, *paths.ADAPTER), **_gate_programs(recipe)},
        reads=reads.evaluated(recipe),
        code=revisions.CODE["evaluate"],
        is_cached=True,
        views=_script(recipe, "evaluate.sh"),
        compared=COMPARED[recipe.build.environment],
        operational=lambda: reads.operational(recipe),
        after=lambda: _stages().forget(recipe, paths.answers(recipe.name)),
        machines=recipe.cluster.machines,
    )


def report(recipe: Recipe) -> Stage:
    """Everything measured -> report.md, report.html and the promotion decision."""
    measured = [name for name in paths.MEASURED if name not in paths.OF_TRAINING or not recipe.is_imported]
    templates = {shipped.file(name): name for name in paths.PAGES}
    return _stage(
        recipe,
        "report",
        make=lambda out: _stages().report(recipe, out, accepted.of_run(decided(recipe))),
        targets=(*paths.REPORTS, "promotion.json", paths.CARD),
        inputs={**_inputs(recipe, *measured), **templates},
        reads=reads.whole(recipe),
        code=("report.run_report", "report.model_card", "evaluate.promotion"),
        views=_all_scripts(recipe),  # they are part of the run_id
        optional=_accepted(recipe),
    )


def manifest(recipe: Recipe) -> Stage:
    """The run's identity, inputs, outputs and metrics -> manifest.json."""
    starts = dict.fromkeys(start for code in revisions.CODE.values() for start in code)
    return _stage(
        recipe,
        "manifest",
        make=lambda out: _stages().manifest(recipe, out, code=_stated_code(), entries=accepted.of_run(decided(recipe))),
        targets=("manifest.json",),
        inputs=_inputs(recipe, *paths.OUTPUTS),
        reads=reads.lasting(recipe),
        code=("reproduce.manifest", *starts),  # the manifest states the version of each stage's code
        views=_all_scripts(recipe),
        optional=_accepted(recipe),
    )


def before_train(recipe: Recipe) -> list[str]:
    """Tasks that run first: the preflight fails before a model's gigabytes are fetched, and reads the scripts."""
    stages = () if recipe.is_imported else ("scripts", "hostfile", "check")
    return [f"{stage}:{recipe.name}" for stage in stages]


def before_evaluate(recipe: Recipe) -> list[str]:
    """Tasks that run first, because the evaluation runs their scripts."""
    return [f"{stage}:{recipe.name}" for stage in ("scripts", "hostfile")]


def before_use(recipe: Recipe) -> list[str]:
    """Tasks that make what an adapter is used with: itself, and the script that starts the ranks."""
    return [*before_evaluate(recipe), f"train:{recipe.name}"]


def before_sync(recipe: Recipe) -> list[str]:
    """Tasks that make what a sync copies to the hosts."""
    name, first = recipe.name, start.recipe_of(recipe.train)
    own = [f"data:{recipe.dataset.name}", f"model:{recipe.model.name}", f"scripts:{name}", f"hostfile:{name}"]
    return [*own, *([f"train:{first}"] if first else [])]


def before_fit(recipe: Recipe) -> list[str]:
    """Tasks that make what an estimate reads: config.json, which a model that is not nano has already."""
    return [f"model:{recipe.model.name}"] if recipe.model.kind == "nano" else []


def before_tokens(recipe: Recipe) -> list[str]:
    """Tasks that make what a preview of tokens reads: rows and a tokenizer, for which a hub model need not be whole."""
    model_task = [f"model:{recipe.model.name}"] if recipe.model.kind != "hub" else []
    return [f"data:{recipe.dataset.name}", *model_task]


def decided(recipe: Recipe) -> list[str]:
    """The stages behind a run that have a revision."""
    return [
        f"data:{recipe.dataset.name}",
        f"model:{recipe.model.name}",
        f"train:{recipe.name}",
        f"evaluate:{recipe.name}",
    ]


def _template(name: str) -> str:
    """The template of a file: the project's own, or the package's."""
    return shipped.file(f"templates/{name}.j2")


def _stated(stage: str) -> str:
    """The version of a stage's code, as manifests state it."""
    return revisions.stated(stage, code_hash.digest(revisions.CODE[stage], STATS))


def _stated_code() -> dict[str, str]:
    return {stage: _stated(stage) for stage in revisions.CODE}


def _accepted(recipe: Recipe) -> tuple[str, ...]:
    """Files that say which outputs of a run were accepted."""
    return tuple(dict.fromkeys(str(accepted.file_of(stage)) for stage in decided(recipe)))


def _gate_programs(recipe: Recipe) -> dict[str, str]:
    """Files of the project that an external gate runs: an edited gate decides again."""
    if not recipe.evaluate.gate.command:
        return {}
    from thunder_train.evaluate import external_gate  # late: few recipes have one

    return {path: path for path in sorted(external_gate.programs(recipe.evaluate.gate.command))}


def _script(recipe: Recipe, name: str) -> dict[str, View]:
    """A script of the run, of which only what its template adds to the recipe decides."""
    return {
        f"{paths.run(recipe.name)}/{name}": View(
            part=lambda text: _scripts().additions(recipe, name, text),
            render=lambda: _scripts().rendered(recipe, name),
            reads=reads.whole(recipe),
            code=("launch.scripts",),
        )
    }


def _all_scripts(recipe: Recipe) -> dict[str, View]:
    return {path: view for name in recipe.scripts for path, view in _script(recipe, name).items()}


def _stages() -> Any:
    """The module that does the work, imported when the first stage runs."""
    from thunder_train.pipeline import stages

    return stages


def _scripts() -> Any:
    """The flags of launch.sh, imported when a script has changed."""
    from thunder_train.launch import scripts

    return scripts


def _stage(
    recipe: Recipe,
    name: str,
    *,
    make: Callable[[Path], None],
    targets: tuple[str, ...],
    inputs: Mapping[str, str],
    reads: Reads,
    code: tuple[str, ...],
    **more: Any,
) -> Stage:
    """A stage of a recipe. targets: names in the run's folder. more: fields of Stage."""
    folder = paths.run(recipe.name)
    targets = tuple(f"{folder}/{target}" for target in targets)
    return Stage(f"{name}:{recipe.name}", make, targets, inputs, reads, code, folder=folder, **more)


def _inputs(recipe: Recipe, *names: str) -> dict[str, str]:
    """The dataset and the model as one small file each, and files of the run's folder by their names."""
    dataset = {paths.dataset_manifest(recipe.dataset.name): "data"}
    return {**dataset, **_chat_inputs(recipe), **_start_inputs(recipe), **_own(recipe, *names)}


def _chat_inputs(recipe: Recipe) -> dict[str, str]:
    """The model as its lock, and the chat template if it is a file of the project."""
    path = recipe.model.chat_template
    template = {shipped.file(path): "chat template"} if path else {}
    return {paths.model_lock(recipe.model.name): "model", **template}


def _start_inputs(recipe: Recipe) -> dict[str, str]:
    """The adapter that a training begins with, if it begins with one; another recipe's training makes it first."""
    return {path: f"start {os.path.basename(path)}" for path in start.files_of(recipe.train)}


def _own(recipe: Recipe, *names: str) -> dict[str, str]:
    """Files of the run's folder by their names."""
    return {f"{paths.run(recipe.name)}/{name}": name for name in names}
