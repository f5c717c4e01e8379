"""Brings the files that a run left on the first rank's host home, and removes a run's temporary folders from hosts.

Reads runs/<recipe>/ or a staging folder on the host; writes the same paths here, all or none: files arrive in
.thunder/arrived/, are compared with their hashes on the host and with done.json, and are then moved.
"""

import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import answers, client
from thunder_train.agent.client import CHECK_HOST
from thunder_train.cluster import transfer
from thunder_train.config.project import Recipe, is_local
from thunder_train.core import files, paths
from thunder_train.core.text import quoted

TRAINED = tuple(name for name in paths.TRAINED if name != "timing.json")
"""Outputs of a training's rank 0; timing.json is written here."""
EVALUATED = ("predictions.jsonl", "losses.json")
"""Outputs of an evaluation's rank 0."""
ARRIVED = Path(paths.ARRIVED)
CHECKPOINT = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}\.safetensors")
"""Names of files that may come out of a folder that was asked for."""
MIB = 1 << 20
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
        raise_all(_unasked(answer, wanted, host) + (_missing(answer, wanted, host) if is_complete else []))
        hashes = {path: sha256 for path, (_, sha256) in sorted(answer.items())}
        changed = [path for path, sha256 in hashes.items() if not _has_hash(root / path, sha256)]
        raise_all(_space_problems(sum(answer[path][0] for path in changed), root, host))
        for path in changed:
            transfer.pull(sessions[host], cluster.folder, path, arrived / hashes[path], answer[path][0])
    places = {path: arrived / hashes[path] if path in changed else root / path for path in hashes}
    raise_all(_damaged(places, hashes, host) or _done_problems(places, host))
    # done.json last: where it exists, the other files are complete.
    for path in sorted(changed, key=lambda path: path.endswith("done.json")):
        _copy(arrived / hashes[path], root / path)
    shutil.rmtree(arrived, ignore_errors=True)
    return tuple(hashes)


def _copy(source: Path, target: Path) -> None:
    """Write a verified file under its final name. A copy, because two files may have the same content."""
    with source.open("rb") as file:
        files.write_lines(target, iter(lambda: file.read(1 << 20), b""))


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and files.sha256(path) == sha256


def _unasked(answer: dict[str, Any], wanted: list[str], host: str) -> list[ThunderError]:
    """Files in the answer that were not asked for or have no hash: a host must not choose what is written here."""
    where = f"host {host}"
    return [
        ThunderError(f"offers {quoted(path)}, which was not asked for", where, CHECK_HOST)
        for path in answer
        if path not in wanted and not (str(Path(path).parent) in wanted and CHECKPOINT.fullmatch(Path(path).name))
    ] + [
        ThunderError(f"offers {quoted(path)} without its hash", where, CHECK_HOST)
        for path, (_, sha256) in answer.items()
        if sha256 is None
    ]


def _space_problems(size: int, root: Path, host: str) -> list[ThunderError]:
    """More bytes than this disk takes: a size is the host's own word."""
    free = shutil.disk_usage(root).free
    if size <= free:
        return []
    what = f"offers {size / MIB:.0f} MiB, and here {free / MIB:.0f} MiB are free"
    return [ThunderError(what, f"host {host}", "free space here, or find out why it is so much")]


def _damaged(places: dict[str, Path], hashes: dict[str, str], host: str) -> list[ThunderError]:
    """Files that arrived otherwise than the host hashed them; they are deleted, so that the next fetch begins anew."""
    problems = []
    for path, place in places.items():
        if not _has_hash(place, hashes[path]):
            place.unlink(missing_ok=True)
            problems.append(ThunderError(f"{path} arrived damaged", f"host {host}", "run it again"))
    return problems


def _missing(hashes: dict[str, Any], wanted: list[str], host: str) -> list[ThunderError]:
    return [
        ThunderError(f"{path} is missing", f"host {host}", "read the logs") for path in wanted if path not in hashes
    ]


def _done_problems(places: dict[str, Path], host: str) -> list[ThunderError]:
    """Whether done.json is one, and the adapter the one in it, before either gets its final name here."""
    done = next((path for path in places if path.endswith("adapter/done.json")), "")
    if not done:
        return []
    try:
        expected = answers.done(places[done])
    except ValueError as error:
        return [ThunderError(f"{done} is not what a training writes: {error}", f"host {host}", "train again")]
    adapter = places[done.replace("done.json", "adapters.safetensors")]
    if (files.sha256(adapter), adapter.stat().st_size) == (expected.adapter.sha256, expected.adapter.bytes):
        return []
    return [ThunderError("the adapter is not the one in its done.json", f"host {host}", "train again")]
