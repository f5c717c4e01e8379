"""The run cache: a stage's outputs, kept under a hash of everything that decides them.

Folder: actions/<key>.json names a stage's outputs, blobs/ab/<sha256> holds their bytes. Both are written atomically and
checked when read, so several clones and people may share a folder on one disk. Nothing in it is believed but what its
hashes prove, and no link in it is followed; losing it costs time and nothing else.
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from thunder_train import ThunderError
from thunder_train.core import files

if TYPE_CHECKING:
    from thunder_train.build.cache_entry import Entry

FICLONE = 0x40049409
"""Linux's request to share blocks between files (btrfs, xfs)."""
ENTRY_BYTES = 1 << 20
"""Most bytes of an entry that are read."""
CHUNK_BYTES = 1 << 20
REMAINS_S = 86400
"""Age at which a file that no entry names is deleted: another build may just be writing it."""


class RunCache:
    """A cache in a folder. limit_bytes: most bytes of all blobs together; 0 keeps nothing."""

    is_read = True
    """Whether anything is restored; False in a run with -a, in which each stage runs."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._actions, self._blobs, self._limit = folder / "actions", folder / "blobs", limit_bytes
        self._has_grown, self._has_warned = False, False

    @property
    def limit_bytes(self) -> int:
        """Most bytes of all blobs together."""
        return self._limit

    def knows(self, key: str, targets: Collection[str]) -> bool:
        """Whether exactly these outputs of an action are here; names and sizes are compared, not bytes."""
        with contextlib.suppress(OSError, ValueError):
            entry = self._entry(key, targets)
            return entry is not None and all(_has_size(self._blob(o.sha256), o.bytes) for o in entry.outputs.values())
        return False

    def restore(self, key: str, root: Path, targets: Collection[str]) -> bool:
        """Write an action's outputs below root, verified by hash. False, and no entry, if it is not as it was written.

        targets: what the stage makes, which the entry must list: not more, not less.
        """
        try:
            entry = self._entry(key, targets)
            return entry is not None and self._write_all(entry, key, root)
        except ValueError as error:
            self._set_aside(self._action(key), str(error))
        except OSError as error:
            self._warn(f"cannot be read: {error}")
        return False

    def store(self, key: str, root: Path, outputs: Mapping[str, str]) -> None:
        """Keep an action's outputs. outputs: {path below root: sha256}. Where that fails it warns, once a run."""
        if not self._limit:
            return
        from thunder_train.build import cache_entry  # late, with msgspec: no stage may run

        try:
            self._check_folders()
            kept = {path: self._keep(root / path, sha) for path, sha in sorted(outputs.items())}
            files.write_bytes(self._action(key), cache_entry.encode(key, kept))
            self._has_grown = True
        except (OSError, ThunderError) as error:
            self._warn(f"keeps nothing of this stage: {error}")

    def take(self, entry: "Entry", text: bytes, chunks: Callable[[str, int], Iterable[bytes]]) -> dict[str, int]:
        """Keep an entry that somebody else wrote: {sha256: bytes} of the blobs that were not here.

        text: the entry's own bytes. chunks(sha256, bytes): a blob, of which the hash is compared. Raises ThunderError.
        """
        taken = dict[str, int]()
        try:
            self._check_folders()
            for output in entry.outputs.values():
                blob = self._blob(output.sha256)
                if not _has_size(blob, output.bytes):
                    self._take_blob(blob, chunks(output.sha256, output.bytes))
                    taken[output.sha256] = output.bytes
            files.write_bytes(self._action(entry.key), text)
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise ThunderError(what, str(self._blobs.parent), "free or unlock it") from error
        return taken

    def _take_blob(self, blob: Path, chunks: Iterable[bytes]) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        if blob.parent.is_symlink():
            raise OSError(f"{blob.parent} is a link")
        draft = blob.with_name(f"{blob.name}{files.DRAFT}{os.getpid()}")
        try:
            with files.create(draft) as writer:
                writer.writelines(chunks)
            if files.sha256(draft) != blob.name:
                raise ThunderError("has other bytes than its name says", f"blobs/{blob.name}", "push it again")
            files.remove(blob)
            files.move(draft, blob)
        finally:
            draft.unlink(missing_ok=True)

    def trim(self) -> None:
        """Drop the least recently used actions until the rest fits the limit, if this run stored any."""
        if not self._has_grown:
            return
        try:
            self._trim()
        except OSError as error:
            self._warn(f"cannot be trimmed: {error}")

    def _trim(self) -> None:
        entries = dict(self._readable())
        sizes = {o.sha256: o.bytes for entry in entries.values() for o in entry.outputs.values()}
        uses = {sha: sum(sha in _shas(entry) for entry in entries.values()) for sha in sizes}
        total = sum(sizes.values())
        for path, entry in entries.items():
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            for sha in _shas(entry):
                uses[sha] -= 1
                if not uses[sha]:
                    self._blob(sha).unlink(missing_ok=True)
                    total -= sizes.pop(sha)
        for path in self.remains(sizes):
            files.remove(path)

    def remains(self, named: Collection[str] | None = None) -> list[Path]:
        """Files of the cache that no entry names, a day old. named: sha256 of the blobs that entries name."""
        if self._actions.is_symlink() or self._blobs.is_symlink():
            return []  # what lies there is not the cache's
        if named is None:
            named = {sha for _, entry in self._readable() for sha in _shas(entry)}
        blobs = [path for folder in _listed(self._blobs) if not folder.is_symlink() for path in _listed(folder)]
        unnamed = [path for path in blobs if path.name not in named]
        unnamed += [path for path in _listed(self._actions) if path.suffix != ".json"]
        limit_s = time.time() - REMAINS_S
        return [path for path in unnamed if path.lstat().st_mtime < limit_s]

    def _readable(self) -> Iterator[tuple[Path, "Entry"]]:
        """Entries as they were written, the least recently used first."""
        found = [path for path in _listed(self._actions) if path.suffix == ".json"]
        for path in sorted(found, key=lambda path: (path.lstat().st_mtime_ns, path.name)):
            with contextlib.suppress(OSError, ValueError):
                entry = self._entry(path.stem)
                if entry:
                    yield path, entry

    def _write_all(self, entry: "Entry", key: str, root: Path) -> bool:
        for path, output in sorted(entry.outputs.items()):
            target, blob = root / path, self._blob(output.sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            is_good = False
            with contextlib.suppress(FileNotFoundError):
                is_good = self._copied(blob, target, output.bytes) and files.sha256(target) == output.sha256
            if not is_good:
                print(f"warning: the cached {path} is damaged; making it again", file=sys.stderr)
                for damaged in (blob, self._action(key)):
                    with contextlib.suppress(OSError):
                        files.remove(damaged)
                return False
            target.chmod(0o644)
        with contextlib.suppress(OSError):  # another person's; trim drops the least recently used first
            os.utime(self._action(key))
        return True

    def _copied(self, blob: Path, target: Path, size: int) -> bool:
        """Copy a blob, if it is a plain file of this size."""
        if not _has_size(blob, size):
            return False
        with files.open_plain(blob) as reader, files.create(target) as writer:
            copy(reader, writer, size)
        return target.stat().st_size == size

    def _keep(self, source: Path, sha: str) -> tuple[str, int]:
        blob, size = self._blob(sha), source.stat().st_size
        if not _has_size(blob, size):
            blob.parent.mkdir(parents=True, exist_ok=True)
            if blob.parent.is_symlink():
                raise OSError(f"{blob.parent} is a link")
            draft = blob.with_name(f"{sha}{files.DRAFT}{os.getpid()}")
            try:
                with open(source, "rb") as reader, files.create(draft) as writer:
                    copy(reader, writer, size)
                if not blob.is_file() or blob.is_symlink():
                    files.remove(blob)
                files.move(draft, blob)
            finally:
                draft.unlink(missing_ok=True)
        return sha, size

    def _entry(self, key: str, targets: Collection[str] | None = None) -> "Entry | None":
        """An entry; None if there is none. Raises ValueError if it is not as it was written, or of other targets."""
        if not self._limit or not self.is_read:
            return None
        from thunder_train.build import cache_entry

        self._check_folders()
        try:
            with files.open_plain(self._action(key)) as file:
                data = file.read(ENTRY_BYTES)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise
        except OSError as error:
            raise ValueError(error.strerror) from None
        return cache_entry.decode(data, key, self._limit, targets)

    def _check_folders(self) -> None:
        """Raise OSError if a folder is a link: whoever may write to a shared one could lead us to our own files."""
        for folder in (self._blobs, self._actions):
            if folder.is_symlink():
                raise OSError(f"{folder} is a link")

    def _set_aside(self, path: Path, why: str) -> None:
        try:
            files.set_aside(path, f"is not as it was written ({why})")
        except OSError as error:
            self._warn(f"cannot be corrected: {error}")

    def _warn(self, what: str) -> None:
        """One line a run: each stage would say the same."""
        if not self._has_warned:
            self._has_warned = True
            print(f"warning: the run cache {what}", file=sys.stderr)

    def _action(self, key: str) -> Path:
        return self._actions / f"{key}.json"

    def _blob(self, sha: str) -> Path:
        return self._blobs / sha[:2] / sha


def copy(reader: IO[bytes], writer: IO[bytes], size: int) -> None:
    """Copy a file of this size, sharing its blocks where the file system can.

    Never a hard link: an edit would change both. Not more than size: whoever may write to a shared folder could go on.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(writer, FICLONE, reader.fileno())
        return
    while size > 0 and (chunk := reader.read(min(size, CHUNK_BYTES))):
        writer.write(chunk)
        size -= len(chunk)


def _has_size(path: Path, size: int) -> bool:
    """Whether it is a plain file of this size."""
    try:
        return path.is_file() and not path.is_symlink() and path.stat().st_size == size
    except OSError:
        return False


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _shas(entry: "Entry") -> set[str]:
    return {output.sha256 for output in entry.outputs.values()}
