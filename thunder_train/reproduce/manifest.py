"""The identity of a run, and the manifest that lets anyone make it again.

`build` reads what the stages left in runs/<recipe>/ and returns manifest.json: sorted, with no time, host name or
absolute path. `read` returns a manifest that may come from anyone: its form, names, paths and run_id are checked.
"""

import copy
import re
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from thunder_train import ThunderError, raise_all
from thunder_train.config import fields
from thunder_train.config.project import Recipe, section
from thunder_train.core import files
from thunder_train.core import paths as layout
from thunder_train.launch.scripts import launch_flags

SCHEMA = "thunder.run/1"
MADE_FROM = ("recipe", "inputs", "model", "environment")
"""Parts of a manifest that run_id is a hash of."""


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


class _DeclaredCluster(msgspec.Struct):
    name: str
    backend: str
    ranks: int
    local: bool
    weights: list[float] = []


class _DeclaredRecipe(msgspec.Struct):
    name: str
    cluster: _DeclaredCluster
    dataset: _DeclaredDataset
    model: _DeclaredModel
    train: dict[str, Any]
    evaluate: dict[str, Any]
    build: dict[str, Any]


class _Lock(msgspec.Struct):
    files: list[_File]
    commit: str = ""


class _Run(msgspec.Struct):
    """What `reproduce` and `compare` rely on; the recipe's own keys are checked as those of any recipe."""

    run_id: str
    recipe: _DeclaredRecipe
    inputs: _Inputs
    model: _Lock
    environment: dict[str, str]
    code: dict[str, str]
    outputs: list[_File]
    metrics: dict[str, Any]
    promotion: dict[str, Any]


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as the manifest holds it: all that decides numbers, and no host's name or address.

    A cluster's environment variables and hosts stay in thunder.toml: a manifest from elsewhere may not set them.
    """
    table = copy.deepcopy(section(recipe))
    for key in ("file", "description"):
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
        del table["dataset"]["orthography_table"]  # as in TOML: an empty table would lack its keys
    table["model"]["path"] = files.portable(table["model"]["path"])
    table["dataset"]["templates"] = [files.portable(path) for path in table["dataset"]["templates"]]
    for source in table["dataset"]["sources"]:
        source |= {key: files.portable(source[key]) for key in ("path", "references")}
    return table


def identity(recipe: Recipe, root: Path) -> dict[str, Any]:
    """What the run is made from, and run_id: 12 hex digits of the sha256 over exactly that.

    The environment is the one that the training wrote down itself.
    """
    data = files.read_json(root / "data" / recipe.dataset.name / "manifest.json")
    made_from = {
        "recipe": run_recipe(recipe),
        "inputs": {
            "dataset": data["dataset"],
            "sources": _hashed([file for source in data["sources"] for file in source["files"]]),
            "templates": _hashed(data["templates"]),
            "splits": {name: {key: split[key] for key in ("rows", "sha256")} for name, split in data["splits"].items()},
            "evidence_kinds": data["evidence_kinds"],
        },
        "model": files.read_json(root / "runs" / "models" / recipe.model.name / "model.lock.json"),
        "environment": files.read_json(root / "runs" / recipe.name / "adapter" / "done.json")["environment"],
    }
    return {**made_from, "run_id": _run_id(made_from)}


def build(recipe: Recipe, root: Path, code: dict[str, str]) -> dict[str, Any]:
    """The run's manifest. code: a hash of the code of each stage. ThunderError when a stage's file is missing."""
    run = root / "runs" / recipe.name
    done = files.read_json(run / "adapter" / "done.json")
    evaluation = files.read_json(run / "eval.json")
    return {
        "schema": SCHEMA,
        **identity(recipe, root),
        "code": code,
        "command": ["bash", f"runs/{recipe.name}/launch.sh"],
        "flags": {
            flag: files.portable(value) if isinstance(value, str) else value for flag, value in launch_flags(recipe)
        },
        "outputs": [_output(run, name, done) for name in layout.OUTPUTS],
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


def is_inside(path: str) -> bool:
    """Whether a path, joined to a folder, stays in that folder and is printable."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and path.isprintable()


def read(path: Path) -> dict[str, Any]:
    """The manifest in a file. Raises ThunderError with every problem when it is not one that can be relied on."""
    hint = "git checkout it, or make the run with this version"
    try:
        run: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        if run.get("schema") != SCHEMA:
            raise ThunderError(f"has schema {run.get('schema')!r}, and this version reads {SCHEMA}", str(path), hint)
        found, run_id = msgspec.convert(run, _Run), _run_id(run)
    except FileNotFoundError:
        raise ThunderError("is missing", str(path), f"run `./doit manifest:{path.parent.name}`") from None
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", str(path), "give the path of a manifest.json") from None
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise ThunderError(f"is not the manifest of a run: {error}", str(path), hint) from None
    problems = [*_names(found), *_paths(found)]
    if found.run_id != run_id:
        problems.append(ThunderError(f"is {found.run_id!r}, and what it is made from gives {run_id!r}", "run_id"))
    raise_all([ThunderError(problem.what, f"{path}: {problem.where}", hint) for problem in problems])
    return run


def _names(run: _Run) -> list[ThunderError]:
    recipe = run.recipe
    names = {
        "recipe": recipe.name,
        "recipe.cluster": recipe.cluster.name,
        "recipe.dataset": recipe.dataset.name,
        "recipe.model": recipe.model.name,
    }
    return [
        ThunderError(f"{name!r} holds characters that do not belong there", f"{place}.name")
        for place, name in names.items()
        if not re.fullmatch(fields.NAME, name)
    ]


def _paths(run: _Run) -> list[ThunderError]:
    """A problem for each path that leads out of its folder, or is there twice."""
    dataset, inputs = run.recipe.dataset, run.inputs
    declared = [*dataset.templates, *(path for source in dataset.sources for path in (source.path, source.references))]
    hashed = [*inputs.templates, *inputs.sources]
    places = {
        "recipe.dataset": [path for path in declared if path],
        "recipe.model": [run.recipe.model.path] if run.recipe.model.path else [],
        "inputs": [file.path for file in hashed],
        "model.files": [file.path for file in run.model.files],
        "outputs": [file.path for file in run.outputs],
    }
    outside = [(place, path) for place, paths in places.items() for path in paths if not is_inside(path)]
    repeated = [(name, path) for name in ("model.files", "outputs") for path in _repeated(places[name])]
    return [
        *(ThunderError(f"{path!r} leads out of the project", place) for place, path in outside),
        *(ThunderError(f"{path!r} is there twice", place) for place, path in repeated),
    ]


def _repeated(paths: list[str]) -> list[str]:
    return sorted({path for path in paths if paths.count(path) > 1})


def _run_id(made_from: dict[str, Any]) -> str:
    return files.digest({key: made_from[key] for key in MADE_FROM})[:12]


def _hashed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Path and sha256 of files, each once."""
    told = {files.portable(file["path"]): file["sha256"] for file in found}
    return [{"path": path, "sha256": sha256} for path, sha256 in told.items()]


def _output(run: Path, name: str, done: dict[str, Any]) -> dict[str, Any]:
    path = files.require(run / name, hint=f"run `./doit manifest:{run.name}`")
    facts: dict[str, Any] = {"path": name, "sha256": files.sha256(path), "bytes": path.stat().st_size}
    return facts | ({"tensors": done["adapter"]["tensors"]} if name.endswith("adapters.safetensors") else {})
