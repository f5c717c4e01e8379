"""Brings the files that a run left on the first rank's host home, and removes a run's temporary folders from hosts.

Reads runs/<recipe>/ or a staging folder on the host; writes the same paths here, all or none: files arrive in
.thunder/arrived/, are compared with their hashes on the host and with done.json, and are then moved.
"""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import client
from thunder_train.cluster import transfer
from thunder_train.config.project import Recipe, is_local
from thunder_train.core import files, paths

TRAINED = tuple(name for name in paths.TRAINED if name != "timing.json")
"""Outputs of a training's rank 0; timing.json is written here."""
EVALUATED = ("predictions.jsonl", "losses.json")
"""Outputs of an evaluation's rank 0."""
ARRIVED = Path(paths.ARRIVED)
HASH_WITHIN_S = 3600.0
"""Limit for hashing a run's outputs on a host."""


def outputs(recipe: Recipe, root: Path, folder: str = "", names: tuple[str, ...] = TRAINED) -> tuple[str, ...]:
    """Bring the first rank's outputs home, verified. Returns their paths; none when rank 0 ran here.

    folder: of the run, relative to the project, runs/<recipe> if empty; the same here and on the host. Raises
    ThunderError for a file that is missing, damaged or not the one in done.json; nothing is changed here then.
    """
    folder = folder or paths.run(recipe.name)
    return _fetch(recipe, root, [f"{folder}/{name}" for name in names], is_complete=True)


def checkpoints(recipe: Recipe, root: Path, folder: str) -> tuple[str, ...]:
    """Bring the first rank's checkpoints home, as many as there are. Returns their paths."""
    return _fetch(recipe, root, [folder], is_complete=False)


def remove_folders(recipe: Recipe, root: Path, folders: list[str]) -> None:
    """Delete folders below .thunder/ on every remote host: checkpoints and staging of a finished run.

    Skips a host whose project folder is this one (this machine under its ssh name). A host that cannot be reached only
    causes a warning, because the run has ended well.
    """
    cluster, marker = recipe.cluster, f"{paths.STATE}/{secrets.token_hex(16)}"
    question: dict[str, Any] = {"ask": "remove", "folder": cluster.folder, "paths": folders, "unless": marker}
    files.write_text(root / marker, "")
    try:
        with client.opened([host for host in cluster.machines if not is_local(host)], cluster) as sessions:
            client.everywhere(sessions, lambda session: session.ask(**question))
    except ThunderError as error:
        print(f"warning: {', '.join(folders)} could not be removed: {error}", file=sys.stderr, flush=True)
    finally:
        (root / marker).unlink(missing_ok=True)


def _fetch(recipe: Recipe, root: Path, wanted: list[str], is_complete: bool) -> tuple[str, ...]:
    """Bring files, or all files of folders, from the first rank's host to the same paths here.

    is_complete: a missing file is an error.
    """
    cluster = recipe.cluster
    host, arrived = cluster.hosts[0].ssh, root / ARRIVED / recipe.name
    if is_local(host):
        return ()
    with client.opened([host], cluster) as sessions:
        question: dict[str, Any] = {"ask": "hash", "folder": cluster.folder, "paths": dict.fromkeys(wanted)}
        answer = sessions[host].ask(HASH_WITHIN_S, **question)["files"]
        hashes = {path: sha256 for path, (_, sha256) in sorted(answer.items())}
        raise_all(_unasked(hashes, wanted, host) + (_missing(hashes, wanted, host) if is_complete else []))
        changed = [path for path, sha256 in hashes.items() if not _has_hash(root / path, sha256)]
        if changed:
            transfer.pull(sessions[host], cluster.folder, changed, arrived)
    problems = [
        ThunderError(f"{path} arrived damaged", f"host {host}", "run it again")
        for path in changed
        if not _has_hash(arrived / path, hashes[path])
    ]
    places = {path: arrived / path if path in changed else root / path for path in hashes}
    raise_all(problems or _adapter_problems(places, host))
    # done.json last: where it exists, the other files are complete.
    for path in sorted(changed, key=lambda path: path.endswith("done.json")):
        files.move(arrived / path, root / path)
    shutil.rmtree(arrived, ignore_errors=True)
    return tuple(hashes)


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and files.sha256(path) == sha256


def _unasked(hashes: dict[str, str], wanted: list[str], host: str) -> list[ThunderError]:
    """Paths in the answer that were not asked for: a host must not choose where its files are written here."""
    return [
        ThunderError(f"offers {path!r}, which was not asked for", f"host {host}", "check that host")
        for path in hashes
        if not files.is_inside(path) or (path not in wanted and str(Path(path).parent) not in wanted)
    ]


def _missing(hashes: dict[str, str], wanted: list[str], host: str) -> list[ThunderError]:
    return [
        ThunderError(f"{path} is missing", f"host {host}", "read the logs") for path in wanted if path not in hashes
    ]


def _adapter_problems(places: dict[str, Path], host: str) -> list[ThunderError]:
    """Whether the adapter differs from the one in the done.json beside it, before either gets its final name here."""
    done = next((path for path in places if path.endswith("adapter/done.json")), "")
    if not done:
        return []
    expected = files.read_json(places[done])["adapter"]
    adapter = places[done.replace("done.json", "adapters.safetensors")]
    if (files.sha256(adapter), adapter.stat().st_size) == (expected["sha256"], expected["bytes"]):
        return []
    return [ThunderError("the adapter is not the one in its done.json", f"host {host}", "train again")]
