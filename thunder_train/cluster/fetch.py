"""Bring home what a run left on the host of its first rank, and clear away what it needed only while it ran.

Reads the host's runs/<recipe>/ or the staging folder that the ranks were told; writes the same paths here, whole or not
at all: files arrive in .thunder/arrived/, are compared with their hashes there and with done.json, and are then moved.
"""

import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.cluster import transfer
from thunder_train.config.project import Recipe, is_local
from thunder_train.core import files
from thunder_train.core import paths as layout

TRAINED = tuple(name for name in layout.TRAINED if name != "timing.json")
"""What rank 0 leaves. timing.json is made here."""
EVALUATED = ("predictions.jsonl", "losses.json")
"""What an evaluation's rank 0 leaves."""
ARRIVED = Path(".thunder/arrived")


def mirror(recipe: Recipe, root: Path, folder: str = "", names: tuple[str, ...] = TRAINED) -> tuple[str, ...]:
    """Bring the first rank's files home, verified; returns their paths, none when it ran here.

    folder: of the run, relative to the project, runs/<recipe> if empty; the same here and there. Raises ThunderError
    for what is missing or is not what done.json says; nothing is then changed here.
    """
    folder = folder or f"runs/{recipe.name}"
    paths = [f"{folder}/{name}" for name in names]
    return _bring(recipe, root, paths, is_whole=True)


def checkpoints(recipe: Recipe, root: Path, folder: str) -> tuple[str, ...]:
    """Bring the first rank's checkpoints home, those that are there; returns their paths."""
    return _bring(recipe, root, [folder], is_whole=False)


def forget(recipe: Recipe, root: Path, folders: list[str]) -> None:
    """Remove folders below .thunder/ on every remote host: a finished run needs its checkpoints no longer.

    One of them may be this machine, by its name for ssh: then they stay. A host that cannot be reached any more is no
    problem of a run that has ended well: a warning tells of it.
    """
    mine = f".thunder/{secrets.token_hex(16)}"
    question = {"do": "drop", "paths": folders, "mine": mine}
    files.write_text(root / mine, "")
    try:
        transfer.everywhere(transfer.hosts(recipe.cluster), lambda host: transfer.ask(recipe.cluster, host, question))
    except ThunderError as error:
        print(f"warning: {', '.join(folders)} could not be removed: {error}", file=sys.stderr, flush=True)
    finally:
        (root / mine).unlink(missing_ok=True)


def _bring(recipe: Recipe, root: Path, paths: list[str], is_whole: bool) -> tuple[str, ...]:
    """Files, or all files of folders, from the first rank's host to the same paths here. is_whole: none may lack."""
    host, where = recipe.cluster.hosts[0].ssh, recipe.cluster
    if is_local(host):
        return ()
    told = transfer.ask(where, host, {"do": "tell", "paths": paths})["files"]
    raise_all(_strangers(told, paths, host) + (_absent(told, paths, host) if is_whole else []))
    wanted = [path for path, (sha, _) in sorted(told.items()) if not _is_here(root / path, sha)]
    arrived = root / ARRIVED / recipe.name
    if wanted:
        transfer.pull(host, where.folder, wanted, arrived)
    place = {path: arrived / path if path in wanted else root / path for path in told}
    problems = [
        ThunderError(f"{path} did not arrive as it is there", f"host {host}", "run it again")
        for path in wanted
        if not _is_here(arrived / path, told[path][0])
    ]
    raise_all(problems or _against_done(place, host))
    # done.json last: it says that all the rest is there.
    for path in sorted(wanted, key=lambda path: path.endswith("done.json")):
        files.move(arrived / path, root / path)
    shutil.rmtree(arrived, ignore_errors=True)
    return tuple(sorted(told))


def _is_here(path: Path, sha: str) -> bool:
    return path.is_file() and files.sha256(path) == sha


def _strangers(told: dict[str, Any], paths: list[str], host: str) -> list[ThunderError]:
    """Paths that were not asked for: a host cannot choose where its files lie here."""
    return [
        ThunderError(f"offers {path!r}, which nobody asked for", f"host {host}", "look at that host")
        for path in told
        if not files.is_inside(path) or (path not in paths and str(Path(path).parent) not in paths)
    ]


def _absent(told: dict[str, Any], paths: list[str], host: str) -> list[ThunderError]:
    return [ThunderError(f"{path} is missing", f"host {host}", "read the logs") for path in paths if path not in told]


def _against_done(place: dict[str, Path], host: str) -> list[ThunderError]:
    """Whether an adapter is the one that the done.json beside it tells of, before either bears its final name here."""
    done = next((path for path in place if path.endswith("adapter/done.json")), "")
    if not done:
        return []
    told, adapter = files.read_json(place[done])["adapter"], place[done.replace("done.json", "adapters.safetensors")]
    if (files.sha256(adapter), adapter.stat().st_size) == (told["sha256"], told["bytes"]):
        return []
    return [ThunderError("the adapter is not the one that its done.json tells of", f"host {host}", "train again")]
