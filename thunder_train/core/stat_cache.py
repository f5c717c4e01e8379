"""sha256 of files, remembered: a file whose size, times and inode are unchanged is not read again.

One SQLite file in .thunder/, which only helps: without it files are read again. A time younger than the moment of the
look is not trusted (git calls such entries racy): a file can change twice within one tick of the file system's clock.
"""

import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.core import files, row_store

RACY_NS = 20_000_000
"""Nanoseconds by which a file must be older than the look at it, or it is hashed again next time."""
TABLE = "stats"


class StatCache:
    """Hashes of files, and texts derived from them, kept between runs."""

    def __init__(self, path: Path) -> None:
        self._store, self._lock = row_store.RowStore(path, {TABLE: ("path", "mark", "text")}), threading.RLock()
        self._rows: dict[str, row_store.Row] | None = None
        self._whole: dict[str, tuple[str, str]] = {}  # what was asked for and is believed: each row is checked once
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
        entry = self._whole.get(key)
        if entry:
            return entry
        if self._rows is None:
            with self._lock:
                self._rows = self._open() if self._rows is None else self._rows
        row = self._rows.get(key)
        if row is None or not row_store.is_whole(TABLE, key, row):
            return None
        entry = self._whole[key] = row[0], row[1]
        return entry

    def _open(self) -> dict[str, row_store.Row]:
        """Every row. Where nothing can be written this process remembers for itself."""
        for rows in (self._store.open, self._store.read):
            with contextlib.suppress(ThunderError):
                return rows()[TABLE]
        return {}

    def _remember(self, key: str, mark: str, text: str) -> None:
        with self._lock:
            rows = self._rows = self._open() if self._rows is None else self._rows
            rows[key] = row_store.sealed(TABLE, key, mark, text)[1:]
            self._whole[key] = mark, text
            if not self._store.is_open:
                return
            try:
                self._store.write(self._store.put(TABLE, key, mark, text))
            except sqlite3.Error as error:
                if not self._store.repair(error, {TABLE: rows}):
                    print(f"warning: {self._store.path}: {error}; hashes will be computed again", file=sys.stderr)
                    self._store.close()
