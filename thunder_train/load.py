"""thunder.toml and recipes/*.toml -> Project, or every problem of every file at once.

schema.py holds the keys, checks.py holds a file against them, contradictions.py holds keys against each other.
"""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from thunder_train import ThunderError, contradictions, raise_all, schema
from thunder_train.checks import check, did_you_mean, read_toml
from thunder_train.config import Build, Cluster, Dataset, Evaluate, Host, Model, Project, Recipe, Source, Train

PROJECT_FILE = "thunder.toml"
Part = TypeVar("Part")


def load(root: Path) -> Project:
    """The project in a folder. Raises one ThunderError that tells every problem of every file."""
    tables, problems = _project_tables(root)
    files = sorted((root / "recipes").glob("*.toml"))
    if not files:
        problems.append(ThunderError("holds no recipe", where="recipes", mend="add recipes/NAME.toml"))
    recipes: dict[str, Recipe] = {}
    for file in files:
        recipe, found = _recipe(file, tables, root)
        problems += found
        if recipe and recipe.name in recipes:
            other = recipes[recipe.name].file
            problems.append(
                ThunderError(
                    f"{recipe.name!r} is also the name of {other}", f"{recipe.file}: name", "rename one of them"
                )
            )
        elif recipe:
            recipes[recipe.name] = recipe
    default = tuple(tables.get("project", {}).get("recipes", []))
    if not problems:
        problems = [
            ThunderError(
                f"no recipe is named {name!r}", f"{PROJECT_FILE}: project.recipes", did_you_mean(name, [*recipes])
            )
            for name in default
            if name not in recipes
        ]
    raise_all(problems)
    project = tables["project"]
    return Project(
        default=default,
        recipes=recipes,
        cache=Path(project["cache"]).expanduser(),
        cache_limit_bytes=int(project["cache_limit_gb"] * 1e9),
        models=tables["models"],
        datasets=tables["datasets"],
    )


def _project_tables(root: Path) -> tuple[dict[str, Any], list[ThunderError]]:
    """thunder.toml with its named tables as dataclasses; what is broken is left out and told."""
    try:
        raw = read_toml(root / PROJECT_FILE, PROJECT_FILE, "copy it from the project's repository")
    except ThunderError as problem:
        return {}, [problem]
    tables, problems = check(raw, schema.PROJECT, PROJECT_FILE)
    if problems:
        return {}, problems
    tables["clusters"] = {name: _cluster(name, table) for name, table in tables["clusters"].items()}
    tables["models"] = {name: _frozen(Model, {"name": name, **table}) for name, table in tables["models"].items()}
    tables["datasets"] = {name: _dataset(name, table) for name, table in tables["datasets"].items()}
    for kind in ("clusters", "models", "datasets"):
        for name, part in tables[kind].items():
            problems += contradictions.of(part, f"{PROJECT_FILE}: {kind}.{name}", raw[kind][name])
    return tables, problems


def _recipe(file: Path, tables: dict[str, Any], root: Path) -> tuple[Recipe | None, list[ThunderError]]:
    where = f"recipes/{file.name}"
    try:
        raw = read_toml(file, where, "start from recipes/smoke.toml")
    except ThunderError as problem:
        return None, [problem]
    values, problems = check(_with_defaults(raw, tables.get("defaults", {})), schema.RECIPE, where)
    if "name" not in values and not re.match(schema.NAME, file.stem):
        problems.append(ThunderError(f"{file.stem!r} cannot name a run", where, schema.FORMS[schema.NAME]))
    for kind in ("cluster", "model", "dataset"):
        known = tables.get(f"{kind}s")
        if known is not None and isinstance(values.get(kind), str) and values[kind] not in known:
            mend = did_you_mean(values[kind], list(known))
            problems.append(ThunderError(f"no {kind} is named {values[kind]!r}", f"{where}: {kind}", mend))
    if problems or not tables:
        return None, problems
    recipe = Recipe(
        name=values.get("name", file.stem),
        file=where,
        description=values["description"],
        cluster=tables["clusters"][values["cluster"]],
        model=tables["models"][values["model"]],
        dataset=tables["datasets"][values["dataset"]],
        train=_frozen(Train, values["train"]),
        evaluate=_frozen(Evaluate, values["evaluate"]),
        build=_frozen(Build, values["build"]),
    )
    return recipe, contradictions.of_recipe(recipe, root)


def _with_defaults(recipe: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The recipe's own keys over those of [defaults]; a [train] table that is missing stays missing."""
    merged = dict(recipe)
    for part, values in defaults.items():
        own = recipe.get(part, {} if part != "train" else None)
        if isinstance(own, dict):
            merged[part] = {**values, **own}
    return merged


def _frozen(kind: type[Part], values: dict[str, Any]) -> Part:
    def settle(field: Any) -> Any:
        value = values[field.name]
        return float(value) if field.type is float else tuple(value) if isinstance(value, list) else value

    return kind(**{field.name: settle(field) for field in fields(kind)})  # type: ignore[arg-type]  # a dataclass


def _cluster(name: str, table: dict[str, Any]) -> Cluster:
    local = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}] * table.get("ranks", 0)
    hosts = [_frozen(Host, host) for host in table.get("hosts", local)]
    return _frozen(Cluster, {**table, "name": name, "hosts": hosts})


def _dataset(name: str, table: dict[str, Any]) -> Dataset:
    sources = [_frozen(Source, source) for source in table["sources"]]
    return _frozen(Dataset, {**table, "name": name, "sources": sources})
