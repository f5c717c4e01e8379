"""What every host of a cluster must hold before it can train or evaluate a recipe: files by their hashes.

Reads thunder.toml's cluster, data/<dataset>/, runs/<recipe>/ and the model by its lock. sync.py brings them there.

Bring what a recipe needs (needs.py) to every host of its cluster: project, rows, tokens, model, environment.

Writes on the hosts, inside their project folder. Hosts are compared by hash first and sent only what differs; that
arrives in .thunder/incoming/, is hashed there, and takes its place only when all of it is whole (there.py).
"""

import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models, raise_all
from thunder_train.agent import client
from thunder_train.agent import files as host_files
from thunder_train.cluster import relay, transfer
from thunder_train.config.project import Cluster, Recipe
from thunder_train.core import files, hub_cache
from thunder_train.core import paths as layout
from thunder_train.core.stat_cache import StatCache

PROJECT = ("dodo.py", "doit", "pyproject.toml", "requirements.lock", "thunder.toml")
FOLDERS = {"recipes": "*.toml", "templates": "**/*", "thunder_train": "**/*.py"}
"""Folders of the project, and which of their files are its own."""
ROWS = ("manifest.json", "test.jsonl", "train.jsonl", "valid.jsonl")
TOKENS = ".thunder/tokens"
NEWEST_TOKENS = 8
"""A training reads two files of tokens, an evaluation three; whose they are only a worker could tell."""


@dataclass(frozen=True)
class Needs:
    """Hex sha256 of every file that a host must hold, by its path in the project.

    snapshot: the folder of a hub's model on hosts, "" for any other model; snapshot_here: the same on this machine.
    elsewhere: files of a model outside of the project; looked at, never sent. environment: of requirements.lock.
    """

    files: dict[str, str]
    environment: str
    elsewhere: dict[str, str] = field(default_factory=dict)
    snapshot: str = ""
    snapshot_here: Path = Path()

    def is_of_hub(self, path: str) -> bool:
        """Whether a file is one of a hub's model, which lies outside of the project on this machine."""
        return bool(self.snapshot) and path.startswith(f"{self.snapshot}/")

    def here(self, root: Path, path: str) -> Path:
        """Where a file lies on this machine."""
        return self.snapshot_here / Path(path).name if self.is_of_hub(path) else root / path


def needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """What each host must hold. Raises ThunderError with everything that is not there yet, or not as it was locked."""
    paths = [name for name in PROJECT if (root / name).is_file()]
    for folder, pattern in FOLDERS.items():
        found = (path for path in (root / folder).glob(pattern) if path.is_file())
        paths += [str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts]
    paths += [path for path in (f"runs/{recipe.name}/{name}" for name in layout.SENT) if (root / path).is_file()]
    paths += _newest_tokens(root)
    lock = f"{models.home(recipe.model)}/model.lock.json"
    required = [*(f"data/{recipe.dataset.name}/{name}" for name in ROWS), lock]
    missing = [path for path in required if not (root / path).is_file()]
    task = {lock: f"model:{recipe.model.name}"}
    data = f"data:{recipe.dataset.name}"
    raise_all([ThunderError("is missing", path, f"run `./doit {task.get(path, data)}`") for path in missing])
    wanted = {path: stats.sha256(str(root / path)) for path in sorted({*paths, *required})}
    return _with_model(Needs(wanted, wanted.get("requirements.lock", "")), recipe, root, stats)


def with_adapter(known: Needs, recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The needs of the first rank: only that one looks for an adapter, and gives it to the others."""
    paths = [f"runs/{recipe.name}/{name}" for name in layout.ADAPTER]
    return _with(known, {path: stats.sha256(str(root / path)) for path in paths if (root / path).is_file()})


def _with(known: Needs, more: dict[str, str]) -> Needs:
    return replace(known, files={**known.files, **more})


def _with_model(known: Needs, recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The needs with the model's files, as its lock names them."""
    model = recipe.model
    lock = files.read_json(root / models.home(model) / "model.lock.json")
    hashes = {each["path"]: each["sha256"] for each in lock["files"]}
    place = models.on_hosts(model, lock)
    folder = hub_cache.snapshot_here(model.repo, lock["commit"]) if model.kind == "hub" else root / place
    hint = f"run `./doit model:{model.name}`"
    raise_all(
        [
            ThunderError("is not the file that model.lock.json names", str(folder / name), hint)
            for name, sha in sorted(hashes.items())
            if not (files.is_inside(name) and (folder / name).is_file() and stats.sha256(str(folder / name)) == sha)
        ]
    )
    named = {f"{place}/{name}": sha for name, sha in hashes.items()}
    if model.kind == "hub":
        return replace(_with(known, named), snapshot=place, snapshot_here=folder)
    return _with(known, named) if files.is_inside(place) else replace(known, elsewhere=named)


def _newest_tokens(root: Path) -> list[str]:
    found = sorted((root / TOKENS).glob("*.tokens"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path.relative_to(root)) for path in found[:NEWEST_TOKENS]]


ENVIRONMENT_WITHIN_S = 3600
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor} python3"
MAKE_ENVIRONMENT = f"PYTHON='{PYTHON}' PIP_CACHE_DIR=$PWD/.thunder/pip UV_CACHE_DIR=$PWD/.thunder/uv ./doit list"
"""As a user there would make it, with this machine's Python if there is one; nothing lies outside of the project."""
MIB = 1 << 20


@dataclass(frozen=True)
class HostSynced:
    """What a host got. giver: the host that gave it the large files, "" if this machine did; replaced: its own files,
    kept in its .thunder/replaced/; removed: ours, no longer wanted.
    """

    host: str
    sent: int
    sent_bytes: int
    giver: str
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    has_new_environment: bool
    seconds: float


@dataclass(frozen=True)
class Synced:
    """All hosts, sorted by name; none for a cluster of local ranks."""

    hosts: tuple[HostSynced, ...]

    @property
    def has_changed(self) -> bool:
        """Whether any host is another than before."""
        return any(host.sent or host.removed or host.has_new_environment for host in self.hosts)


@dataclass(frozen=True)
class Delivery:
    """What a host shall hold, and what it lacks of it: {path: bytes}; as its look told. began: time of that look."""

    host: str
    wanted: Needs
    missing: dict[str, int]
    removed: tuple[str, ...]
    is_environment_old: bool
    began: float


def sync(recipe: Recipe, root: Path) -> Synced:
    """Bring every remote host to the state of the project in root. Raises ThunderError with every host's problems.

    A host's own file in the way of ours is kept in .thunder/replaced/; nothing that sync did not bring is removed. What
    is wrong with one host keeps no other one from getting what it lacks.
    """
    cluster, names, problems = recipe.cluster, transfer.hosts(recipe.cluster), list[ThunderError]()
    if not names:
        return Synced(())
    stats = StatCache(root / ".thunder" / "stats.sqlite")
    common = needs(recipe, root, stats)
    own = dict.fromkeys(names, common)
    if cluster.hosts[0].ssh in own:
        own[cluster.hosts[0].ssh] = with_adapter(common, recipe, root, stats)
    looked = transfer.attempts(names, lambda name: _look(recipe, root, own[name], name), problems)
    missing = {each.host: each.missing for each in looked}
    takers = relay.takers(cluster, missing)
    quick = [each for each in looked if each.host not in takers]
    done = transfer.attempts(quick, lambda each: _send(recipe, root, each), problems)
    late = sorted((each for each in looked if each.host in takers), key=lambda each: takers.index(each.host))
    done += _hand_on(recipe, root, late, relay.givers(cluster, [each.host for each in done]), problems)
    made = transfer.attempts(done, lambda each: _with_environment(recipe, each), problems)
    raise_all(problems)
    return Synced(tuple(sorted(made, key=lambda each: each.host)))


def lines(found: Synced) -> list[str]:
    """What was done, a line per host and per thing worth knowing."""
    told = []
    for host in found.hosts:
        what = f"{host.sent} files, {host.sent_bytes / MIB:.1f} MiB" if host.sent else "nothing to do"
        what += f", the large ones from {host.giver}" if host.giver else ""
        told.append(f"{host.host}: {what}, {host.seconds:.1f} s")
        told += [f"{host.host}: replaced {path}; its own is in .thunder/replaced/" for path in host.replaced]
        told += [f"{host.host}: removed {path}" for path in host.removed]
    return told


def _look(recipe: Recipe, root: Path, wanted: Needs, host: str) -> Delivery:
    """What a host lacks. Raises ThunderError when it cannot get it."""
    began = time.perf_counter()
    found = transfer.ask(recipe.cluster, host, _question(recipe, wanted, "look"))
    missing = {path: wanted.here(root, path).stat().st_size for path in found["missing"]}
    raise_all(_problems(found, host, sum(missing.values())))
    is_old = found["environment"] != wanted.environment
    is_environment_old = bool(wanted.environment) and is_old and _is_ours(recipe.cluster)
    return Delivery(host, wanted, missing, tuple(found["removed"]), is_environment_old, began)


def _question(recipe: Recipe, wanted: Needs, do: str) -> dict[str, Any]:
    return {"do": do, "recipe": recipe.name, "files": wanted.files, "elsewhere": wanted.elsewhere}


def _send(recipe: Recipe, root: Path, each: Delivery, giver: str = "", given: Collection[str] = ()) -> HostSynced:
    """Send a host what it lacks, and have it put in its place. given: what it got from a giver before."""
    removed, replaced, wanted = each.removed, list[str](), each.wanted
    if each.missing:
        names, incoming = [path for path in each.missing if path not in given], _incoming(recipe)
        of_hub = [path for path in names if wanted.is_of_hub(path)]
        if own := [path for path in names if path not in of_hub]:
            transfer.push(each.host, root, own, incoming)
        if of_hub:
            inside = [Path(path).name for path in of_hub]
            transfer.push(each.host, wanted.snapshot_here, inside, f"{incoming}/{wanted.snapshot}")
        found = transfer.ask(recipe.cluster, each.host, _question(recipe, wanted, "place"))
        raise_all(_damaged(found, each.host))
        replaced, removed = found["replaced"], tuple(found["removed"])
    size, seconds = sum(each.missing.values()), time.perf_counter() - each.began
    is_new = each.is_environment_old
    return HostSynced(each.host, len(each.missing), size, giver, tuple(replaced), removed, is_new, seconds)


def _incoming(recipe: Recipe) -> str:
    return f"{recipe.cluster.folder}/{host_files.INCOMING}/{recipe.name}"


def _hand_on(
    recipe: Recipe, root: Path, takers: list[Delivery], givers: set[str], problems: list[ThunderError]
) -> list[HostSynced]:
    """One host after another: large files from a host that has them already, all the rest from here."""
    if not takers:
        return []
    cluster, done = recipe.cluster, list[HostSynced]()
    with client.opened([*sorted(givers), *(each.host for each in takers)], cluster) as sessions:
        for each in takers:
            giver = relay.nearest(cluster, each.host, givers)
            given = _given(recipe, root, each, sessions[giver], sessions[each.host]) if giver else []
            send = partial(_send, recipe, root, giver=giver if given else "", given=given)
            brought = transfer.attempts([each], send, problems)
            givers |= relay.givers(cluster, [one.host for one in brought])
            done += brought
    return done


def _given(recipe: Recipe, root: Path, each: Delivery, giver: client.Session, taker: client.Session) -> list[str]:
    """The large files that a host got from another one; none where sending them from here is as fast."""
    wanted, is_here = each.wanted, giver.host == client.HERE
    found = {}
    for path in relay.large(each.missing):
        place = str(wanted.here(root.absolute(), path)) if is_here else f"{recipe.cluster.folder}/{path}"
        found[path] = relay.File(place, wanted.files[path], each.missing[path])
    return [*found] if relay.carry(recipe.cluster, giver, taker, _incoming(recipe), found) else []


def _problems(found: dict[str, Any], host: str, size: int) -> list[ThunderError]:
    """Why a host cannot be brought to our state, from its answer to a look. size: bytes that are to be sent."""
    where = f"host {host}"
    hint = "copy it there yourself: it lies outside of the project, where sync writes nothing"
    problems = [ThunderError(f"{path} is missing or another one", where, hint) for path in found["elsewhere"]]
    if size > found["free_bytes"]:
        what = f"has {found['free_bytes'] / MIB:.0f} MiB free, and {size / MIB:.0f} MiB are to come"
        problems.append(ThunderError(what, where, "free space there"))
    return problems


def _damaged(found: dict[str, Any], host: str) -> list[ThunderError]:
    """What did not arrive as it was sent, from the answer to a place."""
    where, hint = f"host {host}", "run it again; if that does not help, look at its memory and disk"
    if found["damaged"]:
        return [
            ThunderError(f"{path} arrived damaged; nothing was changed there", where, hint) for path in found["damaged"]
        ]
    return [ThunderError(f"{path} is not there as it was sent", where, hint) for path in found["missing"]]


def _is_ours(where: Cluster) -> bool:
    """Whether the hosts' interpreter is the one that ./doit makes; any other is the user's own."""
    return where.python.startswith(".venv/")


def _with_environment(recipe: Recipe, each: HostSynced) -> HostSynced:
    """The host with an environment of our lock, made there where it has another one or none."""
    if not each.has_new_environment:
        return each
    began = time.perf_counter()
    # One write: hosts are served by threads, and print writes a line's end apart.
    sys.stderr.write(f"{each.host}: making .venv there from requirements.lock, as ./doit does\n")
    transfer.run(recipe.cluster, each.host, MAKE_ENVIRONMENT, ENVIRONMENT_WITHIN_S)
    return replace(each, seconds=each.seconds + time.perf_counter() - began)
