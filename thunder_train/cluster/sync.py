"""What every host of a cluster must hold to train or evaluate a recipe, and bringing it there.

Reads the project's own files, data/<dataset>/, runs/<recipe>/ and the model by its lock. Writes on the hosts, inside
their project folder: hosts are compared by hash and sent only what differs; files arrive in .thunder/incoming/, are
hashed there, and take their places only when all are undamaged (agent/files.py).
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models, raise_all
from thunder_train.agent import client
from thunder_train.agent import files as host_files
from thunder_train.agent.client import Session
from thunder_train.cluster import transfer
from thunder_train.config.project import Cluster, Recipe, is_local
from thunder_train.core import files, hub_cache, paths
from thunder_train.core.stat_cache import StatCache

PROJECT = ("dodo.py", "doit", "pyproject.toml", "requirements.lock", "thunder.toml")
CODE = "thunder_train"
FOLDERS = {"recipes": "*.toml", "templates": "**/*", CODE: "**/*.py"}
"""Folders of the project, and the files in them that belong to it."""
ROWS = ("manifest.json", "test.jsonl", "train.jsonl", "valid.jsonl")
NEWEST_TOKENS = 8
"""A training reads two token files, an evaluation three; only a worker can tell which, so the newest ones are sent."""
LOOK_WITHIN_S = 3600.0
"""Limit for comparing a host's files: the first comparison reads all of a large model."""
ENVIRONMENT_WITHIN_S = 3600.0
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor} python3"
MAKE_ENVIRONMENT = f"PYTHON='{PYTHON}' PIP_CACHE_DIR=$PWD/.thunder/pip UV_CACHE_DIR=$PWD/.thunder/uv ./doit list"
"""Makes .venv as a user would, with this machine's Python version if the host has it; writes only in the project."""
ELSEWHERE_HINT = "copy it there yourself: it is outside of the project, where sync writes nothing"
MIB = 1 << 20


@dataclass(frozen=True)
class HostFile:
    """A file that a host must hold: hex sha256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Needs:
    """What a host must hold, by path in the project.

    elsewhere: a model's files outside of the project; compared, never sent. snapshot: the folder of a Hugging Face
    model on hosts, "" for any other model; snapshot_here: the same folder on this machine.
    """

    files: dict[str, HostFile]
    elsewhere: dict[str, HostFile] = field(default_factory=dict)
    snapshot: str = ""
    snapshot_here: Path = Path()

    def is_of_hub(self, path: str) -> bool:
        """Whether a file is one of a Hugging Face model, which is outside of the project on this machine."""
        return bool(self.snapshot) and path.startswith(f"{self.snapshot}/")

    def here(self, root: Path, path: str) -> Path:
        """Where a file is on this machine."""
        return self.snapshot_here / Path(path).name if self.is_of_hub(path) else root / path


@dataclass(frozen=True)
class HostSynced:
    """What one host got. replaced: its own files, kept in its .thunder/replaced/; removed: files that earlier syncs
    brought and no recipe needs any more.
    """

    host: str
    sent: int
    sent_bytes: int
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    has_new_environment: bool
    seconds: float


@dataclass(frozen=True)
class Synced:
    """All remote hosts, sorted by name; none for a cluster of local ranks."""

    hosts: tuple[HostSynced, ...]

    @property
    def has_changed(self) -> bool:
        """Whether anything has changed on any host."""
        return any(host.sent or host.removed or host.has_new_environment for host in self.hosts)


def needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """What each host must hold. Raises ThunderError for each file that is missing here or differs from its lock."""
    lock, data = _lock(recipe), f"data:{recipe.dataset.name}"
    required = {**dict.fromkeys(_row_files(recipe), data), lock: f"model:{recipe.model.name}"}
    missing = [path for path in required if not (root / path).is_file()]
    raise_all([ThunderError("is missing", path, f"run `./doit {required[path]}`") for path in missing])
    existing = existing_needs(recipe, root, stats)
    raise_all(_model_problems(recipe, existing, root, stats))
    return existing


def existing_needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The same without the files that are not made yet: a preflight may come before the dataset and the model."""
    names = list(PROJECT)
    for folder, pattern in FOLDERS.items():
        names += [
            str(path.relative_to(root)) for path in (root / folder).glob(pattern) if "__pycache__" not in path.parts
        ]
    lock = _lock(recipe)
    names += [*(f"{paths.run(recipe.name)}/{name}" for name in paths.SENT), *_row_files(recipe), lock]
    existing = Needs(_hashed(sorted(set(names)), root, stats))
    return _with_model(existing, recipe, root) if (root / lock).is_file() else existing


def sync(recipe: Recipe, root: Path) -> Synced:
    """Bring every remote host to the state of the project in root. Raises ThunderError with every host's problems.

    A host's own file in the place of ours is kept in .thunder/replaced/; files that sync did not bring are not removed.
    A problem of one host does not keep the other ones from getting their files.
    """
    cluster = recipe.cluster
    remote = sorted(name for name in cluster.machines if not is_local(name))
    if not remote:
        return Synced(())
    stats = StatCache(root / paths.STATS)
    common = _with(needs(recipe, root, stats), _hashed(_newest_tokens(root), root, stats))
    # Only the first rank reads an adapter; it sends it to the others.
    adapter = _hashed([f"{paths.run(recipe.name)}/{name}" for name in paths.ADAPTER], root, stats)
    wanted = {name: _with(common, adapter) if name == cluster.hosts[0].machine else common for name in remote}
    with client.opened(remote, cluster) as sessions:
        synced = client.everywhere(sessions, lambda session: _sync_host(recipe, root, wanted[session.host], session))
    return Synced(tuple(synced.values()))


def lines(synced: Synced) -> list[str]:
    """What was done, as lines for people: one per host, replaced file and removed file."""
    text = []
    for host in synced.hosts:
        what = f"{host.sent} files, {host.sent_bytes / MIB:.1f} MiB" if host.sent else "nothing to do"
        text.append(f"{host.host}: {what}, {host.seconds:.1f} s")
        text += [f"{host.host}: replaced {path}; its own is in .thunder/replaced/" for path in host.replaced]
        text += [f"{host.host}: removed {path}" for path in host.removed]
    return text


def _lock(recipe: Recipe) -> str:
    return paths.model_lock(recipe.model.name)


def _row_files(recipe: Recipe) -> list[str]:
    return [f"{paths.dataset(recipe.dataset.name)}/{name}" for name in ROWS]


def _newest_tokens(root: Path) -> list[str]:
    newest = sorted((root / paths.TOKENS).glob("*.tokens"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path.relative_to(root)) for path in newest[:NEWEST_TOKENS]]


def _hashed(names: Iterable[str], root: Path, stats: StatCache) -> dict[str, HostFile]:
    """The files among paths below root."""
    existing = [(name, root / name) for name in names if (root / name).is_file()]
    return {name: HostFile(stats.sha256(str(path)), path.stat().st_size) for name, path in existing}


def _with(before: Needs, more: dict[str, HostFile]) -> Needs:
    return replace(before, files={**before.files, **more})


def _with_model(before: Needs, recipe: Recipe, root: Path) -> Needs:
    """The needs with the model's files, by their hashes in its lock."""
    model, lock = recipe.model, files.read_json(root / _lock(recipe))
    folder = models.on_hosts(model, lock)
    locked = {f"{folder}/{each['path']}": HostFile(each["sha256"], each["bytes"]) for each in lock["files"]}
    if model.kind == "hub":
        here = hub_cache.snapshot_here(model.repo, lock["commit"])
        return replace(_with(before, locked), snapshot=folder, snapshot_here=here)
    return _with(before, locked) if files.is_inside(folder) else replace(before, elsewhere=locked)


def _model_problems(recipe: Recipe, wanted: Needs, root: Path, stats: StatCache) -> list[ThunderError]:
    """The model's files on this machine that are missing or not those of its lock."""
    lock = files.read_json(root / _lock(recipe))
    folder, problems = models.on_hosts(recipe.model, lock), []
    for name, sha256 in sorted((each["path"], each["sha256"]) for each in lock["files"]):
        path = wanted.here(root, f"{folder}/{name}")
        if not (files.is_inside(name) and path.is_file() and stats.sha256(str(path)) == sha256):
            hint = f"run `./doit model:{recipe.model.name}`"
            problems.append(ThunderError("is not the file that model.lock.json names", str(path), hint))
    return problems


def _sync_host(recipe: Recipe, root: Path, wanted: Needs, session: Session) -> HostSynced:
    """Bring one host to the wanted state."""
    start, cluster, host = time.perf_counter(), recipe.cluster, session.host
    question = {
        "folder": cluster.folder,
        "recipe": recipe.name,
        "files": {path: file.sha256 for path, file in wanted.files.items()},
        "elsewhere": {path: file.sha256 for path, file in wanted.elsewhere.items()},
    }
    state = session.ask(LOOK_WITHIN_S, ask="look", **question)
    missing = state["missing"]
    size = sum(wanted.files[path].bytes for path in missing)
    raise_all(_problems(state, host, size))
    if missing:
        _send(recipe, root, wanted, missing, session)
        state = session.ask(LOOK_WITHIN_S, ask="place", **question)
        raise_all(_damaged(state, host))
    is_new = _needs_environment(cluster, wanted, state)
    if is_new:
        # One write: hosts are served by threads, and print writes the end of a line separately.
        sys.stderr.write(f"{host}: making .venv there from requirements.lock, as ./doit does\n")
        transfer.run(session, cluster.folder, MAKE_ENVIRONMENT, ENVIRONMENT_WITHIN_S)
    replaced, removed = tuple(state.get("replaced", ())), tuple(state["removed"])
    return HostSynced(host, len(missing), size, replaced, removed, is_new, time.perf_counter() - start)


def _send(recipe: Recipe, root: Path, wanted: Needs, missing: list[str], session: Session) -> None:
    """Send files to .thunder/incoming/ of a host."""
    incoming = f"{recipe.cluster.folder}/{host_files.INCOMING}/{recipe.name}"
    of_hub = [Path(path).name for path in missing if wanted.is_of_hub(path)]
    if of_project := [path for path in missing if not wanted.is_of_hub(path)]:
        transfer.push(session, root, of_project, incoming)
    if of_hub:
        transfer.push(session, wanted.snapshot_here, of_hub, f"{incoming}/{wanted.snapshot}")


def _problems(state: dict[str, Any], host: str, size: int) -> list[ThunderError]:
    """Why a host cannot get the wanted state, from its answer to `look`. size: bytes that would be sent."""
    where = f"host {host}"
    problems = [ThunderError(f"{path} is missing or differs", where, ELSEWHERE_HINT) for path in state["elsewhere"]]
    if size > state["free_bytes"]:
        what = f"has {state['free_bytes'] / MIB:.0f} MiB free, and {size / MIB:.0f} MiB would be sent"
        problems.append(ThunderError(what, where, "free space there"))
    return problems


def _damaged(state: dict[str, Any], host: str) -> list[ThunderError]:
    """Files that arrived damaged, from a host's answer to `place`."""
    where, hint = f"host {host}", "run it again; if that does not help, check that host's memory and disk"
    if state["damaged"]:
        what = "arrived damaged; nothing was changed there"
        return [ThunderError(f"{path} {what}", where, hint) for path in state["damaged"]]
    return [ThunderError(f"{path} is not there as it was sent", where, hint) for path in state["missing"]]


def _needs_environment(cluster: Cluster, wanted: Needs, state: dict[str, Any]) -> bool:
    """Whether .venv on a host was made from another lock. Any other interpreter is its user's to maintain."""
    lock = wanted.files.get("requirements.lock")
    return lock is not None and state["environment"] != lock.sha256 and cluster.python.startswith(".venv/")
