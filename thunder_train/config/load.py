"""Reads thunder.toml and recipes/*.toml into a Project, or reports every problem of every file at once.

A file that passed is not parsed or checked again until its content, the defaults or the code of config/ change.
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from thunder_train import ThunderError, raise_all
from thunder_train.config import adapter, profiles, start, validate
from thunder_train.config.dataset import Dataset
from thunder_train.config.experiments import Experiment, Written, experiments
from thunder_train.config.fields import FORMS, NAME, RUN
from thunder_train.config.project import ALONE, SINGLE, Cluster, Model, Project, Recipe, section
from thunder_train.config.project_file import ProjectFile
from thunder_train.config.train import implied
from thunder_train.core import code_hash, files
from thunder_train.core.stat_cache import StatCache

PROJECT_FILE = "thunder.toml"
LOCAL_HOST = section(ALONE.hosts[0])
"""The host of each rank of a cluster that gives `ranks` instead of `hosts`."""
RESERVED = {"recipes": ("models",), "models": (), "datasets": ("sources",)}
"""Names of the project's own folders beside the folders that names become; validate.py refuses them as they stand."""
ONE_FOLDER = "on a Mac both would be one folder; rename one of them"
Part = TypeVar("Part")
Values = dict[str, Any]


@dataclass(frozen=True)
class Broken:
    """A recipe that cannot be used, by the name of the run that it would give, and every reason."""

    name: str
    problems: tuple[ThunderError, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def load(root: Path, stats: StatCache | None = None) -> Project:
    """The project in a folder. Raises one ThunderError with every problem of every file.

    stats: remembers which files passed; without it everything is checked.
    """
    project, broken, unknown = _read(root, stats)
    raise_all(_problems(broken))
    raise_all(_problems(unknown))
    return project


def usable(root: Path, stats: StatCache | None = None) -> tuple[Project, list[Broken]]:
    """The project without the recipes that cannot be used, and those; a default recipe that is missing is one of them.

    Raises one ThunderError with every problem of every file if thunder.toml, which all recipes need, has one.
    """
    project, broken, unknown = _read(root, stats)
    return project, broken + unknown


def _read(root: Path, stats: StatCache | None) -> tuple[Project, list[Broken], list[Broken]]:
    """The project, the recipes that cannot be used, and the default recipes that are missing."""
    tables, problems = _project_tables(root, stats)
    paths = sorted((root / "recipes").glob("*.toml"))
    if not paths:
        problems.append(ThunderError("holds no recipe", where="recipes", hint="add recipes/NAME.toml"))
    parts, sweeps = _recipes(paths, tables, root, stats)
    recipes, broken = _told_apart(parts)
    unfit = start.problems_between(recipes, sweeps, [each.name for each in broken], root)
    broken += [Broken(name, tuple(problems)) for name, problems in unfit.items()]
    recipes = {name: each for name, each in recipes.items() if name not in unfit}
    sweeps = {name: left for name, each in sweeps.items() if (left := tuple(one for one in each if one in recipes))}
    raise_all(_once([*problems, *_problems(broken)]) if problems else [])
    project, names = tables["project"], [*recipes, *sweeps, *(each.name for each in broken)]
    missing = [name for name in project["recipes"] if name not in names]
    settled = Project(
        default=tuple(dict.fromkeys(each for name in project["recipes"] for each in sweeps.get(name, (name,)))),
        recipes=recipes,
        sweeps=sweeps,
        cache=tables["cache"],
        cache_limit_bytes=int(project["cache_limit_gb"] * 1e9),
        store=project["store"],
        trainings_at_once=project["trainings_at_once"],
        clusters=tables["clusters"],
        models=tables["models"],
        datasets=tables["datasets"],
    )
    unknown = [Broken(name, (_unknown("recipe", name, names, "project.recipes"),)) for name in missing]
    return settled, broken, unknown


def _problems(broken: list[Broken]) -> list[ThunderError]:
    """Every problem once; two recipes of one name share theirs."""
    return _once([problem for each in broken for problem in each.problems])


def _once(problems: list[ThunderError]) -> list[ThunderError]:
    return [*{str(problem): problem for problem in problems}.values()]


def _told_apart(parts: "list[Recipe | Broken]") -> tuple[dict[str, Recipe], list[Broken]]:
    """The recipes by name, and those that cannot be used: of two whose runs would share a folder neither can be."""
    broken = [each for each in parts if isinstance(each, Broken)]
    groups: dict[str, list[Recipe]] = {}
    for each in parts:
        if isinstance(each, Recipe):
            groups.setdefault(each.name.casefold(), []).append(each)
    for first, *others in groups.values():
        problems = tuple(_one_folder(first, other) for other in others)
        broken += [Broken(name, problems) for name in sorted({each.name for each in (first, *others)}) if others]
    return {group[0].name: group[0] for group in groups.values() if len(group) == 1}, broken


def _one_folder(first: Recipe, other: Recipe) -> ThunderError:
    where = f"{other.file}: name"
    if first.name == other.name:
        return ThunderError(f"{other.name!r} is also the name of {first.file}", where, "rename one of them")
    return ThunderError(f"{other.name!r} differs only in case from {first.name!r} of {first.file}", where, ONE_FOLDER)


def _project_tables(root: Path, stats: StatCache | None) -> tuple[Values, list[ThunderError]]:
    """thunder.toml with its named tables as dataclasses; empty if the file has a problem."""
    hint = "copy it from the project's repository"
    try:
        file = root / PROJECT_FILE
        tables, problems = _values(file, PROJECT_FILE, lambda: _read_toml(file, PROJECT_FILE, hint), ProjectFile, stats)
    except ThunderError as problem:
        return {}, [problem]
    if problems:
        return {}, problems
    for kind, make in (("clusters", _cluster), ("models", _model), ("datasets", _dataset)):
        tables[kind] = {name: make(name, table) for name, table in tables[kind].items()}
        for name, part in tables[kind].items():
            problems += validate.table_problems(part, f"{PROJECT_FILE}: {kind}.{name}")
    tables["clusters"].setdefault(SINGLE, ALONE)
    problems += profiles.problems(tables["profiles"], f"{PROJECT_FILE}: profiles")
    if tables["profiles"]:
        tables["defaults"].setdefault("evaluate", {})["profiles"] = tables["profiles"]
    problems += [problem for kind in ("models", "datasets") for problem in _case_problems(kind, tables[kind])]
    problems += [problem for name, part in tables["clusters"].items() for problem in _home_problems(name, part)]
    try:
        tables["cache"] = Path(tables["project"]["cache"]).expanduser()
    except RuntimeError:
        what = f"{tables['project']['cache']!r} begins with the home of a user whom this machine does not know"
        problems.append(ThunderError(what, f"{PROJECT_FILE}: project.cache", "give another folder"))
    return tables, problems


def _case_problems(kind: str, names: Iterable[str]) -> list[ThunderError]:
    """A problem for each name of a folder that differs from an earlier one, or from a folder of ours, only in case."""
    seen, problems = {name.casefold(): name for name in RESERVED[kind]}, []
    for name in names:
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            what = f"{name!r} differs only in case from {first!r}"
            problems.append(ThunderError(what, f"{PROJECT_FILE}: {kind}.{name}", ONE_FOLDER))
    return problems


def _home_problems(name: str, cluster: Cluster) -> list[ThunderError]:
    """A problem for each path of a cluster that begins with a home that no shell will look up."""
    hints = {"folder": "give a path from the home folder, as ~/x or x", "python": "give a path from the project folder"}
    return [
        ThunderError(f"{value!r} begins with ~", f"{PROJECT_FILE}: clusters.{name}.{key}", hint)
        for key, hint in hints.items()
        if (value := getattr(cluster, key)).startswith("~")
    ]


def _recipes(
    paths: Iterable[Path], tables: Values, root: Path, stats: StatCache | None
) -> tuple[list[Recipe | Broken], dict[str, tuple[str, ...]]]:
    """The recipes of all files, those that cannot be used, and {name of a sweep: names of its members}."""
    read = [(path, _written(path, stats)) for path in paths]
    others = {each.name: each for _, each in read if isinstance(each, Written) and isinstance(each.name, str)}
    parts, sweeps = list[Recipe | Broken](), dict[str, tuple[str, ...]]()
    for path, written in read:
        if isinstance(written, Broken):
            parts.append(written)
            continue
        name = str(written.name)
        try:
            made = [_recipe(each, path, tables, root, stats) for each in experiments(written, others)]
        except ThunderError as error:
            made = [Broken(name, (error,))]
        if "sweep" not in written.table:
            parts += made
            continue
        broken = [each for each in made if isinstance(each, Broken)]
        parts += [Broken(name, tuple(_problems(broken)))] if broken else made
        sweeps[name] = tuple(each.name for each in made if not broken)
    return parts, {name: members for name, members in sweeps.items() if members}


def _written(path: Path, stats: StatCache | None) -> Written | Broken:
    """A recipe's file as it is."""
    where = f"recipes/{path.name}"

    def read() -> Values:
        return _read_toml(path, where, "start from another recipe")

    try:
        if stats:
            # A date is no JSON, and a file with a problem is read again below, to report it.
            with suppress(ThunderError, OSError, TypeError, RecursionError):
                return Written(
                    where, json.loads(stats.memo("written", str(path), lambda _: json.dumps(read()))), path.stem
                )
        return Written(where, read(), path.stem)
    except ThunderError as problem:
        return Broken(path.stem, (problem,))


def _read_toml(path: Path, where: str, hint: str) -> Values:
    from thunder_train.config.toml_io import read_toml  # late: a no-op build parses no TOML

    return read_toml(path, where, hint)


def _recipe(each: Experiment, path: Path, tables: Values, root: Path, stats: StatCache | None) -> Recipe | Broken:
    where, defaults = each.written.where, tables.get("defaults", {})
    values, problems = _values(path, where, lambda: each.table, Recipe, stats, each, defaults)
    problems += adapter.source_problems(each.table, where)
    parts: Values = {"file": where}
    for kind in ("cluster", "model", "dataset"):
        choices, name = tables.get(f"{kind}s"), values.get(kind)
        if choices is not None and isinstance(name, str):
            parts[kind] = choices.get(name)
            if name not in choices:
                problems.append(_unknown(kind, name, choices, kind, where))
    if not problems and tables:
        if values["adapter"]["path"]:
            parts["train"] = adapter.training_of(values["adapter"])
        recipe = _frozen(Recipe, values | parts)
        problems = validate.recipe_problems(recipe, root, stats) + start.problems(recipe, root)
        problems += _profile_problems(recipe, tables["profiles"])
        if not problems:
            return recipe
    return Broken(str(values.get("name", path.stem)), tuple(map(each.place, problems)))


def _profile_problems(recipe: Recipe, shared: Values) -> list[ThunderError]:
    """What is wrong with a recipe's error rates. shared: those of thunder.toml, which were checked."""
    where, all_of_them = f"{recipe.file}: evaluate", recipe.evaluate.profiles
    own = {name: keys for name, keys in all_of_them.items() if keys != shared.get(name)}
    unknown = profiles.unknown(recipe.evaluate.profile, all_of_them, f"{where}.profile")
    return [*profiles.problems(own, f"{where}.profiles"), *unknown]


def _values(
    path: Path,
    where: str,
    table: Callable[[], Values],
    kind: type,
    stats: StatCache | None,
    each: Experiment | None = None,
    defaults: Values | None = None,
) -> tuple[Values, list[ThunderError]]:
    """The checked values of a file, defaults filled in, and its problems. Raises ThunderError if it is unreadable.

    kind: the dataclass that declares its keys. each: what a recipe's file became.
    """

    def check() -> tuple[Values, list[ThunderError]]:
        try:
            values, problems = validate.check(_with_defaults(table(), defaults or {}), kind, where)
        except RecursionError:
            from thunder_train.config.toml_io import too_deep

            raise too_deep(where) from None
        if each:
            problems += _name_problems(values, each, where)
        return values, problems

    def derive(_: Path) -> str:
        values, problems = check()
        raise_all(problems)
        return json.dumps(values)

    if stats:
        made = json.dumps([each.name, each.table], default=str) if each and (each.name or each.files) else ""
        salt = files.digest([code_hash.digest(("config.load",), stats), defaults, made])
        with suppress(ThunderError, OSError):  # the file has a problem: check again below and report all of them
            values: Values = json.loads(stats.memo(f"values{each.name if each else ''}", str(path), derive, salt))
            return values, []
    return check()


def _name_problems(values: Values, each: Experiment, where: str) -> list[ThunderError]:
    """Name the run after its sweep, else after the file if the recipe does not, and say what is wrong with the name."""
    problems, is_given, stem = [], "name" in each.written.table, each.written.stem
    name = values.setdefault("name", each.name or stem)
    if not is_given and not re.fullmatch(NAME, stem):
        problems.append(ThunderError(f"{stem!r} cannot name a run", where, FORMS[NAME]))
    elif each.name and not re.fullmatch(RUN, each.name):
        hint = "give shorter values, or fewer keys"
        problems.append(ThunderError(f"{each.name!r} cannot name a run", f"{where}: sweep", hint))
    is_told = is_given and name in RESERVED["recipes"]
    if isinstance(name, str) and name.casefold() in RESERVED["recipes"] and not is_told:
        at = f"{where}: name" if is_given else where
        problems.append(ThunderError(f"{name!r} is a folder of the project", at, "choose another name"))
    return problems


def _unknown(kind: str, name: str, choices: Iterable[str], key: str, where: str = PROJECT_FILE) -> ThunderError:
    return ThunderError(f"no {kind} is named {name!r}", f"{where}: {key}", validate.did_you_mean(name, [*choices]))


def _with_defaults(recipe: Values, defaults: Values) -> Values:
    """The recipe's keys over those of [defaults]; a missing [train] table stays missing."""
    merged = dict(recipe)
    for part, values in defaults.items():
        table = recipe.get(part, {} if part != "train" else None)
        if isinstance(table, dict):
            merged[part] = {**values, **table}
    shared, evaluate = defaults.get("evaluate", {}).get("profiles"), merged.get("evaluate", {})
    if shared and isinstance(evaluate, dict) and isinstance(own := evaluate["profiles"], dict):
        merged["evaluate"] = {**evaluate, "profiles": {**shared, **own}}
    if isinstance(merged.get("train"), dict):
        merged["train"] = implied(merged["train"])
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
    """folder is a path from the home folder, with or without ~/ before it."""
    folder = table["folder"]
    if folder == "~" or folder.startswith("~/"):
        folder = folder[1:].lstrip("/") or "."
    hosts = table.get("hosts", [LOCAL_HOST] * table.get("ranks", 0))
    if "ranks" in table and "hosts" in table:
        hosts = []  # validate.py reports it
    return _frozen(Cluster, {**table, "name": name, "hosts": hosts, "folder": folder})


def _model(name: str, table: Values) -> Model:
    return _frozen(Model, {**table, "name": name})


def _dataset(name: str, table: Values) -> Dataset:
    templates = table.get("templates", [table["template"]] if "template" in table else [])
    given = {"orthography_table": table.get("orthography_table", {}), "templates": templates}
    return _frozen(Dataset, {**table, **given, "name": name})
