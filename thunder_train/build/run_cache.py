"""The run cache: what a stage made, kept under a hash of everything that it was made from.

Folder: actions/<key>.json names a stage's outputs, blobs/ab/<sha256> holds their bytes. Both are written whole or not
at all and checked when read, so several clones may share a folder on one disk. Losing it costs time, nothing else.
"""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files

FICLONE = 0x40049409
"""Linux's request to share blocks between files (btrfs, xfs)."""


class RunCache:
    """A cache in a folder. limit_bytes: what all blobs may take together; 0 keeps nothing."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._actions, self._blobs, self._limit = folder / "actions", folder / "blobs", limit_bytes
        self._has_grown = False

    def knows(self, key: str) -> bool:
        """Whether the outputs of an action are here, as far as names and sizes tell."""
        entry = self._entry(key)
        return entry is not None and all(_has_size(self._blob(one["sha256"]), one["bytes"]) for one in entry.values())

    def restore(self, key: str, root: Path) -> bool:
        """Put an action's outputs below root, verified by hash; False, and the entry dropped, when one is damaged."""
        entry = self._entry(key)
        if entry is None:
            return False
        for path, output in sorted(entry.items()):
            blob, target = self._blob(output["sha256"]), root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                copy(blob, target)
                is_good = files.sha256(target) == output["sha256"]
            except FileNotFoundError:
                is_good = False
            if not is_good:
                print(f"warning: the cached {path} is damaged; making it again", file=sys.stderr)
                for damaged in (blob, self._action(key)):
                    damaged.unlink(missing_ok=True)
                return False
            target.chmod(0o644)
        os.utime(self._action(key))  # the least recently used go first
        return True

    def store(self, key: str, root: Path, outputs: Mapping[str, str]) -> None:
        """Keep an action's outputs. outputs: {path below root: sha256}. A full disk costs a warning, not the build."""
        if not self._limit:
            return
        try:
            entry = {path: self._keep(root / path, sha) for path, sha in sorted(outputs.items())}
            files.write_json(self._action(key), entry)
            self._has_grown = True
        except (OSError, ThunderError) as error:
            print(f"warning: the run cache keeps nothing of this stage: {error}", file=sys.stderr)

    def trim(self) -> None:
        """Drop the least recently used actions until the rest fits the limit; once per run, if it grew."""
        if not self._has_grown:
            return
        entries = [(path, self._entry(path.stem)) for path in _oldest_first(self._actions)]
        known = [(path, entry) for path, entry in entries if entry is not None]
        sizes = {one["sha256"]: one["bytes"] for _, entry in known for one in entry.values()}
        total, users = sum(sizes.values()), _count(known)
        for path, entry in known:
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            for sha in {one["sha256"] for one in entry.values()}:
                users[sha] -= 1
                if not users[sha]:
                    self._blob(sha).unlink(missing_ok=True)
                    total -= sizes[sha]

    def _keep(self, source: Path, sha: str) -> dict[str, Any]:
        blob, size = self._blob(sha), source.stat().st_size
        if not _has_size(blob, size):
            blob.parent.mkdir(parents=True, exist_ok=True)
            draft = blob.with_name(f"{sha}{files.DRAFT}{os.getpid()}")
            try:
                copy(source, draft)
                files.move(draft, blob)
            finally:
                draft.unlink(missing_ok=True)
        return {"sha256": sha, "bytes": size}

    def _entry(self, key: str) -> dict[str, Any] | None:
        if not self._limit:
            return None
        try:
            entry = files.read_json(self._action(key))
            if not all(files.is_inside(path) and files.is_sha256(one["sha256"]) for path, one in entry.items()):
                return None
            return {path: {"sha256": one["sha256"], "bytes": one["bytes"]} for path, one in entry.items()}
        except (ThunderError, OSError, AttributeError, KeyError, TypeError):
            return None  # not there, or not ours: the stage runs

    def _action(self, key: str) -> Path:
        return self._actions / f"{key}.json"

    def _blob(self, sha: str) -> Path:
        return self._blobs / sha[:2] / sha


def copy(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can. Never a hard link: an edit would reach both."""
    with open(source, "rb") as here, open(target, "wb") as there:
        with contextlib.suppress(OSError):
            fcntl.ioctl(there, FICLONE, here.fileno())
            return
        shutil.copyfileobj(here, there, 1 << 20)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _oldest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _count(known: list[tuple[Path, dict[str, Any]]]) -> dict[str, int]:
    users: dict[str, int] = {}
    for _, entry in known:
        for sha in {one["sha256"] for one in entry.values()}:
            users[sha] = users.get(sha, 0) + 1
    return users
