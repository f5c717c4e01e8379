"""Make a run again from its manifest, in a clean folder.

Reads a manifest, and of this project the code, the templates and the inputs that the manifest names by hash. Writes
.thunder/reproduce/<run_id>/, a project of its own, which is removed when every bit came out equal.
"""

import fcntl
import fnmatch
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config import load, schema, validate
from thunder_train.config.toml_io import as_toml
from thunder_train.core import files, hub_cache, process
from thunder_train.reproduce import manifest
from thunder_train.reproduce.compare import IDENTICAL, IMPOSSIBLE, Verdict, judge

CODE = ("thunder_train", "templates", "dodo.py", "pyproject.toml")
"""What the clean folder takes from the project as it is today."""


def reproduce(path: Path, root: Path) -> Verdict:
    """Build the manifest's run again and compare. Raises ThunderError when it is no manifest to rely on."""
    run = manifest.read(path)
    folder = root / ".thunder" / "reproduce" / run["run_id"]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _reproduce(run, path, root, folder)
    except BlockingIOError:
        raise ThunderError("is being reproduced already", str(path), "wait for that to end") from None
    except OSError as error:
        where = str(error.filename or folder)
        raise ThunderError(error.strerror or str(error), where, "free space, or make it writable") from None


def _reproduce(run: dict[str, Any], path: Path, root: Path, folder: Path) -> Verdict:
    name = run["recipe"]["name"]
    impossible = Verdict(IMPOSSIBLE, name, run["run_id"])
    shutil.rmtree(folder, ignore_errors=True)
    cluster, problems = _cluster(run["recipe"]["cluster"], root)
    inputs, missing = _inputs(run, root)
    model, altered = _model(run, root)
    if problems := [*problems, *missing, *altered]:
        return replace(impossible, problems=tuple(map(str, problems)))
    for part in CODE:
        _copy(root / part, folder / part)
    for target, source in inputs.items():
        _copy(source, folder / target)
    _write_project(run, folder, cluster, _place_model(run, model, root, folder), str(path))
    try:
        recipe = load.load(folder).recipes[name]
    except ThunderError as error:
        raise ThunderError(f"holds a recipe that cannot be built:\n{error}", where=str(path)) from None
    try:
        _build(folder, name)
        made = manifest.read(folder / "runs" / name / "manifest.json")
    except ThunderError as error:
        return replace(impossible, problems=(str(error),), folder=str(folder))
    verdict = judge(run, made, recipe.build.tolerance)
    if verdict.word != IDENTICAL:
        return replace(verdict, folder=str(folder))
    shutil.rmtree(folder)
    return verdict


def _build(folder: Path, name: str) -> None:
    """Run doit in the folder, its lines on stderr. Nothing is fetched, and no variable may name another dodo.py."""
    inside = 'cd -- "$0" && unset DOIT_FILE DOIT_SEEK_FILE && exec "$@" >&2'
    doit = ["env", "HF_HUB_OFFLINE=1", sys.executable, "-m", "doit", f"manifest:{name}"]
    process.tool(
        ["bash", "-c", inside, str(folder), *doit], f"building {name} again", f"read the lines above; {folder}"
    )


def _cluster(wanted: dict[str, Any], root: Path) -> tuple[dict[str, Any], list[ThunderError]]:
    """The cluster's table for the clean folder. Hosts and variables are today's: no manifest may choose them.

    Weights are the run's: they decide which numbers are added first.
    """
    today, weights = _today(root, "clusters", wanted["name"]), wanted.get("weights", [])
    if wanted["local"]:
        envs = {"envs": today["envs"]} if "ranks" in today and "envs" in today else {}
        alike = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "weight": weight} for weight in weights]
        ranks = {"hosts": alike} if weights else {"ranks": wanted["ranks"]}
        return {"backend": wanted["backend"], **ranks, **envs}, []
    where, needs = f"thunder.toml: clusters.{wanted['name']}", f"{wanted['ranks']} hosts over {wanted['backend']}"
    if not today:
        return {}, [ThunderError("is missing", where, f"the run needs a cluster of that name with {needs}")]
    hosts, backend = today.get("hosts"), today.get("backend", "ring")
    count = len(hosts) if isinstance(hosts, list) else 0
    if (count, backend) != (wanted["ranks"], wanted["backend"]):
        return {}, [ThunderError(f"has {count} hosts over {backend}", where, f"the run needs {needs}")]
    weighed = zip(hosts or [], weights or [1.0] * count, strict=False)
    return {**today, "hosts": [{**host, "weight": weight} for host, weight in weighed]}, []


def _inputs(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """{path in the clean folder: file of today} of sources and templates; a problem for each that is not the same."""
    dataset, hashed = run["recipe"]["dataset"], [*run["inputs"]["templates"], *run["inputs"]["sources"]]
    names = [file["path"] for file in hashed]
    declared = list(dataset["templates"])
    declared += [source[key] for source in dataset["sources"] for key in ("path", "references")]
    untold = {path for path in declared if path and not any(_means(path, name) for name in names)}
    problems = [ThunderError("has no sha256 in the manifest", path) for path in sorted(untold)]
    found = {file["path"]: _find(file["path"], dataset["name"], root) for file in hashed}
    for file in hashed:
        problems += _check(found[file["path"]], file["path"], file["sha256"])
    return found, problems


def _means(pattern: str, name: str) -> bool:
    """Whether a source's path, perhaps a pattern, means this file."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _find(path: str, dataset: str, root: Path) -> Path:
    """Where a dataset's file is. One outside the project is where today's dataset of that name says."""
    today = _today(root, "datasets", dataset)
    sources = [source for source in _list(today.get("sources")) if isinstance(source, dict)]
    declared = [today.get("template"), *_list(today.get("templates"))]
    declared += [source.get(key) for source in sources for key in ("path", "references")]
    paths = [path for pattern in declared if isinstance(pattern, str) for path in files.expand(pattern, root)]
    outside = [one for one in paths if one != path and files.portable(one) == path]
    return root / next(iter(outside), path)


def _check(path: Path, name: str, sha256: str) -> list[ThunderError]:
    """A problem when a file is not the one that the manifest names."""
    if not path.is_file():
        return [ThunderError("is missing", name, "the run cannot be made again without it")]
    now = files.sha256(path)
    if now == sha256:
        return []
    return [ThunderError(f"is altered: its sha256 is {now}, and the run was made from {sha256}", name, "restore it")]


def _model(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """{file of the lock: where it is today} of a base model, checked; nothing for nano, which is made again."""
    model, locked = run["recipe"]["model"], run["model"]["files"]
    if model["kind"] == "nano":
        return {}, []
    home, commit = root / _home(model, root), run["model"].get("commit", "")
    found, problems = {}, []
    for name in (file["path"] for file in locked):
        found[name] = _hub_file(model["repo"], name, commit) if model["kind"] == "hub" else home / name
    for file in locked:
        problems += _check(found[file["path"]], f"model {model['name']}: {file['path']}", file["sha256"])
    return found, problems


def _home(model: dict[str, Any], root: Path) -> str:
    """The folder of a `path` model: one outside the project is where today's model of that name says."""
    today = _today(root, "models", model["name"]).get("path")
    return today if isinstance(today, str) and files.portable(today) == model["path"] else str(model["path"])


def _hub_file(repo: str, name: str, commit: str) -> Path:
    """A file of a hub model in the local cache, at the locked commit; a path that is not there when it is missing."""
    return hub_cache.file_here(repo, name, commit) or Path(f"{repo}@{commit}") / name


def _place_model(run: dict[str, Any], found: dict[str, Path], root: Path, folder: Path) -> dict[str, Any]:
    """Make a base model reachable from the clean folder; its table there."""
    table = {key: value for key, value in run["recipe"]["model"].items() if key != "name"}
    home = _home(run["recipe"]["model"], root)
    if table["kind"] == "hub":
        files.write_json(folder / "runs" / "models" / run["recipe"]["model"]["name"] / "model.lock.json", run["model"])
    elif table["kind"] == "path" and home != table["path"]:
        table["path"] = str((root / home).resolve())
    elif table["kind"] == "path":
        for name, path in found.items():
            target = folder / home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())  # a copy would cost gigabytes
    return table


def _write_project(
    run: dict[str, Any], folder: Path, cluster: dict[str, Any], model: dict[str, Any], where: str
) -> None:
    """thunder.toml and the recipe, made from the manifest alone. Raises ThunderError with every key that is wrong."""
    wanted = run["recipe"]
    names = {kind: wanted[kind]["name"] for kind in ("cluster", "model", "dataset")}
    dataset = {key: value for key, value in wanted["dataset"].items() if key != "name"}
    project = {
        "project": {"recipes": [wanted["name"]], "cache_limit_gb": 0.0},
        "clusters": {names["cluster"]: cluster},
        "models": {names["model"]: model},
        "datasets": {names["dataset"]: dataset},
    }
    recipe = {"name": wanted["name"], **names, **{part: wanted[part] for part in ("train", "evaluate", "build")}}
    problems = [*validate.check(project, schema.PROJECT, where)[1], *validate.check(recipe, schema.RECIPE, where)[1]]
    raise_all(problems)
    files.write_text(folder / load.PROJECT_FILE, as_toml(project, where))
    files.write_text(folder / "recipes" / f"{wanted['name']}.toml", as_toml(recipe, where))


def _today(root: Path, kind: str, name: str) -> dict[str, Any]:
    """A named table of today's thunder.toml; empty when there is none."""
    tables = validate.read_toml(root / load.PROJECT_FILE, load.PROJECT_FILE, "git checkout it").get(kind)
    table = tables.get(name) if isinstance(tables, dict) else None
    return table if isinstance(table, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
