"""What doit remembers of each task, in SQLite, committed as each task ends: a kill loses no finished task.

doit's own backends write once, at the end of a run. Beside doit's records are the marks of stages that began and did
not succeed, and the values (slices of recipes, hashes of code) that `doit why` compares.
"""

import json
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.core.stat_cache import open_database

TABLES = {
    "tasks": "task_id text primary key, record text",
    "marks": "task_id text primary key, text text",
    "kept": "digest text primary key, value text",
}
COMMITTING = ("deps:", "ignore:")
"""What doit sets last: when a task has succeeded, and when a person says `doit ignore`."""


def records(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every task's record in a file of states, which is only read. Raises sqlite3.Error."""
    if not Path(name).exists():
        return []
    connection = sqlite3.connect(f"{Path(name).absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = connection.execute("select task_id, record from tasks order by task_id").fetchall()
    finally:
        connection.close()
    return [(task_id, _decoded(text)) for task_id, text in rows]


def _decoded(text: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"damaged:": text}
    return record


class DurableState:
    """doit's backend interface (get, set, in_, remove, remove_all, dump), and the marks and values of stages."""

    desc = "SQLite, committed after every task"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        self.name, self._codec, self._lock = name, codec, threading.RLock()
        try:
            self._connection, rows = open_database(Path(name), TABLES)
        except ThunderError as error:
            raise InvalidCommand(str(error)) from None
        self._replace(rows)

    def reload(self) -> None:
        """Read again, because another doit may have written since this one began."""
        self._replace({table: self._connection.execute(f"select * from {table}").fetchall() for table in TABLES})  # noqa: S608

    def _replace(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        self._texts: dict[str, str] = dict(rows["tasks"])  # decoded on demand: most commands read few
        self._records: dict[str, dict[str, Any]] = {}
        self._marks: dict[str, str] = dict(rows["marks"])
        self._kept: dict[str, str] = dict(rows["kept"])

    def get(self, task_id: str, dependency: str) -> Any:
        """One value of a task's record, or None."""
        return self._record(task_id).get(dependency)

    def _record(self, task_id: str) -> dict[str, Any]:
        record = self._records.get(task_id)
        if record is None and task_id in self._texts:
            try:
                record = self._records[task_id] = self._codec.decode(self._texts[task_id])
            except ValueError:
                print(f"warning: the record of {task_id} in {self.name} is damaged; it will run", file=sys.stderr)
                self.remove(task_id)
        return record or {}

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Change a task's record. doit sets `deps:` last when a task has succeeded, so that commits the record."""
        with self._lock:
            self._record(task_id)  # one that was not decoded yet would be lost
            self._records.setdefault(task_id, {})[dependency] = value
            if dependency in COMMITTING:
                self._texts[task_id] = self._codec.encode(self._records[task_id])
                self._commit(task_id, has_succeeded=dependency == "deps:")

    def _commit(self, task_id: str, has_succeeded: bool) -> None:
        try:
            self._connection.execute("begin")
            self._execute("insert or replace into tasks values (?, ?)", task_id, self._texts[task_id])
            if has_succeeded:
                self._marks.pop(task_id, None)
                self._execute("delete from marks where task_id = ?", task_id)
            self._connection.execute("commit")
        except sqlite3.OperationalError as error:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            print(f"warning: {self.name}: {error}; {task_id} will run again next time", file=sys.stderr)

    def in_(self, task_id: str) -> bool:
        """Whether the task has a record."""
        return task_id in self._records or task_id in self._texts

    def remove(self, task_id: str) -> None:
        """Delete a task's record, on disk too."""
        with self._lock:
            self._records.pop(task_id, None)
            self._texts.pop(task_id, None)
            self._execute("delete from tasks where task_id = ?", task_id)

    def remove_all(self) -> None:
        """Delete every record, mark and value."""
        with self._lock:
            for table in TABLES:
                self._execute(f"delete from {table}")  # noqa: S608
            self._replace({table: [] for table in TABLES})

    def dump(self) -> None:
        """Close the file, in which everything is already; doit calls this once, at the end."""
        self._connection.close()

    def mark(self, task_id: str, text: str) -> None:
        """Note why a stage that began has no record; its next success deletes the mark."""
        with self._lock:
            self._marks[task_id] = text
            self._execute("insert or replace into marks values (?, ?)", task_id, text)

    def marked(self, task_id: str) -> str:
        """Why a stage did not succeed when it last began; "" if it did, or never began."""
        return self._marks.get(task_id, "")

    def keep(self, value: Any) -> str:
        """Store a JSON value once and return its digest."""
        digest = files.digest(value)
        if digest not in self._kept:
            with self._lock:
                self._kept[digest] = json.dumps(value, sort_keys=True)
                self._execute("insert or replace into kept values (?, ?)", digest, self._kept[digest])
        return digest

    def kept(self, digest: str) -> Any:
        """The value of a digest; None if it was lost."""
        return json.loads(self._kept[digest]) if digest in self._kept else None

    def _execute(self, statement: str, *values: str) -> None:
        self._connection.execute(statement, values)
