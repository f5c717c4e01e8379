"""Bring what a recipe needs to every host of its cluster: project, rows, tokens, model, environment.

Reads thunder.toml's cluster, data/<dataset>/, runs/<recipe>/, the model by its lock; writes on the hosts, inside their
project folder and, for a hub model, in their hub cache. Hosts are compared by hash first and sent only what differs;
it arrives in .thunder/incoming/, is hashed there, and takes its place only when all of it is whole (there.py).
"""

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, files, layout, models, raise_all, remote, there
from thunder_train.config import Cluster, Model, Recipe
from thunder_train.stats import StatCache

PROJECT = ("dodo.py", "doit", "pyproject.toml", "requirements.lock", "thunder.toml")
FOLDERS = {"recipes": "*.toml", "templates": "**/*", "thunder_train": "**/*.py"}
"""Folders of the project, and which of their files are its own."""
ROWS = ("manifest.json", "test.jsonl", "train.jsonl", "valid.jsonl")
RUN = (*layout.SCRIPTS, "hostfile.json", "recipe.toml")
TOKENS = ".thunder/tokens"
NEWEST_TOKENS = 8
"""A training reads two files of tokens, an evaluation three; whose they are only a worker could tell."""
CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
ENVIRONMENT_WITHIN_S = 3600
MIB = 1 << 20


@dataclass(frozen=True)
class Needs:
    """Hex sha256 of every file that a host must hold, by its path. hub_folder: where hub_files lie here.

    elsewhere: files of a model outside of the project; looked at, never sent. environment: of requirements.lock.
    """

    files: dict[str, str]
    elsewhere: dict[str, str]
    hub: dict[str, Any] | None
    hub_folder: Path
    environment: str


@dataclass(frozen=True)
class HostSynced:
    """What a host got. replaced: its own files, kept in its .thunder/replaced/; removed: ours, no longer wanted."""

    host: str
    sent: int
    sent_bytes: int
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    has_new_environment: bool
    seconds: float


@dataclass(frozen=True)
class Synced:
    """All hosts, sorted by name; none for a cluster of local ranks."""

    hosts: tuple[HostSynced, ...]


def sync(recipe: Recipe, root: Path) -> Synced:
    """Bring every remote host to the state of the project in root. Raises ThunderError with every host's problems.

    A host's own file in the way of ours is kept in .thunder/replaced/; nothing that sync did not bring is removed.
    """
    names = remote.hosts(recipe.cluster)
    if not names:
        return Synced(())
    stats = StatCache(root / ".thunder" / "stats.sqlite")
    common = needs(recipe, root, stats)
    first = recipe.cluster.hosts[0].ssh
    # Only the first rank looks for an adapter, and gives it to the others.
    own = {name: _with(common, _adapter(recipe, root, stats)) if name == first else common for name in names}
    return Synced(tuple(remote.everywhere(names, lambda name: _host(recipe, root, own[name], name))))


def lines(found: Synced) -> list[str]:
    """What was done, a line per host and per thing worth knowing."""
    told = []
    for host in found.hosts:
        what = f"{host.sent} files, {host.sent_bytes / MIB:.1f} MiB" if host.sent else "nothing to do"
        told.append(f"{host.host}: {what}, {host.seconds:.1f} s")
        told += [f"{host.host}: replaced {path}; its own is in .thunder/replaced/" for path in host.replaced]
        told += [f"{host.host}: removed {path}" for path in host.removed]
    return told


def needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """What each host must hold. Raises ThunderError with everything that is not there yet, or not as it was locked."""
    paths = [name for name in PROJECT if (root / name).is_file()]
    for folder, pattern in FOLDERS.items():
        found = (path for path in (root / folder).glob(pattern) if path.is_file())
        paths += [str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts]
    paths += [path for path in (f"runs/{recipe.name}/{name}" for name in RUN) if (root / path).is_file()]
    paths += _newest_tokens(root)
    lock = f"{models.home(recipe.model)}/model.lock.json"
    required = [*(f"data/{recipe.dataset.name}/{name}" for name in ROWS), lock]
    missing = [path for path in required if not (root / path).is_file()]
    task = {lock: f"model:{recipe.model.name}"}
    mend = f"data:{recipe.dataset.name}"
    raise_all([ThunderError("is missing", path, f"run `./doit {task.get(path, mend)}`") for path in missing])
    wanted = {path: stats.sha256(str(root / path)) for path in sorted({*paths, *required})}
    environment = wanted.get("requirements.lock", "")
    return _with_model(Needs(wanted, {}, None, Path(), environment), recipe, root, stats)


def _with(known: Needs, more: dict[str, str]) -> Needs:
    return Needs({**known.files, **more}, known.elsewhere, known.hub, known.hub_folder, known.environment)


def _with_model(known: Needs, recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The needs with the model's files, as its lock names them."""
    model = recipe.model
    lock = files.read_json(root / models.home(model) / "model.lock.json")
    hashes = {each["path"]: each["sha256"] for each in lock["files"]}
    folder, place = _model_folder(model, lock, root)
    mend = f"run `./doit model:{model.name}`"
    raise_all(
        [
            ThunderError("is not the file that model.lock.json names", str(folder / name), mend)
            for name, sha in sorted(hashes.items())
            if not (files.is_inside(name) and (folder / name).is_file() and stats.sha256(str(folder / name)) == sha)
        ]
    )
    if model.kind == "hub":
        variables = dict(pair.split("=", 1) for pair in recipe.cluster.envs)
        told = {name: variables[name] for name in CACHE_VARIABLES if name in variables}
        hub = {"repo": model.repo, "commit": lock["commit"], "files": hashes, "variables": told}
        return Needs(known.files, {}, hub, folder, known.environment)
    named = {f"{place}/{name}": sha for name, sha in hashes.items()}
    if not files.is_inside(place):
        return Needs(known.files, named, None, Path(), known.environment)
    return _with(known, named)


def _model_folder(model: Model, lock: dict[str, Any], root: Path) -> tuple[Path, str]:
    """Where a model's files lie here, and the same from the project folder; "" for those of the hub."""
    if model.kind == "nano":
        return root / models.home(model) / "files", f"{models.home(model)}/files"
    if model.kind == "path":
        return root / model.path, model.path
    from huggingface_hub.constants import HF_HUB_CACHE  # late: it costs half a second

    question = {"repo": model.repo, "commit": lock["commit"], "variables": {"HF_HUB_CACHE": HF_HUB_CACHE}}
    return Path(there.hub_folder(question)), ""


def _adapter(recipe: Recipe, root: Path, stats: StatCache) -> dict[str, str]:
    paths = [f"runs/{recipe.name}/{name}" for name in layout.ADAPTER]
    return {path: stats.sha256(str(root / path)) for path in paths if (root / path).is_file()}


def _newest_tokens(root: Path) -> list[str]:
    found = sorted((root / TOKENS).glob("*.tokens"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path.relative_to(root)) for path in found[:NEWEST_TOKENS]]


def _host(recipe: Recipe, root: Path, wanted: Needs, host: str) -> HostSynced:
    """Look, send what differs, look again, make the environment."""
    began, where = time.perf_counter(), recipe.cluster
    question = {"recipe": recipe.name, "files": wanted.files, "hub": wanted.hub, "elsewhere": wanted.elsewhere}
    ask = partial(remote.ask, where, host)
    found = ask({**question, "do": "look"})
    size = _size(root, found["missing"]) + _size(wanted.hub_folder, found["missing_hub"])
    raise_all(_problems(found, host, size))
    sent = len(found["missing"]) + len(found["missing_hub"])
    replaced: list[str] = []
    if sent:
        incoming = f"{where.folder}/{there.INCOMING}/{recipe.name}"
        if found["missing"]:
            remote.push(host, root, found["missing"], f"{incoming}/project")
        if found["missing_hub"]:
            remote.push(host, wanted.hub_folder, found["missing_hub"], f"{incoming}/hub")
        found = ask({**question, "do": "place"})
        raise_all(_damaged(found, host))
        replaced = found["replaced"]
    is_old = found["environment"] != wanted.environment
    has_new_environment = bool(wanted.environment) and is_old and _is_ours(where)
    if has_new_environment:
        _make_environment(where, host)
    seconds = time.perf_counter() - began
    return HostSynced(host, sent, size, tuple(replaced), tuple(found["removed"]), has_new_environment, seconds)


def _size(folder: Path, names: list[str]) -> int:
    return sum((folder / name).stat().st_size for name in names)


def _problems(found: dict[str, Any], host: str, size: int) -> list[ThunderError]:
    """Why a host cannot be brought to our state, from its answer to a look. size: bytes that are to be sent."""
    where = f"host {host}"
    mend = "copy it there yourself: it lies outside of the project, where sync writes nothing"
    problems = [ThunderError(f"{path} is missing or another one", where, mend) for path in found["elsewhere"]]
    if size > found["free_bytes"]:
        what = f"has {found['free_bytes'] / MIB:.0f} MiB free, and {size / MIB:.0f} MiB are to come"
        problems.append(ThunderError(what, where, "free space there"))
    return problems


def _damaged(found: dict[str, Any], host: str) -> list[ThunderError]:
    """What did not arrive as it was sent, from the answer to a place."""
    where, mend = f"host {host}", "run it again; if that does not help, look at its memory and disk"
    if found["damaged"]:
        return [
            ThunderError(f"{path} arrived damaged; nothing was changed there", where, mend) for path in found["damaged"]
        ]
    absent = [*found["missing"], *found["missing_hub"]]
    return [ThunderError(f"{path} is not there as it was sent", where, mend) for path in absent]


def _is_ours(where: Cluster) -> bool:
    """Whether the hosts' interpreter is the one that ./doit makes; any other is the user's own."""
    return where.python.startswith(".venv/")


def _make_environment(where: Cluster, host: str) -> None:
    print(f"{host}: making .venv there from requirements.lock, as ./doit does", file=sys.stderr, flush=True)
    remote.run(where, host, "./doit list", ENVIRONMENT_WITHIN_S)
