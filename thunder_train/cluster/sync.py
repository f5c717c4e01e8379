"""Brings the files that a recipe needs (required_files.py) to every host of its cluster, and makes the environment.

Writes on the hosts, inside their project folder: hosts are compared by hash and sent only what differs and stands on
the list; contents arrive in .thunder/incoming/, are hashed there, and take their places only when all are undamaged
(agent/files.py).
"""

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import client
from thunder_train.agent.client import CHECK_HOST, Session
from thunder_train.cluster import required_files, transfer
from thunder_train.cluster.required_files import Needs
from thunder_train.cluster.transfer import Part
from thunder_train.config.project import Recipe, is_local
from thunder_train.core import paths
from thunder_train.core.stat_cache import StatCache
from thunder_train.core.text import quoted

LOOK_WITHIN_S = 3600.0
"""Limit for comparing a host's files: the first comparison reads all of a large model."""
ENVIRONMENT_WITHIN_S = 3600.0
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHON = f"python{MINOR} python3"
MAKE_ENVIRONMENT = (
    f'PYTHON=\'{PYTHON}\' PIP_CACHE_DIR="$PWD/.thunder/pip" UV_CACHE_DIR="$PWD/.thunder/uv" ./doit --version'
)
"""Makes .venv as a user would, with this machine's Python version if the host has it; writes only in the project."""
MIB = 1 << 20
NO_NETWORK = "read the lines above: mostly it reaches no package index"
UNLISTED_SHOWN = 3


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


def sync(recipe: Recipe, root: Path, more: Iterable[str] = ()) -> Synced:
    """Bring every remote host to the state of the project in root. Raises ThunderError with every host's problems.

    more: files that every host needs besides, as paths from root.
    A host's own file in the place of ours is kept in .thunder/replaced/; files that sync did not bring are not removed.
    A problem of one host does not keep the other ones from getting their files.
    """
    cluster = recipe.cluster
    remote = sorted(name for name in cluster.machines if not is_local(name))
    if not remote:
        return Synced(())
    wanted = required_files.of_hosts(recipe, remote, root, StatCache(root / paths.STATS), more)
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


def _sync_host(recipe: Recipe, root: Path, wanted: Needs, session: Session) -> HostSynced:
    """Bring one host to the wanted state."""
    start, cluster, host = time.perf_counter(), recipe.cluster, session.host
    question: dict[str, Any] = {
        "folder": cluster.folder,
        "recipe": recipe.name,
        "files": {path: file.sha256 for path, file in wanted.files.items()},
        "elsewhere": {path: file.sha256 for path, file in wanted.elsewhere.items()},
    }
    state = session.ask(LOOK_WITHIN_S, ask="look", **question)
    raise_all(_unlisted(state, wanted, host))
    missing = state["missing"]
    parts = _parts(wanted, root, missing, state["arrived"])
    size = sum(part.bytes for part in parts)
    raise_all(_problems(state, host, size))
    if missing:
        transfer.push(session, parts, cluster.folder, recipe.name)
        programs = [path for path in missing if os.access(wanted.here(root, path), os.X_OK)]
        state = session.ask(LOOK_WITHIN_S, ask="place", programs=programs, **question)
        raise_all(_unlisted(state, wanted, host) or _damaged(state, host))
    is_new = cluster.is_python_ours and _lacks_environment(wanted, state)
    if is_new:
        # One write: hosts are served by threads, and print writes the end of a line separately.
        sys.stderr.write(f"{host}: making .venv there from requirements.lock, as ./doit does\n")
        transfer.run(session, cluster.folder, MAKE_ENVIRONMENT, ENVIRONMENT_WITHIN_S)
        raise_all(_unmade(session.ask(LOOK_WITHIN_S, ask="look", **question), wanted, host))
    replaced, removed = tuple(state.get("replaced", ())), tuple(state["removed"])
    return HostSynced(host, len(missing), size, replaced, removed, is_new, time.perf_counter() - start)


def _unlisted(state: dict[str, Any], wanted: Needs, host: str) -> list[ThunderError]:
    """Files that a host names in its answer and that are not for it: what it gets is decided here alone."""
    lists = {"missing": wanted.files, "elsewhere": wanted.elsewhere, "replaced": wanted.files, "damaged": wanted.files}
    return [
        ThunderError(f"asks for {quoted(path)}, which is not on the list of its files", f"host {host}", CHECK_HOST)
        for name, listed in lists.items()
        for path in state.get(name, ())
        if path not in listed
    ][:UNLISTED_SHOWN]


def _parts(wanted: Needs, root: Path, missing: list[str], arrived: dict[str, int]) -> list[Part]:
    """What to send of each missing content, once. arrived: bytes of contents that an interrupted sync has brought."""
    parts = {}
    for path in missing:
        file = wanted.files[path]
        offset = arrived.get(file.sha256, 0)
        offset = offset if offset <= file.bytes else 0
        parts[file.sha256] = Part(wanted.here(root, path), file.sha256, offset, file.bytes - offset)
    return list(parts.values())


def _problems(state: dict[str, Any], host: str, size: int) -> list[ThunderError]:
    """Why a host cannot get the wanted state, from its answer to `look`. size: bytes that would be sent."""
    where = f"host {host}"
    problems = [
        ThunderError(f"{path} is missing or differs", where, required_files.ELSEWHERE_HINT)
        for path in state["elsewhere"]
    ]
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


def _lacks_environment(wanted: Needs, state: dict[str, Any]) -> bool:
    """Whether .venv on a host does not run, or was made from another lock or with another Python than here."""
    lock = wanted.files.get("requirements.lock")
    return lock is not None and (state["environment"], state["python"]) != (lock.sha256, MINOR)


def _unmade(state: dict[str, Any], wanted: Needs, host: str) -> list[ThunderError]:
    """Why the environment is not as wanted after ./doit has run there."""
    if not _lacks_environment(wanted, state):
        return []
    where = f"host {host}"
    if not state["python"]:
        return [ThunderError("has no .venv/bin/python that starts, although ./doit has run there", where, NO_NETWORK)]
    if state["environment"] != wanted.files["requirements.lock"].sha256:
        return [ThunderError("goes on with the environment of an earlier requirements.lock", where, NO_NETWORK)]
    what = f"has made its environment with Python {state['python']}, and this machine has {MINOR}"
    return [ThunderError(what, where, f"install Python {MINOR} there and run it again")]
