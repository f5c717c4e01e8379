"""sha256 of files, remembered: a file whose size, times and inode are unchanged is not read again.

One SQLite file in .thunder/. A time younger than the moment of looking is not trusted (git calls such entries racy): a
file can change twice within one tick of the file system's clock.
"""

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files

RACY_NS = 20_000_000
"""Nanoseconds by which a file must be older than the look at it, or it is hashed again next time."""

Rows = dict[str, list[tuple[Any, ...]]]


def open_database(path: Path, tables: dict[str, str]) -> tuple[sqlite3.Connection, Rows]:
    """A database and all rows of its tables ({name: columns}). A damaged one is set aside and replaced by an empty one.

    Raises ThunderError when the folder cannot be written.
    """
    for attempt in (1, 2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(path, error) from error
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=normal")  # a power cut may lose the last records, never half of one
            for name, columns in tables.items():
                connection.execute(f"create table if not exists {name} ({columns})")
            return connection, {name: connection.execute(f"select * from {name}").fetchall() for name in tables}  # noqa: S608
        except sqlite3.OperationalError as error:  # the disk or the folder, not the content
            connection.close()
            raise _unwritable(path, error) from error
        except sqlite3.DatabaseError as error:
            connection.close()
            if attempt == 2:
                raise
            _set_aside(path, error)
    raise AssertionError("unreachable")


def _unwritable(path: Path, error: Exception) -> ThunderError:
    return ThunderError(f"cannot be written: {error}", where=str(path), hint="free space or make its folder writable")


def _set_aside(path: Path, error: Exception) -> None:
    print(f"warning: {path} is damaged ({error}); kept as {path.name}.damaged, a new one begun", file=sys.stderr)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(path, path.with_name(path.name + ".damaged"))


class StatCache:
    """Hashes of files, and texts derived from them, kept between runs."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._entries: dict[str, tuple[str, str]] = {}
        self.hashed = 0
        """Files read by this process."""

    def sha256(self, path: str, stat: os.stat_result | None = None) -> str:
        """Hex sha256 of a file's bytes."""
        stat = stat or os.stat(path)
        mark = f"{stat.st_size},{stat.st_mtime_ns},{stat.st_ctime_ns},{stat.st_ino}"
        entry = self._recall(path)
        if entry and entry[0] == mark:
            return entry[1]
        looked_ns = time.time_ns()
        self.hashed += 1
        sha = files.sha256(path)
        if looked_ns > max(stat.st_mtime_ns, stat.st_ctime_ns) + RACY_NS:
            self._remember(path, mark, sha)
        return sha

    def memo(self, kind: str, path: str, derive: Callable[[Path], str], salt: str = "") -> str:
        """A text that follows from a file's bytes and the salt alone; derived again only when one of them changes."""
        key, mark = f"{kind}:{path}", self.sha256(path) + salt
        entry = self._recall(key)
        if entry and entry[0] == mark:
            return entry[1]
        text = derive(Path(path))
        self._remember(key, mark, text)
        return text

    def _recall(self, key: str) -> tuple[str, str] | None:
        if self._connection is None:
            with self._lock:
                self._open()
        return self._entries.get(key)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            tables = {"stats": "path text primary key, mark text, sha text"}
            connection, rows = open_database(self._path, tables)
            self._entries = {path: (mark, sha) for path, mark, sha in rows["stats"]}
            self._connection = connection
        return self._connection

    def _remember(self, key: str, mark: str, sha: str) -> None:
        with self._lock:
            connection = self._open()
            self._entries[key] = (mark, sha)
            try:
                connection.execute("insert or replace into stats values (?, ?, ?)", (key, mark, sha))
            except sqlite3.OperationalError as error:
                print(f"warning: {self._path}: {error}; this hash will be computed again", file=sys.stderr)
