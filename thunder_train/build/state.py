"""What doit remembers of each task, in SQLite, committed as each task ends: a kill loses no finished task.

doit's own backends write once, at the end of a run. Beside doit's records are the marks of stages that began and did
not succeed, and the values (slices of recipes, hashes of code) that `doit why` compares. Reading changes nothing and
needs no lock. A command that runs tasks waits for the project's lock before it reads, any other takes it to write.
"""

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from thunder_train import ThunderError
from thunder_train.build import lock, staging
from thunder_train.core import files, paths, row_store

TABLES: dict[str, row_store.Row] = {
    "tasks": ("task_id", "record"),
    "marks": ("task_id", "text"),
    "kept": ("value_digest", "value"),
}
COMMITTING = ("deps:", "ignore:")
"""What doit sets last: when a task has succeeded, and when a person says `doit ignore`."""


def records(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every task's record in a file of states, which is only read."""
    rows = row_store.RowStore(Path(name), TABLES).read()["tasks"]
    return [(task_id, _decoded(task_id, row)) for task_id, row in sorted(rows.items(), key=str)]


def _decoded(task_id: str, row: row_store.Row) -> dict[str, Any]:
    if not row_store.is_whole("tasks", task_id, row):
        return {"damaged:": row[0]}
    record: dict[str, Any] = json.loads(row[0])
    return record


@contextmanager
def _refused() -> Iterator[None]:
    """doit's error for what is wrong with a command, which its main program prints."""
    try:
        yield
    except ThunderError as error:
        raise InvalidCommand(str(error)) from None


class DurableState:
    """doit's backend interface (get, set, in_, remove, remove_all, dump), and the marks and values of stages."""

    desc = "SQLite, committed after every task"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        self.name, self._codec, self._lock = name, codec, threading.RLock()
        self._folder, self._store = Path(name).parent, row_store.RowStore(Path(name), TABLES)
        self._loaded: row_store.Rows | None = None
        self._records: dict[str, dict[str, Any]] = {}  # decoded on demand: most commands read few
        self._built: set[str] | None = None

    def build(self, tasks: set[str]) -> None:
        """This command runs tasks. The first look at one of these waits until no other process changes the project.

        A run that looks at none of them writes nothing and needs no lock, as of the test suite.
        """
        self._built = tasks

    def _begin(self) -> None:
        with _refused():
            lock.take(self._folder, waits=True)
            staging.sweep(self._folder / Path(paths.STAGING).name)
            self._loaded, self._records = self._store.open(), {}

    def get(self, task_id: str, dependency: str) -> Any:
        """One value of a task's record, or None."""
        record = self._records.get(task_id)  # doit asks ten times for each task
        if record is None:
            if self._built and task_id in self._built and not self._store.is_open:
                self._begin()
            record = self._record(task_id)
        return record.get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Change a task's record. doit sets `deps:` last when a task has succeeded, so that commits the record."""
        with self._changing() as rows:
            self._record(task_id)  # one that was not decoded yet would be lost
            self._records.setdefault(task_id, {})[dependency] = value
            if dependency in COMMITTING:
                text = self._codec.encode(self._records[task_id])
                rows["tasks"][task_id] = row_store.sealed("tasks", task_id, text)[1:]
                self._commit(task_id, text, has_succeeded=dependency == "deps:")

    def in_(self, task_id: str) -> bool:
        """Whether the task has a record."""
        return task_id in self._records or task_id in self._rows()["tasks"]

    def remove(self, task_id: str) -> None:
        """Delete a task's record, on disk too."""
        with self._changing() as rows:
            self._records.pop(task_id, None)
            if rows["tasks"].pop(task_id, ()):
                self._write(self._store.drop("tasks", task_id))

    def remove_all(self) -> None:
        """Delete every record, mark and value."""
        with self._changing():
            self._loaded, self._records = {table: {} for table in TABLES}, {}
            self._write(*self._store.empty())

    def keep_others_out(self) -> None:
        """Take the lock before a command changes files. Raises InvalidCommand while another process changes them."""
        with self._changing():
            pass

    def dump(self) -> None:
        """Close the file, in which everything is already; doit calls this once, at the end."""
        self._store.close()

    def mark(self, task_id: str, text: str) -> None:
        """Note why a stage that began has no record; its next success deletes the mark."""
        self._put("marks", task_id, text)

    def marked(self, task_id: str) -> str:
        """Why a stage did not succeed when it last began; "" if it did, or never began."""
        return self._text("marks", task_id) or ""

    def keep(self, value: Any, digest: str = "") -> str:
        """Store a JSON value once and return its digest, which may be another than that of files.digest."""
        digest = digest or files.digest(value)
        if self._text("kept", digest) is None:
            self._put("kept", digest, json.dumps(value, sort_keys=True))
        return digest

    def kept(self, digest: str) -> Any:
        """The value of a digest; None if it was lost."""
        text = self._text("kept", digest)
        return None if text is None else json.loads(text)

    def _rows(self) -> row_store.Rows:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._store.read()
            return self._loaded

    def _text(self, table: str, key: str) -> str | None:
        """A text as it was written; None if there is none, or a damaged one."""
        row = self._rows()[table].get(key)
        return row[0] if row and row_store.is_whole(table, key, row) else None

    def _record(self, task_id: str) -> dict[str, Any]:
        record = self._records.get(task_id)
        if record is None and task_id in self._rows()["tasks"]:
            text = self._text("tasks", task_id)
            if text is None:
                print(f"warning: the record of {task_id} in {self.name} is damaged; it will run", file=sys.stderr)
            record = self._records[task_id] = {} if text is None else self._codec.decode(text)
        return record or {}

    @contextmanager
    def _changing(self) -> Iterator[row_store.Rows]:
        """All rows, to be changed. Raises InvalidCommand while another process changes them, or if one just did."""
        with self._lock:
            if self._built is None and not self._store.is_open:
                with _refused():
                    self._open()
            yield self._rows()

    def _open(self) -> None:
        lock.take(self._folder, waits=False)
        known, self._loaded = self._loaded, self._store.open()
        if known is not None and known["tasks"] != self._loaded["tasks"]:
            raise ThunderError("another doit has just changed it", self.name, "give this command again")

    def _put(self, table: str, key: str, text: str) -> None:
        with self._changing() as rows:
            rows[table][key] = row_store.sealed(table, key, text)[1:]
            self._write(self._store.put(table, key, text))

    def _commit(self, task_id: str, text: str, has_succeeded: bool) -> None:
        statements = [self._store.put("tasks", task_id, text)]
        if has_succeeded and self._rows()["marks"].pop(task_id, ()):
            statements.append(self._store.drop("marks", task_id))
        try:
            self._write(*statements)
        except sqlite3.Error as error:
            print(f"warning: {self.name}: {error}; {task_id} will run again next time", file=sys.stderr)

    def _write(self, *statements: tuple[str, row_store.Row]) -> None:
        if not self._store.is_open:
            return
        try:
            self._store.write(*statements)
        except sqlite3.Error as error:
            if not self._store.repair(error, self._rows()):
                raise
