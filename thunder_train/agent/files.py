"""What sync.py and mirror.py do on a host. Sent there as text, for any Python from 3.9 on: the standard library alone.

A question is a table whose "do" names one of ACTIONS; the answer is one line of JSON behind MARK. On the host lie, in
.thunder/: there.json (hashes by size, times and inode), synced.json (what each recipe brought there), incoming/ (what
has not been verified yet), replaced/ (the host's own files that ours took the place of), hub/ (a hub's model).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from typing import Any

Json = dict[str, Any]
MARK = "thunder-there "
SEEN, SYNCED = ".thunder/there.json", ".thunder/synced.json"
INCOMING, REPLACED, HUB = ".thunder/incoming", ".thunder/replaced", ".thunder/hub"
RACY_NS = 20_000_000  # as in stats.py: times younger than this are not trusted


class Hashes:
    """sha256 of files, remembered from one sync to the next."""

    def __init__(self) -> None:
        self.known: Json = _read(SEEN)

    def sha256(self, path: str) -> str | None:
        """Hex sha256 of a file; None when there is none."""
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not os.path.isfile(path):
            return None
        kept = self.known.get(path)
        if not kept or kept[0] != _mark(stat):
            looked = time.time_ns()
            kept = [_mark(stat), _sha256(path)]
            if looked <= max(stat.st_mtime_ns, stat.st_ctime_ns) + RACY_NS:
                return str(kept[1])
        self.known[path] = kept
        return str(kept[1])

    def put(self, path: str, sha: str) -> None:
        """Remember a file that was verified and then renamed to this path."""
        self.known[path] = [_mark(os.stat(path)), sha]

    def save(self) -> None:
        """Keep what is known."""
        _write(SEEN, {path: value for path, value in self.known.items() if os.path.isfile(path)})


def look(question: Json) -> Json:
    """What of the wanted files is not there or is another; the record is brought up to date when all are.

    question: recipe, files {path: sha256}, elsewhere {path: sha256}.
    """
    hashes = Hashes()
    missing = [
        path
        for path, sha in question["files"].items()
        if hashes.sha256(path) != sha and not _is_adopted(path, sha, hashes)
    ]
    elsewhere = [path for path, sha in question["elsewhere"].items() if hashes.sha256(path) != sha]
    removed = [] if missing else _settle(question, hashes)
    hashes.save()
    return {
        "missing": missing,
        "elsewhere": elsewhere,
        "removed": removed,
        "environment": hashes.sha256(".venv/requirements.lock"),
        "free_bytes": shutil.disk_usage(".").free,
    }


def place(question: Json) -> Json:
    """Put what has arrived where it belongs, if all of it is whole; then as `look`, with `replaced` and `damaged`.

    A damaged file is dropped, and nothing is moved: the host stays as it was.
    """
    hashes, incoming = Hashes(), os.path.join(INCOMING, question["recipe"])
    waiting = [(os.path.join(incoming, path), path, sha) for path, sha in question["files"].items()]
    arrived = [each for each in waiting if os.path.isfile(each[0])]
    damaged = [(source, target) for source, target, sha in arrived if _sha256(source) != sha]
    for source, _ in damaged:
        os.unlink(source)
    replaced = []
    if not damaged:
        ours = {(path, sha) for files in _read(SYNCED).values() for path, sha in files.items()}
        for source, target, sha in arrived:
            if _kept_aside(target, hashes, ours):
                replaced.append(target)
            _move(source, target)
            hashes.put(target, sha)
        hashes.save()
        shutil.rmtree(incoming, ignore_errors=True)
        with contextlib.suppress(OSError):  # another recipe's files may wait there
            os.rmdir(INCOMING)
    return {**look(question), "replaced": replaced, "damaged": [target for _, target in damaged]}


def tell(question: Json) -> Json:
    """{"files": {path: [sha256, bytes]}} of the files that are there. question: paths, of files or of folders."""
    found = {}
    for path in question["paths"]:
        names = [os.path.join(path, name) for name in sorted(os.listdir(path))] if os.path.isdir(path) else [path]
        for name in names:
            if os.path.isfile(name) and ".draft" not in os.path.basename(name):
                found[name] = [_sha256(name), os.path.getsize(name)]
    return {"files": found}


def drop(question: Json) -> Json:
    """Remove folders below .thunder/, and nothing else; nothing at all in the folder of the one who asks.

    question: paths, mine: a file that lies there. A cluster may name the asking machine too.
    """
    for path in question["paths"]:
        if not os.path.exists(question["mine"]) and path.startswith(".thunder/") and _is_inside(path):
            shutil.rmtree(path, ignore_errors=True)
    return {}


ACTIONS = {"look": look, "place": place, "tell": tell, "drop": drop}


def _is_adopted(path: str, sha: str, hashes: Hashes) -> bool:
    """Whether a model's file was in this host's own hub cache; it is linked, so it costs neither time nor space."""
    if not path.startswith(HUB + "/"):
        return False
    own = os.path.join(_hub_cache(), path[len(HUB) + 1 :])
    try:
        if hashes.sha256(own) != sha:
            return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _link(own, path + ".draft")
        os.replace(path + ".draft", path)
    except OSError:  # not to be read, or no room for a copy: then it is sent, or that is told
        with contextlib.suppress(OSError):
            os.unlink(path + ".draft")
        return False
    hashes.put(path, sha)
    return True


def _hub_cache() -> str:
    """Where huggingface_hub keeps what this host's user downloaded."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return os.path.expanduser(os.path.expandvars(cache))


def _link(source: str, target: str) -> None:
    """The same file under another name, however large; a copy of it on another disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _settle(question: Json, hashes: Hashes) -> list[str]:
    """Record what this recipe has here, and remove what it brought earlier, no recipe wants and nobody changed."""
    record = _read(SYNCED)
    before = record.pop(question["recipe"], {})
    wanted = {path for files in record.values() for path in files} | set(question["files"])
    stale = [
        path
        for path, sha in before.items()
        if path not in wanted and _is_inside(path) and not os.path.islink(path) and hashes.sha256(path) == sha
    ]
    for path in stale:
        os.unlink(path)
    if before != question["files"]:
        _write(SYNCED, {**record, question["recipe"]: question["files"]})
    return stale


def _kept_aside(target: str, hashes: Hashes, ours: set[tuple[str, str]]) -> bool:
    """Keep a file that is about to be replaced and that no sync brought here; whether there was one."""
    sha = hashes.sha256(target)
    if sha is None or (target, sha) in ours or not _is_inside(target):
        return False
    aside = os.path.join(REPLACED, target)
    os.makedirs(os.path.dirname(aside), exist_ok=True)
    _link(target, aside)
    return True


def _move(source: str, target: str) -> None:
    """Put a whole file under its final name, at once."""
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    try:
        os.replace(source, target)
    except OSError:  # a folder of the project may lie on another disk
        shutil.copy2(source, target + ".draft")
        os.replace(target + ".draft", target)
        os.unlink(source)


def _is_inside(path: str) -> bool:
    return not os.path.isabs(path) and ".." not in path.split("/")


def _mark(stat: os.stat_result) -> str:
    return f"{stat.st_size},{stat.st_mtime_ns},{stat.st_ctime_ns},{stat.st_ino}"


def _sha256(path: str) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _read(path: str) -> Json:
    """A table that this program wrote; an empty one when it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _write(path: str, table: Json) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = f"{path}.draft{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(table, file, sort_keys=True)
    os.replace(draft, path)


def answer(question: Json) -> None:
    """Do what is asked in the project folder, from the home folder on, and print the answer."""
    try:
        if question["do"] in ("look", "place"):
            os.makedirs(question["folder"], exist_ok=True)
        os.chdir(question["folder"])
        found = ACTIONS[question["do"]](question)
    except OSError as error:
        found = {"error": f"{error.filename or question['folder']}: {error.strerror}"}
    sys.stdout.write(f"\n{MARK}{json.dumps(found)}\n")
