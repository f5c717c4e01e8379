"""thunder.toml and recipes/*.toml -> Project, or every problem of every file at once.

schema.py holds the keys, checks.py holds a file against them, contradictions.py holds keys against each other. A file
that passed is not read or checked again while its content, the defaults and the schema stand.
"""

import json
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from thunder_train import ThunderError, raise_all
from thunder_train.config import validate
from thunder_train.config.dataset import Dataset, Source
from thunder_train.config.evaluate import Evaluate, Gate, Probe, Promotion
from thunder_train.config.project import Build, Cluster, Host, Model, Project, Recipe
from thunder_train.config.train import Train
from thunder_train.core import code_hash, files
from thunder_train.core.stat_cache import StatCache

PROJECT_FILE = "thunder.toml"
Part = TypeVar("Part")
Values = dict[str, Any]


def load(root: Path, stats: StatCache | None = None) -> Project:
    """The project in a folder. Raises one ThunderError that tells every problem of every file.

    stats: remembers which files passed; without it everything is checked.
    """
    tables, problems = _project_tables(root, stats)
    found = sorted((root / "recipes").glob("*.toml"))
    if not found:
        problems.append(ThunderError("holds no recipe", where="recipes", hint="add recipes/NAME.toml"))
    recipes: dict[str, Recipe] = {}
    for file in found:
        recipe, own = _recipe(file, tables, root, stats)
        problems += own
        if recipe and recipe.name in recipes:
            what = f"{recipe.name!r} is also the name of {recipes[recipe.name].file}"
            problems.append(ThunderError(what, f"{recipe.file}: name", "rename one of them"))
        elif recipe:
            recipes[recipe.name] = recipe
    raise_all(problems)
    project = tables["project"]
    raise_all(
        [_unknown("recipe", name, recipes, "project.recipes") for name in project["recipes"] if name not in recipes]
    )
    return Project(
        default=tuple(project["recipes"]),
        recipes=recipes,
        cache=Path(project["cache"]).expanduser(),
        cache_limit_bytes=int(project["cache_limit_gb"] * 1e9),
        clusters=tables["clusters"],
        models=tables["models"],
        datasets=tables["datasets"],
    )


def _project_tables(root: Path, stats: StatCache | None) -> tuple[Values, list[ThunderError]]:
    """thunder.toml with its named tables as dataclasses; nothing of it when it is broken."""
    hint = "copy it from the project's repository"
    try:
        tables, problems = _values(root / PROJECT_FILE, PROJECT_FILE, hint, "PROJECT", {}, stats)
    except ThunderError as problem:
        return {}, [problem]
    if problems:
        return {}, problems
    tables["clusters"] = {name: _cluster(name, table) for name, table in tables["clusters"].items()}
    tables["models"] = {name: _frozen(Model, {"name": name, **table}) for name, table in tables["models"].items()}
    tables["datasets"] = {name: _dataset(name, table) for name, table in tables["datasets"].items()}
    for kind in ("clusters", "models", "datasets"):
        for name, part in tables[kind].items():
            problems += validate.of(part, f"{PROJECT_FILE}: {kind}.{name}")
    return tables, problems


def _recipe(
    file: Path, tables: Values, root: Path, stats: StatCache | None
) -> tuple[Recipe | None, list[ThunderError]]:
    where = f"recipes/{file.name}"
    try:
        hint, defaults = "start from recipes/smoke.toml", tables.get("defaults", {})
        values, problems = _values(file, where, hint, "RECIPE", defaults, stats)
    except ThunderError as problem:
        return None, [problem]
    for kind in ("cluster", "model", "dataset"):
        known, name = tables.get(f"{kind}s"), values.get(kind)
        if known is not None and isinstance(name, str) and name not in known:
            problems.append(_unknown(kind, name, known, kind, where))
    if problems or not tables:
        return None, problems
    recipe = Recipe(
        name=values["name"],
        file=where,
        description=values["description"],
        cluster=tables["clusters"][values["cluster"]],
        model=tables["models"][values["model"]],
        dataset=tables["datasets"][values["dataset"]],
        train=_frozen(Train, values["train"]),
        evaluate=_evaluate(values["evaluate"]),
        promotion=_frozen(Promotion, values["promotion"]),
        build=_frozen(Build, values["build"]),
    )
    return recipe, validate.of_recipe(recipe, root)


def _values(
    file: Path, where: str, hint: str, table: str, defaults: Values, stats: StatCache | None
) -> tuple[Values, list[ThunderError]]:
    """The checked values of a file, defaults filled in, and its problems. Raises ThunderError when it is unreadable.

    table: the name of its table in schema.py.
    """

    def check() -> tuple[Values, list[ThunderError]]:
        from thunder_train.config import fields as keys
        from thunder_train.config import schema, validate  # late: Cerberus costs more than a whole no-op

        read = _with_defaults(validate.read_toml(file, where, hint), defaults)
        values, problems = validate.check(read, getattr(schema, table), where)
        if table == "RECIPE" and "name" not in values:
            values["name"] = file.stem
            if not re.match(keys.NAME, file.stem):
                problems.append(ThunderError(f"{file.stem!r} cannot name a run", where, keys.FORMS[keys.NAME]))
        return values, problems

    def derive(_: Path) -> str:
        values, problems = check()
        raise_all(problems)
        return json.dumps(values)

    if stats:
        salt = files.digest([code_hash.digest(("config.load",), stats), defaults])
        with suppress(ThunderError, OSError):  # then it is not in order, and told below with every problem
            values: Values = json.loads(stats.memo("values", str(file), derive, salt))
            return values, []
    return check()


def _unknown(kind: str, name: str, known: dict[str, Any], key: str, where: str = PROJECT_FILE) -> ThunderError:
    from thunder_train.config.validate import did_you_mean

    return ThunderError(f"no {kind} is named {name!r}", f"{where}: {key}", did_you_mean(name, [*known]))


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
    if ("ranks" in table) == ("hosts" in table):
        return _frozen(Cluster, {**table, "name": name, "hosts": []})  # told among the contradictions
    local = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": [], "weight": 1.0}] * table.get("ranks", 0)
    hosts = [_frozen(Host, host) for host in table.get("hosts", local)]
    return _frozen(Cluster, {**table, "name": name, "hosts": hosts})


def _evaluate(table: dict[str, Any]) -> Evaluate:
    return _frozen(Evaluate, {**table, "gate": _frozen(Gate, table["gate"]), "probe": _frozen(Probe, table["probe"])})


def _dataset(name: str, table: dict[str, Any]) -> Dataset:
    sources = [_frozen(Source, source) for source in table["sources"]]
    templates = table.get("templates", [table["template"]] if "template" in table else [])
    own = {"orthography_table": table.get("orthography_table", {}), "templates": templates}
    return _frozen(Dataset, {**table, **own, "name": name, "sources": sources})
