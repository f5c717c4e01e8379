"""manifest.json: all that identifies a run, so that anyone can reproduce it.

`build` reads the files of the stages in runs/<recipe>/ and returns the manifest: sorted, without times, host names or
absolute paths. `read` returns a manifest from an untrusted source: its structure, names, paths and run_id are checked.
"""

import copy
import dataclasses
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from thunder_train import ThunderError, raise_all
from thunder_train.config import fields, start
from thunder_train.config.evaluate import Gate
from thunder_train.config.project import CHAT, Build, Recipe, deciding
from thunder_train.config.train import Train
from thunder_train.core import files, hub_cache, paths, shipped
from thunder_train.launch import scripts

SCHEMA = "thunder.run/2"
EARLIER = "thunder.run/1"
"""Had the operational keys in its recipe, and launch.sh, evaluate.sh and hostfile.json among its outputs."""
IDENTITY = ("recipe", "inputs", "model", "environment", "additions")
"""Parts of a manifest of which run_id is the hash; `additions` only where there are any."""
HINT = "restore it with git, or build the run again with this version"
MOST_BYTES = 64 << 20
"""Size of the largest manifest that is read; one of ours has kilobytes."""


class _File(msgspec.Struct):
    path: str
    sha256: str


class _Split(msgspec.Struct):
    rows: int
    sha256: str


class _Inputs(msgspec.Struct):
    dataset: str
    sources: list[_File]
    templates: list[_File]
    splits: dict[str, _Split]
    chat_template: _File | None = None
    adapter: list[_File] = []
    start: list[_File] = []


class _DeclaredSource(msgspec.Struct):
    path: str
    references: str


class _DeclaredDataset(msgspec.Struct):
    name: str
    templates: list[str]
    sources: list[_DeclaredSource]


class _DeclaredModel(msgspec.Struct):
    name: str
    kind: str
    path: str
    repo: str
    chat_template: str = ""


class _DeclaredCluster(msgspec.Struct):
    name: str
    backend: str
    ranks: int
    local: bool
    weights: list[float] = []


class _DeclaredAdapter(msgspec.Struct):
    path: str


class _DeclaredRecipe(msgspec.Struct):
    name: str
    cluster: _DeclaredCluster
    dataset: _DeclaredDataset
    model: _DeclaredModel
    evaluate: dict[str, Any]
    train: dict[str, Any] = {}
    adapter: _DeclaredAdapter | None = None
    promotion: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Raise ValueError unless the recipe trains an adapter or takes one."""
        if bool(self.train) == bool(self.adapter):
            raise ValueError("its recipe needs either train or adapter")


class _Lock(msgspec.Struct):
    files: list[_File]
    commit: str = ""


class _Run(msgspec.Struct):
    """The fields that `reproduce` and `compare` read. The recipe's keys are checked later, as those of any recipe."""

    run_id: str
    recipe: _DeclaredRecipe
    inputs: _Inputs
    model: _Lock
    environment: dict[str, str]
    code: dict[str, str]
    flags: dict[str, Any]
    outputs: list[_File]
    metrics: dict[str, Any]
    promotion: dict[str, Any]
    tolerance: float
    additions: dict[str, dict[str, str]] = {}


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe for the manifest: all that affects numbers, without operational keys.

    A cluster's hosts and environment variables stay in the project too: a manifest from elsewhere must not set them.
    """
    table = copy.deepcopy(deciding(recipe))
    for key in ("file", "build", "report", recipe.unused):
        del table[key]
    cluster = recipe.cluster
    table["cluster"] = {
        "name": cluster.name,
        "backend": cluster.backend,
        "ranks": len(cluster.hosts),
        "local": not cluster.is_remote,
        **({"weights": list(recipe.weights)} if recipe.weights else {}),
    }
    if not table["dataset"]["orthography_table"]:
        del table["dataset"]["orthography_table"]  # an empty table would fail the check for its required keys
    for key in CHAT:
        if table["model"][key] in ("", {}, True):
            del table["model"][key]  # so that the run keeps the run_id that it had before there was such a key
    table["model"]["path"] = files.portable(table["model"]["path"])
    table["dataset"]["templates"] = [files.portable(path) for path in table["dataset"]["templates"]]
    for source in table["dataset"]["sources"]:
        source |= {key: files.portable(source[key]) for key in ("path", "references")}
    return table


def identity(recipe: Recipe, root: Path) -> dict[str, Any]:
    """The parts in IDENTITY, and run_id: the first 12 hex digits of their sha256.

    The environment is the one that the training recorded in done.json.
    """
    data = files.read_json(root / paths.dataset_manifest(recipe.dataset.name))
    done = files.read_json(root / paths.run(recipe.name) / "adapter" / "done.json")
    parts = {
        "recipe": run_recipe(recipe),
        "inputs": {
            "dataset": data["dataset"],
            "sources": _hashed([_named(file, source) for source in data["sources"] for file in source["files"]]),
            "templates": _hashed(data["templates"]),
            "splits": {name: {key: split[key] for key in ("rows", "sha256")} for name, split in data["splits"].items()},
            "evidence_kinds": data["evidence_kinds"],
            **_chat_template(recipe, root),
            **({"adapter": _hashed(done["imported"]["files"])} if recipe.is_imported else {}),
            **_start(recipe, root),
        },
        "model": files.read_json(root / paths.model_lock(recipe.model.name)),
        "environment": done["environment"],
        **_additions(recipe, root),
    }
    return {**parts, "run_id": run_id_of(parts)}


def _chat_template(recipe: Recipe, root: Path) -> dict[str, Any]:
    """{"chat_template": path and sha256}; empty for the tokenizer's own template, which the model's lock covers."""
    path = recipe.model.chat_template
    return {"chat_template": {"path": path, "sha256": files.sha256(shipped.place(path, root))}} if path else {}


def _start(recipe: Recipe, root: Path) -> dict[str, Any]:
    """{"start": path and sha256 of the files of the adapter that the training began with}; empty without one."""
    hint = f"run `./doit train:{recipe.name}`"
    names = start.files_of(recipe.train)
    entries = [{"path": path, "sha256": files.sha256(files.require(root / path, hint))} for path in names]
    return {"start": entries} if entries else {}


def _additions(recipe: Recipe, root: Path) -> dict[str, Any]:
    """{"additions": {script: what its template adds to the recipe}}; empty where no template adds anything."""
    texts = {name: root / paths.run(recipe.name) / name for name in recipe.scripts}
    hint = f"run `./doit scripts:{recipe.name}`"
    read = {name: files.require(path, hint).read_text(encoding="utf-8") for name, path in texts.items()}
    added = {name: scripts.additions(recipe, name, text) for name, text in read.items()}
    kept = {name: table for name, table in added.items() if table}
    return {"additions": kept} if kept else {}


def build(recipe: Recipe, root: Path, code: dict[str, str], accepted: dict[str, Any]) -> dict[str, Any]:
    """The run's manifest. Raises ThunderError if a stage's file is missing.

    code: {stage: version of its code}: a revision, or the hash of edited code. accepted: {stage: what made its outputs,
    and under what a person let them stand}; the manifest names the code that made them.
    """
    run, script = root / paths.run(recipe.name), recipe.scripts[0]
    done = files.read_json(run / "adapter" / "done.json")
    evaluation = files.read_json(run / "eval.json")
    return {
        "schema": SCHEMA,
        **identity(recipe, root),
        "code": {stage: _made_by(accepted.get(stage, {}), version) for stage, version in code.items()},
        **({"accepted": accepted} if accepted else {}),
        "command": ["bash", f"{paths.run(recipe.name)}/{script}"],
        "flags": {
            flag: files.portable(value) if isinstance(value, str) and flag != "--template-args" else value
            for flag, value in scripts.recorded_flags(recipe, script).items()
        },
        "tolerance": recipe.build.tolerance,
        "outputs": [_output(run, name, done) for name in paths.OUTPUTS],
        "metrics": {
            "losses": done["losses"],
            "trainable_parameters": done["trainable_parameters"],
            "tokens": done["tokens"],
            "evaluation": evaluation["losses"],
            "conditions": evaluation["conditions"],
            "probe": evaluation["probe"],
            "gate": evaluation["gate"],
            "profile": evaluation["profile"],
        },
        "promotion": files.read_json(run / "promotion.json"),
    }


def read(path: Path) -> dict[str, Any]:
    """The manifest in a file. Raises ThunderError with every reason not to trust it."""
    return checked(decoded(path), path)


def decoded(path: Path) -> dict[str, Any]:
    """The JSON object in a file from anyone. Raises ThunderError if it holds none, or too much."""
    try:
        value: dict[str, Any] = msgspec.json.decode(_bytes(path, HINT), type=dict[str, Any])
    except FileNotFoundError:
        hint = f"run `./doit {'attest' if path.name == paths.ATTESTATION else 'manifest'}:{path.parent.name}`"
        raise ThunderError("is missing", str(path), hint) from None
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", str(path), "give the path of a manifest.json") from None
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise ThunderError(f"is not the manifest of a run: {error}", str(path), HINT) from None
    return value


def checked(run: dict[str, Any], path: Path) -> dict[str, Any]:
    """The manifest that a file holds. Raises ThunderError with every reason not to trust it."""
    try:
        if run.get("schema") not in (SCHEMA, EARLIER):
            raise ThunderError(f"has schema {run.get('schema')!r}, but this version reads {SCHEMA}", str(path), HINT)
        run_id = run_id_of(run)
        run = _upgraded(run) if run["schema"] == EARLIER else run
        as_read = msgspec.convert(run, _Run)
        _check_numbers(run)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ThunderError(f"is not the manifest of a run: {error}", str(path), HINT) from None
    problems = [*_name_problems(as_read), *_path_problems(as_read)]
    if as_read.run_id != run_id:
        problems.append(ThunderError(f"is {as_read.run_id!r}, but the manifest's content gives {run_id!r}", "run_id"))
    raise_all([ThunderError(problem.what, f"{path}: {problem.where}", HINT) for problem in problems])
    return run


def _upgraded(run: dict[str, Any]) -> dict[str, Any]:
    """A manifest of the schema before, as one of today; its run_id stays."""
    recipe, left_out = run["recipe"], (*paths.SCRIPTS, "hostfile.json")
    train = {key.name for key in dataclasses.fields(Train) if fields.is_operational(key)}
    gate = {key.name for key in dataclasses.fields(Gate) if fields.is_operational(key)}
    evaluate = {**recipe["evaluate"], "gate": _without(recipe["evaluate"].get("gate", {}), gate)}
    parts = {"train": _without(recipe["train"], train), "evaluate": evaluate}
    return {
        **run,
        "schema": SCHEMA,
        "recipe": {**_without(recipe, {"build"}), **parts},
        "tolerance": recipe["build"].get("tolerance", Build.tolerance),
        "flags": _without(run["flags"], scripts.OPERATIONAL),
        "outputs": [file for file in run["outputs"] if file["path"] not in left_out],
    }


def _without(table: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}


def _bytes(path: Path, hint: str) -> bytes:
    content = files.read_bytes(path, MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ThunderError(f"has more than {MOST_BYTES} bytes", str(path), hint)
    return content


def _check_numbers(run: dict[str, Any]) -> None:
    """Raise ValueError for a whole number that is no number of a machine: it could not be compared with others."""
    level: list[Any] = [run]
    while level := [each for each in level if isinstance(each, int | dict | list)]:
        if any(isinstance(each, int) and abs(each) >= 1 << 64 for each in level):
            raise ValueError("a number has more than 64 bits")
        tables = (each.values() if isinstance(each, dict) else each for each in level if not isinstance(each, int))
        level = [item for table in tables for item in table]


def _name_problems(run: _Run) -> list[ThunderError]:
    recipe = run.recipe
    names = {
        "recipe": recipe.name,
        "recipe.cluster": recipe.cluster.name,
        "recipe.dataset": recipe.dataset.name,
        "recipe.model": recipe.model.name,
    }
    return [
        ThunderError(f"{name!r} contains characters that are not allowed", f"{place}.name")
        for place, name in names.items()
        if not re.fullmatch(fields.RUN if place == "recipe" else fields.NAME, name)
    ]


def _path_problems(run: _Run) -> list[ThunderError]:
    """A problem for each path that leaves its folder, cannot be printed, or is listed twice."""
    dataset, inputs = run.recipe.dataset, run.inputs
    declared = [*dataset.templates, *(path for source in dataset.sources for path in (source.path, source.references))]
    hashed = [*inputs.templates, *inputs.sources, *([inputs.chat_template] if inputs.chat_template else [])]
    hashed += [*inputs.adapter, *inputs.start]
    places = {
        "recipe.dataset": [path for path in declared if path],
        "recipe.model": [path for path in (run.recipe.model.path, run.recipe.model.chat_template) if path],
        "recipe.adapter": [run.recipe.adapter.path] if run.recipe.adapter else [],
        "inputs": [file.path for file in hashed],
        "model.files": [file.path for file in run.model.files],
        "outputs": [file.path for file in run.outputs],
    }
    outside = [(place, path) for place, listed in places.items() for path in listed if not _is_safe(path)]
    repeated = [(name, path) for name in ("model.files", "outputs") for path in _repeated(places[name])]
    return [
        *(ThunderError(f"{path!r} is not a printable path inside the project", place) for place, path in outside),
        *(ThunderError(f"{path!r} is listed twice", place) for place, path in repeated),
    ]


def _is_safe(path: str) -> bool:
    """Whether a path, joined to a folder, names something below that folder and is printable."""
    return bool(PurePosixPath(path).parts) and files.is_inside(path) and path.isprintable()


def _repeated(items: list[str]) -> list[str]:
    return sorted({item for item in items if items.count(item) > 1})


def run_id_of(run: dict[str, Any]) -> str:
    """The run_id that the parts of a manifest give."""
    return files.digest({key: run[key] for key in IDENTITY if key in run})[:12]


def _made_by(entry: dict[str, Any], version: str) -> str:
    return str(entry["code"]["recorded"]) if "code" in entry else version


def _named(file: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """A source's file, in a repository of the hub with its name and commit."""
    if "commit" not in source:
        return file
    return {**file, "path": hub_cache.dataset_file(source["repo"], source["commit"], file["path"])}


def _hashed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Path and sha256 of each file, without repetitions."""
    hashes = {files.portable(entry["path"]): entry["sha256"] for entry in entries}
    return [{"path": path, "sha256": sha256} for path, sha256 in hashes.items()]


def _output(run: Path, name: str, done: dict[str, Any]) -> dict[str, Any]:
    path = files.require(run / name, hint=f"run `./doit manifest:{run.name}`")
    entry: dict[str, Any] = {"path": name, "sha256": files.sha256(path), "bytes": path.stat().st_size}
    return entry | ({"tensors": done["adapter"]["tensors"]} if name.endswith("adapters.safetensors") else {})
