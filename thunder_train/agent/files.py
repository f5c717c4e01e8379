"""Files of the project on a host: compare them with the controller's, put arrived files in place, hash and remove.

main.py calls the public functions in the project folder for cluster/sync.py, fetch.py and preflight.py. Standard
library and Python 3.9 only. Kept in .thunder/ there: hashes.json (hashes by size, times and inode), synced.json (the
files that each recipe's sync brought), incoming/RECIPE/SHA256 (contents that arrived, whole or in part, and are not
verified yet), replaced/ (the host's own files that a sync replaced), hub/ (Hugging Face models).
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from typing import IO, Any

Json = dict[str, Any]
HASHES, SYNCED = ".thunder/hashes.json", ".thunder/synced.json"
INCOMING, REPLACED, HUB = ".thunder/incoming", ".thunder/replaced", ".thunder/hub"
RACY_NS = 20_000_000
"""A file must be this much older than its reading, or its hash is not kept; as in core/stat_cache.py."""
PART_BYTES = 1 << 20
ENVIRONMENT = ".venv"
STARTED = "import os, sys, sysconfig; \
sys.prefix == sys.base_prefix or os.stat(sysconfig.get_path('purelib')); print('%d.%d' % sys.version_info[:2])"
"""Prints an interpreter's version. A Python that replaced the one of an environment does not find its packages."""
STARTS_WITHIN_S = 20.0
RECIPE, SHA256 = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"), re.compile("[0-9a-f]{64}")
VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")


class HashMemory:
    """sha256 of files, kept in HASHES: a file is read again only when its size, times or inode have changed."""

    def __init__(self) -> None:
        self.entries: Json = _read(HASHES)
        self.has_changed = False

    def sha256(self, path: str) -> str | None:
        """Hex sha256 of a file; None when there is none."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not os.path.isfile(path):
            return None
        entry = self.entries.get(path)
        if entry and entry[0] == _mark(status):
            return str(entry[1])
        start_ns, sha256 = time.time_ns(), _sha256(path)
        # A file that changes twice within one tick of the file system's clock keeps its times.
        if start_ns > max(status.st_mtime_ns, status.st_ctime_ns) + RACY_NS:
            self._keep(path, status, sha256)
        return sha256

    def put(self, path: str, sha256: str) -> None:
        """Remember a file that was verified and then renamed to this path."""
        self._keep(path, os.stat(path), sha256)

    def save(self) -> None:
        """Write what has changed. A full disk only costs the time to read the files again."""
        if self.has_changed:
            with contextlib.suppress(OSError):
                _write(HASHES, {path: entry for path, entry in self.entries.items() if os.path.isfile(path)})

    def _keep(self, path: str, status: os.stat_result, sha256: str) -> None:
        self.entries[path] = [_mark(status), sha256]
        self.has_changed = True


def look(recipe: str, files: dict[str, str], elsewhere: dict[str, str]) -> Json:
    """Compare this host's files with the wanted ones. When none differs, update SYNCED and remove stale files.

    files, elsewhere: {path: sha256} in the project and outside of it. Returns missing and elsewhere (paths that are
    missing or differ), removed (paths), environment (sha256 of the lock that .venv was made from) and python (its
    version, as 3.11), both None unless its interpreter runs, free_bytes, arrived (bytes of the missing contents that
    are already here).
    """
    _check(recipe, files)
    hashes = HashMemory()
    missing = [
        path
        for path, sha in files.items()
        if hashes.sha256(path) != sha and not _link_from_hub_cache(path, sha, hashes)
    ]
    python = python_version(os.path.join(ENVIRONMENT, "bin", "python"))
    changed_elsewhere = [path for path, sha in elsewhere.items() if hashes.sha256(path) != sha]
    state = {
        "missing": missing,
        "elsewhere": changed_elsewhere,
        "removed": [] if missing else _update_record(recipe, files, hashes),
        "environment": hashes.sha256(os.path.join(ENVIRONMENT, "requirements.lock")) if python else None,
        "python": python,
        "free_bytes": shutil.disk_usage(".").free,
        "arrived": _arrived(recipe, {files[path] for path in missing}),
    }
    hashes.save()
    return state


def python_version(python: str) -> str | None:
    """The version of an interpreter, as 3.11; None if it does not run: `brew upgrade` removes one below its .venv."""
    argv, silent = [python, "-I", "-c", STARTED], subprocess.DEVNULL
    try:
        output = subprocess.check_output(argv, stdin=silent, stderr=silent, timeout=STARTS_WITHIN_S)
    except (OSError, subprocess.SubprocessError):
        return None
    version = output.decode(errors="replace").strip()
    return version if VERSION.fullmatch(version) else None


def receive(stdin: IO[bytes], recipe: str, contents: list[tuple[str, int, int]]) -> None:
    """Write the bytes of stdin into INCOMING. contents: (sha256, bytes that are already there, bytes that follow)."""
    _check(recipe, {sha: sha for sha, _, _ in contents})
    incoming = os.path.join(INCOMING, recipe)
    os.makedirs(incoming, exist_ok=True)
    for sha, offset, count in contents:
        with open(os.path.join(incoming, sha), "r+b" if offset else "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            copy(stdin, file, count)


def copy(source: IO[bytes], target: IO[bytes], count: int) -> None:
    """Copy exactly so many bytes. Raises SystemExit when there are fewer: the other side waits for the rest."""
    while count:
        part = source.read(min(count, PART_BYTES))
        if not part:
            raise SystemExit("the other side ended in the middle of a file")
        target.write(part)
        count -= len(part)


def opened(path: str, offset: int) -> IO[bytes]:
    """A file of the project, from offset on. Raises ValueError for a path outside of it."""
    if not _is_inside(path):
        raise ValueError(f"{path!r} is not in the project")
    file = open(path, "rb")  # noqa: SIM115  (the caller closes it)
    file.seek(offset)
    return file


def place(recipe: str, files: dict[str, str], elsewhere: dict[str, str], programs: list[str]) -> Json:
    """Put arrived contents in their places if all are undamaged; then as `look`, with `replaced` and `damaged` paths.

    When one is damaged it is deleted and nothing is moved: the host stays as it was. programs: to make executable.
    """
    _check(recipe, files)
    hashes, incoming = HashMemory(), os.path.join(INCOMING, recipe)
    expected = [(os.path.join(incoming, sha), path, sha) for path, sha in files.items() if hashes.sha256(path) != sha]
    arrived = [each for each in expected if os.path.isfile(each[0])]
    broken = {source for source, sha in {(source, sha) for source, _, sha in arrived} if _sha256(source) != sha}
    for source in broken:
        os.unlink(source)
    replaced, uses = [], collections.Counter(sha for _, _, sha in arrived)
    if not broken:
        synced = {(path, sha) for record in _read(SYNCED).values() for path, sha in record.items()}
        for source, target, sha in arrived:
            if _keep_aside(target, hashes, synced):
                replaced.append(target)
            uses[sha] -= 1
            if uses[sha]:  # another path has the same content
                source = shutil.copyfile(source, source + ".draft")
            _move(source, target, target in programs)
            hashes.put(target, sha)
        hashes.save()
        shutil.rmtree(incoming, ignore_errors=True)
        with contextlib.suppress(OSError):  # files of another recipe may wait there
            os.rmdir(INCOMING)
    state = look(recipe, files, elsewhere)
    return {**state, "replaced": replaced, "damaged": [target for source, target, _ in arrived if source in broken]}


def _check(recipe: str, files: dict[str, str]) -> None:
    """Refuse a question whose paths would leave the project's folder. Raises ValueError."""
    if not RECIPE.fullmatch(recipe) or ".." in recipe:
        raise ValueError(f"{recipe!r} is no name of a recipe")
    for path, sha in files.items():
        if not _is_inside(path) or not SHA256.fullmatch(sha):
            raise ValueError(f"{path!r} is not in the project")


def _arrived(recipe: str, shas: set[str]) -> dict[str, int]:
    """Bytes of each content among shas that an interrupted sync has left in INCOMING."""
    places = {sha: os.path.join(INCOMING, recipe, sha) for sha in shas}
    return {sha: os.path.getsize(place) for sha, place in places.items() if os.path.isfile(place)}


def hash_files(paths: dict[str, int | None]) -> dict[str, list[Any]]:
    """{path: [bytes, sha256]} of the files that exist among paths, and of those directly in a folder among them.

    paths: with the expected size in bytes, None when it is unknown. A file of another size is not read: its sha256 is
    None.
    """
    hashes, rows = HashMemory(), dict[str, list[Any]]()
    for path, expected in sorted(paths.items()):
        names = [path]
        if os.path.isdir(path):
            names = [os.path.join(path, name) for name in sorted(os.listdir(path)) if ".draft" not in name]
        for name in filter(os.path.isfile, names):
            size = os.path.getsize(name)
            rows[name] = [size, hashes.sha256(name) if expected in (None, size) else None]
    hashes.save()
    return rows


def remove(paths: list[str], unless: str) -> Json:
    """Delete the given folders below .thunder/.

    unless: a file of the controller's project. Where it exists this folder is the controller's, and nothing is deleted.
    """
    for path in paths:
        if not os.path.exists(unless) and path.startswith(".thunder/") and _is_inside(path):
            shutil.rmtree(path, ignore_errors=True)
    return {}


def _link_from_hub_cache(path: str, sha256: str, hashes: HashMemory) -> bool:
    """Link a Hugging Face model's file from this user's own hub cache, which costs no transfer and no disk space.

    Whether the file was there.
    """
    if not path.startswith(HUB + "/"):
        return False
    cached = os.path.join(_hub_cache(), path[len(HUB) + 1 :])
    try:
        if hashes.sha256(cached) != sha256:
            return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _link(cached, path + ".draft")
        os.replace(path + ".draft", path)
    except OSError:  # unreadable, or no room for a copy: the file is sent instead
        with contextlib.suppress(OSError):
            os.unlink(path + ".draft")
        return False
    hashes.put(path, sha256)
    return True


def _hub_cache() -> str:
    """The hub cache of this host's user, by the rules of huggingface_hub."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return os.path.expanduser(os.path.expandvars(cache))


def _link(source: str, target: str) -> None:
    """Give a file a second name; copy it when the name is on another disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _update_record(recipe: str, files: dict[str, str], hashes: HashMemory) -> list[str]:
    """Record this recipe's files in SYNCED, and delete those it brought earlier unless a recipe needs or a user edited
    them. Returns the deleted paths.
    """
    record = _read(SYNCED)
    before = record.pop(recipe, {})
    wanted = {path for table in record.values() for path in table} | set(files)
    stale = [
        path
        for path, sha in before.items()
        if path not in wanted and _is_inside(path) and not os.path.islink(path) and hashes.sha256(path) == sha
    ]
    for path in stale:
        os.unlink(path)
    if before != files:
        _write(SYNCED, {**record, recipe: files})
    return stale


def _keep_aside(target: str, hashes: HashMemory, synced: set[tuple[str, str]]) -> bool:
    """Keep a file in REPLACED before it is replaced, if it exists and no sync brought it; whether it was kept."""
    sha256 = hashes.sha256(target)
    if sha256 is None or (target, sha256) in synced or not _is_inside(target):
        return False
    aside = os.path.join(REPLACED, target)
    os.makedirs(os.path.dirname(aside), exist_ok=True)
    _link(target, aside)
    return True


def _move(source: str, target: str, is_program: bool) -> None:
    """Put a complete file under its final name in one step, executable for whoever may read it if it is a program."""
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    if is_program:
        mode = os.stat(source).st_mode & 0o777
        os.chmod(source, mode | (mode & 0o444) >> 2)
    try:
        os.replace(source, target)
    except OSError:  # a folder of the project may be on another disk
        shutil.copy2(source, target + ".draft")
        os.replace(target + ".draft", target)
        os.unlink(source)


def _is_inside(path: str) -> bool:
    return not os.path.isabs(path) and ".." not in path.split("/")


def _mark(status: os.stat_result) -> str:
    return f"{status.st_size},{status.st_mtime_ns},{status.st_ctime_ns},{status.st_ino}"


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
