"""Reproduce a run from its manifest, in a clean folder, and compare the two.

Reads of the manifest what foreign.py lists, and from this project the code, the templates and the inputs that the
manifest lists with hashes.  A program runs only if this project or the user names it.
Writes .thunder/reproduce/<run_id>/, a complete project, and deletes it if every file came out identical.
"""

import fcntl
import fnmatch
import shutil
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from thunder_train import ThunderError
from thunder_train.config import load
from thunder_train.config.project import SECRETS
from thunder_train.config.toml_io import as_toml, read_toml
from thunder_train.core import files, hub_cache, paths, process, shipped
from thunder_train.evaluate import external_gate, looks
from thunder_train.reproduce import attestation, foreign, hub_sources, manifest, starts
from thunder_train.reproduce.compare import IDENTICAL, IMPOSSIBLE, Verdict, first_of, judge

CODE = ("thunder_train", "templates", "dodo.py", "pyproject.toml")
"""Copied from the current project into the clean folder."""
MOST_LOOKS = 1 << 31


def reproduce(path: Path, root: Path, confirmed: str = "") -> Verdict:
    """Rebuild the run of a manifest or of a statement about it, and compare. Raises ThunderError for one not to trust.

    confirmed: a gate's command that the user wants to run although the current recipe of that name has another.
    """
    run, apart = attestation.read(path)
    folder = root / paths.REPRODUCE / run["run_id"]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f"{folder.name}.lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return replace(_reproduce(run, path, root, folder, confirmed), apart=apart)
    except BlockingIOError:
        raise ThunderError("is being reproduced by another process", str(path), "wait until that ends") from None
    except OSError as error:
        where = str(error.filename or folder)
        raise ThunderError(error.strerror or str(error), where, "free space, or make it writable") from None


def _reproduce(recorded: dict[str, Any], path: Path, root: Path, folder: Path, confirmed: str) -> Verdict:
    run = {**recorded, "recipe": foreign.recipe_of(recorded, str(path))}
    name = run["recipe"]["name"]
    impossible = Verdict(IMPOSSIBLE, name, run["run_id"])
    shutil.rmtree(folder, ignore_errors=True)
    gate, problems = foreign.gate_today(run["recipe"], root, confirmed)
    starts_of_run, start_problems = starts.behind(run, root)
    runs = [run, *starts_of_run]
    parts = [_parts_of(each, root) for each in runs]
    problems += [
        *start_problems,
        *starts.disagreements(runs),
        *(problem for each in parts for problem in each.problems),
    ]
    if problems:
        return replace(impossible, problems=tuple(dict.fromkeys(map(str, problems))))
    for part in CODE:
        if (root / part).exists():  # else the package's own is used again
            _copy(root / part, folder / part)
    _place_gate(run["recipe"]["evaluate"].get("gate", {}), gate, root, folder)
    _write_project(
        [_placed(each, part, root, folder) for each, part in zip(runs, parts, strict=True)], folder, str(path)
    )
    _place_looks(run["promotion"].get("looks"), folder)
    try:
        recipe = load.load(folder).recipes[name]
    except ThunderError as error:
        raise ThunderError(f"contains a recipe that cannot be built:\n{error}", where=str(path)) from None
    try:
        _build(folder, name)
        rebuilt = manifest.read(folder / paths.run_manifest(name))
    except ThunderError as error:
        return replace(impossible, problems=(str(error),), folder=str(folder))
    verdict = judge(run, rebuilt, recipe.build.tolerance)
    if verdict.word != IDENTICAL:
        return replace(verdict, folder=str(folder))
    shutil.rmtree(folder)
    return verdict


class _Parts(NamedTuple):
    """What a run is made of, as it is here now: {path in the clean folder: file} of inputs, {name: file} of a model."""

    cluster: dict[str, Any]
    inputs: dict[str, Path]
    model: dict[str, Path]
    problems: list[ThunderError]


def _parts_of(run: dict[str, Any], root: Path) -> _Parts:
    cluster, problems = _cluster(run["recipe"]["cluster"], root)
    inputs, input_problems = _inputs(run, root)
    model_files, model_problems = _model(run, root)
    return _Parts(cluster, inputs, model_files, [*problems, *input_problems, *model_problems])


def changed(run: dict[str, Any], root: Path) -> list[ThunderError]:
    """A problem for each given file, of a run's inputs and of its base model, that is not here as the run used it."""
    trusted = {**run, "recipe": foreign.recipe_of(run, paths.run_manifest(run["recipe"]["name"]))}
    return [*_inputs(trusted, root)[1], *_model(trusted, root)[1]]


def _placed(run: dict[str, Any], parts: _Parts, root: Path, folder: Path) -> tuple[dict[str, Any], ...]:
    """Bring a run's parts into the clean folder; thunder.toml and its recipe as tables."""
    for target, source in parts.inputs.items():
        _copy(source, folder / target)
    hub_sources.pin(run, folder)
    if "train" in run["recipe"]:
        run["recipe"]["train"] |= foreign.training_today(run["recipe"]["name"], root)
    return foreign.as_files(run["recipe"], parts.cluster, _place_model(run, parts.model, root, folder))


def _build(folder: Path, name: str) -> None:
    """Run doit in the folder, output on stderr, without downloads, tokens or variables that name another dodo.py."""
    script = 'cd -- "$0" && unset DOIT_FILE DOIT_SEEK_FILE && PYTHONPATH=$PWD exec "$@" >&2'
    tokens = [word for secret in SECRETS for word in ("-u", secret)]
    doit = ["env", *tokens, "HF_HUB_OFFLINE=1", sys.executable, "-m", "thunder_train.cli", f"manifest:{name}"]
    process.tool(
        ["bash", "-c", script, str(folder), *doit], f"building {name} again", f"read the lines above; {folder}"
    )


def _cluster(recorded: dict[str, Any], root: Path) -> tuple[dict[str, Any], list[ThunderError]]:
    """The cluster's table for the clean folder, and problems.

    Hosts and variables are those of the current thunder.toml, because no manifest may choose them. Weights are the
    run's, because they affect in which order numbers are added.
    """
    current, weights = _current_table(root, "clusters", recorded["name"]), recorded.get("weights", [])
    if recorded["local"]:
        envs = {"envs": current["envs"]} if "ranks" in current and "envs" in current else {}
        local_hosts = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "weight": weight} for weight in weights]
        ranks = {"hosts": local_hosts} if weights else {"ranks": recorded["ranks"]}
        return {"backend": recorded["backend"], **ranks, **envs}, []
    where, needs = f"thunder.toml: clusters.{recorded['name']}", f"{recorded['ranks']} hosts over {recorded['backend']}"
    if not current:
        return {}, [ThunderError("is missing", where, f"the run needs a cluster of that name with {needs}")]
    hosts, backend = current.get("hosts"), current.get("backend", "ring")
    count = len(hosts) if isinstance(hosts, list) else 0
    if (count, backend) != (recorded["ranks"], recorded["backend"]):
        return {}, [ThunderError(f"has {count} hosts over {backend}", where, f"the run needs {needs}")]
    weighted = zip(hosts or [], weights or [1.0] * count, strict=False)
    return {**current, "hosts": [{**host, "weight": weight} for host, weight in weighted]}, []


def _inputs(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """{path in the clean folder: current file} of sources and templates, and a problem for each that has changed.

    Files of the hub stay in its cache.
    """
    dataset, entries = run["recipe"]["dataset"], [*run["inputs"]["templates"], *run["inputs"]["sources"]]
    hub_files = hub_sources.files_here(run)
    names = [entry["path"] for entry in entries]
    declared = [path for source in dataset["sources"] for path in hub_sources.declared(source)]
    patterns = [*dataset["templates"], *declared]
    unhashed = {path for path in patterns if not any(_matches(path, name) for name in names)}
    problems = [ThunderError("has no sha256 in the manifest", path) for path in sorted(unhashed)]
    today = _named_today(dataset["name"], root)
    current = {name: hub_files.get(name, shipped.place(today.get(name, name), root)) for name in names}
    declared_today = {*hub_files.values(), *(root / file for file in today.values())}
    declared_today |= {place for name, place in current.items() if shipped.is_shipped(name)}
    for entry in entries:
        unread = [] if current[entry["path"]] in declared_today else foreign.unread(entry["path"], root)
        problems += unread or _check(current[entry["path"]], entry["path"], entry["sha256"])
    template, template_problems = _chat_template(run, root)
    given = {name: path for name, path in current.items() if name not in hub_files}
    adapter, adapter_problems = _adapter(run, root)
    start, start_problems = _start(run, root)
    problems += [*template_problems, *adapter_problems, *start_problems]
    return {**given, **template, **adapter, **start}, problems


def _adapter(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """{path: current file} of an adapter that was trained elsewhere, and a problem for each file that is not the run's.

    The current recipe of that name answers for the folder; without one no hidden file and no link out is read.
    """
    folder, entries = run["recipe"].get("adapter", {}).get("path", ""), run["inputs"].get("adapter", [])
    return _folder_of_adapter(folder, entries, (paths.MLX_LM, paths.PEFT), root)


def _start(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """The same of an adapter in the project that the training began with. That of another recipe is made again."""
    folder, entries = run["recipe"].get("train", {}).get("start_from", ""), run["inputs"].get("start", [])
    return _folder_of_adapter("" if first_of(run["recipe"]) else folder, entries, (paths.MLX_LM,), root)


def _folder_of_adapter(
    folder: str, entries: list[dict[str, Any]], possible: tuple[tuple[str, ...], ...], root: Path
) -> tuple[dict[str, Path], list[ThunderError]]:
    """possible: names of an adapter's files, in each form that the folder may have."""
    if not folder:
        return {}, []
    hashes = {entry["path"]: entry["sha256"] for entry in entries}
    forms = [{f"{PurePosixPath(folder)}/{name}" for name in form} for form in possible]
    if {*hashes} not in forms:
        return {}, [ThunderError("has no sha256 in the manifest", folder)]
    problems = []
    for path, sha256 in hashes.items():
        problems += foreign.unread(path, root) or _check(root / path, path, sha256)
    return {path: root / path for path in hashes}, problems


def _chat_template(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """{path: current file} of the chat template that the run's model names, and a problem if it is not the run's."""
    model, entry = run["recipe"]["model"], run["inputs"].get("chat_template")
    path = model.get("chat_template", "")
    if not path:
        return {}, []
    if not entry or entry["path"] != path:
        return {}, [ThunderError("has no sha256 in the manifest", path)]
    is_ours = shipped.is_shipped(path) or _current_table(root, "models", model["name"]).get("chat_template") == path
    unread, place = [] if is_ours else foreign.unread(path, root), shipped.place(path, root)
    return {path: place}, unread or _check(place, path, entry["sha256"])


def _matches(pattern: str, name: str) -> bool:
    """Whether a source's path, which may be a pattern or a folder, includes this file."""
    return name == pattern or fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('/')}/")


def _named_today(dataset: str, root: Path) -> dict[str, str]:
    """{name in a manifest: file} of every file that the current dataset of that name reads, but those of the hub."""
    table = _current_table(root, "datasets", dataset)
    sources = [source for source in _list(table.get("sources")) if isinstance(source, dict) and not source.get("repo")]
    declared = [table.get("template"), *_list(table.get("templates"))]
    declared += [source.get(key) for source in sources for key in ("path", "references")]
    patterns = [pattern for pattern in declared if isinstance(pattern, str)]
    listed = [(pattern, file) for pattern in patterns for file in files.expand_all(pattern, root)]
    return {files.portable_below(pattern, file): file for pattern, file in listed}


def _check(path: Path, name: str, sha256: str) -> list[ThunderError]:
    """A problem if a file is not the one with this hash."""
    if not path.is_file():
        return [ThunderError("is missing", name, "the run cannot be reproduced without it")]
    current = files.sha256(path)
    if current == sha256:
        return []
    return [ThunderError(f"has changed: its sha256 is {current}, but the run used {sha256}", name, "restore it")]


def _model(run: dict[str, Any], root: Path) -> tuple[dict[str, Path], list[ThunderError]]:
    """{name of a base model's file: current file}, and a problem for each that has changed. Nano is built again."""
    model, entries = run["recipe"]["model"], run["model"]["files"]
    if model["kind"] == "nano":
        return {}, []
    current, problems = {}, []
    for name in (entry["path"] for entry in entries):
        current[name] = _model_file(run, name, root)
    is_ours = model["kind"] == "hub" or _home(model, root) == _current_table(root, "models", model["name"]).get("path")
    if model["kind"] == "path" and foreign.in_run(model["path"], run["recipe"]["name"]):
        problems.append(ThunderError("is a folder that the run writes into", f"model {model['name']}: {model['path']}"))
    for entry in entries:
        unread = [] if is_ours else foreign.unread(f"{model['path']}/{entry['path']}", root)
        name = f"model {model['name']}: {entry['path']}"
        problems += unread or _check(current[entry["path"]], name, entry["sha256"])
    return current, problems


def _model_file(run: dict[str, Any], name: str, root: Path) -> Path:
    """Where a model's file is now; for a hub model in the local cache, at the locked commit."""
    model = run["recipe"]["model"]
    if model["kind"] == "hub":
        return _hub_file(model["repo"], name, run["model"]["commit"])
    return shipped.place(_home(model, root), root) / name


def _home(model: dict[str, Any], root: Path) -> str:
    """The folder of a `path` model. For one outside the project the current model of that name gives its path."""
    current = _current_table(root, "models", model["name"]).get("path")
    return current if isinstance(current, str) and files.portable(current) == model["path"] else str(model["path"])


def _hub_file(repo: str, name: str, commit: str) -> Path:
    """A hub model's file in the local cache, at the locked commit; a path that does not exist if it is missing."""
    return hub_cache.file_here(repo, name, commit) or Path(f"{repo}@{commit}") / name


def _place_model(run: dict[str, Any], model_files: dict[str, Path], root: Path, folder: Path) -> dict[str, Any]:
    """Make a base model available in the clean folder, and return its table for thunder.toml there."""
    table = {key: value for key, value in run["recipe"]["model"].items() if key != "name"}
    home = _home(run["recipe"]["model"], root)
    if table["kind"] == "hub":
        files.write_json(folder / paths.model_lock(run["recipe"]["model"]["name"]), run["model"])
    elif table["kind"] == "path" and home != table["path"]:
        table["path"] = str((root / home).resolve())
    elif table["kind"] == "path":
        for name, path in model_files.items():
            target = folder / home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_symlink():  # a run and the one that it began with have one base
                target.symlink_to(path.resolve())  # a copy would cost gigabytes
    return table


def _place_gate(gate: dict[str, Any], today: dict[str, Any], root: Path, folder: Path) -> None:
    """Copy the files of this project that an external gate runs, and say in the manifest's table how it runs today."""
    if gate.get("command"):
        gate |= today
        for word in external_gate.programs(tuple(gate["command"]), root):
            _copy(root / word, folder / word)


def _place_looks(recorded: Any, folder: Path) -> None:
    """Let the evaluation be the same look at its test rows as it was, whatever else was evaluated on them here."""
    given = recorded if isinstance(recorded, dict) else {}
    count, test = given.get("count"), given.get("test_sha256")
    if isinstance(count, int) and 1 < count < MOST_LOOKS and files.is_sha256(test):
        looks.write(folder, [looks.Look(looks.ELSEWHERE, count - 1, str(test))])


def _write_project(tables: list[tuple[dict[str, Any], ...]], folder: Path, where: str) -> None:
    """Write thunder.toml and the recipes. tables: of `_placed`, the run itself first; what they share is equal."""
    project = tables[0][0]
    for each, recipe in tables:
        for kind in ("clusters", "models", "datasets"):
            project[kind] = {**each[kind], **project[kind]}
        files.write_text(folder / "recipes" / f"{recipe['name']}.toml", as_toml(recipe, where))
    files.write_text(folder / load.PROJECT_FILE, as_toml(project, where))


def _current_table(root: Path, kind: str, name: str) -> dict[str, Any]:
    """A named table of the current thunder.toml; empty if there is none."""
    tables = read_toml(root / load.PROJECT_FILE, load.PROJECT_FILE, "git checkout it").get(kind)
    table = tables.get(name) if isinstance(tables, dict) else None
    return table if isinstance(table, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)  # with its mode: a gate may be a program
