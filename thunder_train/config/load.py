"""Reads thunder.toml and recipes/*.toml into a Project, or reports every problem of every file at once.

A file that passed is not parsed or checked again until its content, the defaults or the code of config/ change.
"""

import json
import re
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from thunder_train import ThunderError, raise_all
from thunder_train.config import validate
from thunder_train.config.dataset import Dataset
from thunder_train.config.fields import FORMS, NAME
from thunder_train.config.project import Cluster, Model, Project, ProjectFile, Recipe
from thunder_train.core import code_hash, files
from thunder_train.core.stat_cache import StatCache

PROJECT_FILE = "thunder.toml"
LOCAL_HOST = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": [], "weight": 1.0}
"""The host of each rank of a cluster that gives `ranks` instead of `hosts`."""
Part = TypeVar("Part")
Values = dict[str, Any]


def load(root: Path, stats: StatCache | None = None) -> Project:
    """The project in a folder. Raises one ThunderError with every problem of every file.

    stats: remembers which files passed; without it everything is checked.
    """
    tables, problems = _project_tables(root, stats)
    paths = sorted((root / "recipes").glob("*.toml"))
    if not paths:
        problems.append(ThunderError("holds no recipe", where="recipes", hint="add recipes/NAME.toml"))
    recipes: dict[str, Recipe] = {}
    for path in paths:
        recipe, recipe_problems = _recipe(path, tables, root, stats)
        problems += recipe_problems
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
    """thunder.toml with its named tables as dataclasses; empty if the file has a problem."""
    hint = "copy it from the project's repository"
    try:
        tables, problems = _values(root / PROJECT_FILE, PROJECT_FILE, hint, ProjectFile, {}, stats)
    except ThunderError as problem:
        return {}, [problem]
    if problems:
        return {}, problems
    for kind, make in (("clusters", _cluster), ("models", _model), ("datasets", _dataset)):
        tables[kind] = {name: make(name, table) for name, table in tables[kind].items()}
        for name, part in tables[kind].items():
            problems += validate.table_problems(part, f"{PROJECT_FILE}: {kind}.{name}")
    return tables, problems


def _recipe(
    path: Path, tables: Values, root: Path, stats: StatCache | None
) -> tuple[Recipe | None, list[ThunderError]]:
    where = f"recipes/{path.name}"
    try:
        hint, defaults = "start from recipes/smoke.toml", tables.get("defaults", {})
        values, problems = _values(path, where, hint, Recipe, defaults, stats)
    except ThunderError as problem:
        return None, [problem]
    parts: Values = {"file": where}
    for kind in ("cluster", "model", "dataset"):
        choices, name = tables.get(f"{kind}s"), values.get(kind)
        if choices is not None and isinstance(name, str):
            parts[kind] = choices.get(name)
            if name not in choices:
                problems.append(_unknown(kind, name, choices, kind, where))
    if problems or not tables:
        return None, problems
    recipe = _frozen(Recipe, values | parts)
    return recipe, validate.recipe_problems(recipe, root)


def _values(
    path: Path, where: str, hint: str, kind: type, defaults: Values, stats: StatCache | None
) -> tuple[Values, list[ThunderError]]:
    """The checked values of a file, defaults filled in, and its problems. Raises ThunderError if it is unreadable.

    kind: the dataclass that declares its keys.
    """

    def check() -> tuple[Values, list[ThunderError]]:
        from thunder_train.config.toml_io import read_toml  # late: a no-op build parses no TOML

        values, problems = validate.check(_with_defaults(read_toml(path, where, hint), defaults), kind, where)
        if kind is Recipe and "name" not in values:
            values["name"] = path.stem
            if not re.match(NAME, path.stem):
                problems.append(ThunderError(f"{path.stem!r} cannot name a run", where, FORMS[NAME]))
        return values, problems

    def derive(_: Path) -> str:
        values, problems = check()
        raise_all(problems)
        return json.dumps(values)

    if stats:
        salt = files.digest([code_hash.digest(("config.load",), stats), defaults])
        with suppress(ThunderError, OSError):  # the file has a problem: check again below and report all of them
            values: Values = json.loads(stats.memo("values", str(path), derive, salt))
            return values, []
    return check()


def _unknown(kind: str, name: str, choices: dict[str, Any], key: str, where: str = PROJECT_FILE) -> ThunderError:
    return ThunderError(f"no {kind} is named {name!r}", f"{where}: {key}", validate.did_you_mean(name, [*choices]))


def _with_defaults(recipe: Values, defaults: Values) -> Values:
    """The recipe's keys over those of [defaults]; a missing [train] table stays missing."""
    merged = dict(recipe)
    for part, values in defaults.items():
        table = recipe.get(part, {} if part != "train" else None)
        if isinstance(table, dict):
            merged[part] = {**values, **table}
    return merged


def _frozen(kind: type[Part], values: Values) -> Part:
    """A config dataclass from the table of its keys."""
    return kind(**{field.name: _settled(field.type, values[field.name]) for field in fields(kind)})  # type: ignore[arg-type]  # a dataclass


def _settled(kind: Any, value: Any) -> Any:
    """A value of a TOML file as the type of its field: tables as dataclasses, lists as tuples, 20 as 20.0."""
    if kind is float:
        return float(value)
    if isinstance(value, list):
        return tuple(_settled(get_args(kind)[0], item) for item in value)
    return _frozen(kind, value) if is_dataclass(kind) and isinstance(value, dict) else value  # type: ignore[arg-type]  # a class


def _cluster(name: str, table: Values) -> Cluster:
    hosts = table.get("hosts", [LOCAL_HOST] * table.get("ranks", 0))
    if "ranks" in table and "hosts" in table:
        hosts = []  # validate.py reports it
    return _frozen(Cluster, {**table, "name": name, "hosts": hosts})


def _model(name: str, table: Values) -> Model:
    return _frozen(Model, {**table, "name": name})


def _dataset(name: str, table: Values) -> Dataset:
    templates = table.get("templates", [table["template"]] if "template" in table else [])
    given = {"orthography_table": table.get("orthography_table", {}), "templates": templates}
    return _frozen(Dataset, {**table, **given, "name": name})
