"""The run cache: a stage's outputs, kept under a hash of everything that decides them.

Folder: actions/<key>.json names a stage's outputs, blobs/ab/<sha256> holds their bytes. Both are written atomically and
checked when read, so several clones may share a folder on one disk. Losing it costs time and nothing else.
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
    """A cache in a folder. limit_bytes: most bytes of all blobs together; 0 keeps nothing."""

    is_read = True
    """Whether anything is restored; False in a run with -a, in which each stage runs."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._actions, self._blobs, self._limit = folder / "actions", folder / "blobs", limit_bytes
        self._has_grown = False

    def knows(self, key: str) -> bool:
        """Whether the outputs of an action are here; names and sizes are compared, not bytes."""
        entry = self._entry(key)
        return entry is not None and all(_has_size(self._blob(out["sha256"]), out["bytes"]) for out in entry.values())

    def restore(self, key: str, root: Path) -> bool:
        """Write an action's outputs below root, verified by hash; False, and no entry, if one is damaged."""
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
        os.utime(self._action(key))  # trim drops the least recently used first
        return True

    def store(self, key: str, root: Path, outputs: Mapping[str, str]) -> None:
        """Keep an action's outputs. outputs: {path below root: sha256}. A full disk gives a warning, no error."""
        if not self._limit:
            return
        try:
            entry = {path: self._keep(root / path, sha) for path, sha in sorted(outputs.items())}
            files.write_json(self._action(key), entry)
            self._has_grown = True
        except (OSError, ThunderError) as error:
            print(f"warning: the run cache keeps nothing of this stage: {error}", file=sys.stderr)

    def trim(self) -> None:
        """Drop the least recently used actions until the rest fits the limit, if this run stored any."""
        if not self._has_grown:
            return
        entries = [(path, self._entry(path.stem)) for path in _oldest_first(self._actions)]
        readable = [(path, entry) for path, entry in entries if entry is not None]
        sizes = {output["sha256"]: output["bytes"] for _, entry in readable for output in entry.values()}
        total, uses = sum(sizes.values()), _uses(readable)
        for path, entry in readable:
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            for sha in {output["sha256"] for output in entry.values()}:
                uses[sha] -= 1
                if not uses[sha]:
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
        if not self._limit or not self.is_read:
            return None
        try:
            entry = files.read_json(self._action(key))
            if not all(files.is_inside(path) and files.is_sha256(output["sha256"]) for path, output in entry.items()):
                return None
            return {path: {"sha256": output["sha256"], "bytes": output["bytes"]} for path, output in entry.items()}
        except (ThunderError, OSError, AttributeError, KeyError, TypeError):
            return None  # missing, or not written by this module: the stage runs

    def _action(self, key: str) -> Path:
        return self._actions / f"{key}.json"

    def _blob(self, sha: str) -> Path:
        return self._blobs / sha[:2] / sha


def copy(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can. Never a hard link: an edit would change both."""
    with open(source, "rb") as reader, open(target, "wb") as writer:
        with contextlib.suppress(OSError):
            fcntl.ioctl(writer, FICLONE, reader.fileno())
            return
        shutil.copyfileobj(reader, writer, 1 << 20)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _oldest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _uses(entries: list[tuple[Path, dict[str, Any]]]) -> dict[str, int]:
    """How many actions use each blob."""
    uses: dict[str, int] = {}
    for _, entry in entries:
        for sha in {output["sha256"] for output in entry.values()}:
            uses[sha] = uses.get(sha, 0) + 1
    return uses
