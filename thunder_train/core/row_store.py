"""A few tables of texts in one SQLite file, of which no row is believed that is not as it was written.

Each row ends in a digest of its other columns: SQLite itself notices a torn page, but not a flipped bit in a text. A
file that cannot be read is set aside and a new one begun; losing it costs time and nothing else. Whoever only looks
needs no right to write: nothing is made then, and no second file of SQLite's stays behind.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.core import files

VERSION = 2
"""Of the layout; a file of another version is set aside."""
WAIT_S = 30
"""How long to wait for another process that writes."""
BESIDE = ("-wal", "-shm")
"""Suffixes of the files that SQLite keeps beside an open one."""
DAMAGED = {
    sqlite3.SQLITE_ERROR,  # no such table or column
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_NOMEM,  # a length that no file holds
}
"""Errors that lie in the file's content. All others are the disk's, the folder's or another process's."""

Row = tuple[str, ...]
Rows = dict[str, dict[str, Row]]
"""{table: {first column: other columns, with the digest last}}"""


def sealed(table: str, *columns: str) -> Row:
    """A row with its digest."""
    return (*columns, _digest(table, columns))


def is_whole(table: str, key: str, row: Row) -> bool:
    """Whether a row is as it was written; a damaged one may hold what is no text."""
    columns = (key, *row[:-1])
    return all(isinstance(column, str) for column in columns) and row[-1] == _digest(table, columns)


def _digest(table: str, columns: Row) -> str:
    return hashlib.sha256("\0".join((table, *columns)).encode(errors="replace")).hexdigest()[:16]


class RowStore:
    """The tables of one file. tables: {name: names of the columns}; the first column is the key."""

    def __init__(self, path: Path, tables: dict[str, Row]) -> None:
        self.path, self._tables = path, {name: (*columns, "digest") for name, columns in tables.items()}
        self._connection: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was opened for writing."""
        return self._connection is not None

    def read(self) -> Rows:
        """Every row, without writing anything; none of a file that is missing or damaged."""
        try:
            if any(map(_is_misplaced, (self.path, *_beside(self.path)))):
                raise sqlite3.DatabaseError("no file")
            with _readable(self.path) as connection:
                return self._select(connection)
        except FileNotFoundError:
            pass
        except (OSError, sqlite3.Error) as error:
            if not is_damage(error):
                raise self._refused(error) from None
            print(f"warning: {self.path} is damaged ({error}); a build will begin a new one", file=sys.stderr)
        return {name: {} for name in self._tables}

    def open(self) -> Rows:
        """Open for writing, and every row. Raises ThunderError when the folder cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                for place in filter(_is_misplaced, _beside(self.path)):  # what it held is lost, the rest is not
                    files.set_aside(place, "is no file")
                if _is_misplaced(self.path):  # a pipe would be waited for
                    raise sqlite3.DatabaseError("no file")
                return self._open()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._begin_again(error)
                return self._open()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._refused(error) from None

    def write(self, *statements: tuple[str, Row]) -> None:
        """Execute all statements or none. Raises sqlite3.Error; `repair` may help."""
        if not self._connection:
            raise sqlite3.ProgrammingError("it is not open")
        run = self._connection.execute
        run("begin immediate")
        try:
            for statement, values in statements:
                run(statement, values)
            run("commit")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                run("rollback")
            raise

    def put(self, table: str, *columns: str) -> tuple[str, Row]:
        """The statement that writes a row."""
        row = sealed(table, *columns)
        return f"insert or replace into {table} values ({', '.join('?' * len(row))})", row  # noqa: S608

    def drop(self, table: str, key: str) -> tuple[str, Row]:
        """The statement that deletes a row."""
        return f"delete from {table} where {self._tables[table][0]} = ?", (key,)  # noqa: S608

    def empty(self) -> list[tuple[str, Row]]:
        """The statements that delete every row."""
        return [(f"delete from {table}", ()) for table in self._tables]  # noqa: S608

    def repair(self, error: sqlite3.Error, rows: Rows) -> bool:
        """Begin a new file with these rows if an error of `write` says that the old one is damaged. Whether it did.

        A row that was damaged before stays away: it must not get a new digest.
        """
        if not is_damage(error):
            return False
        self._begin_again(error)
        self._open()
        whole = ((name, key, row) for name in rows for key, row in rows[name].items() if is_whole(name, key, row))
        self.write(*(self.put(name, key, *row[:-1]) for name, key, row in whole))
        return True

    def close(self) -> None:
        """Close the file, in which everything is already."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _open(self) -> Rows:
        self._connection = _connect(self.path, "rwc")
        run = self._connection.execute
        run("pragma journal_mode=wal")
        run("pragma fullfsync=1")  # on macOS a plain fsync ends in the drive's cache; nothing elsewhere
        run("pragma checkpoint_fullfsync=1")
        run("pragma synchronous=normal")  # a power cut may lose the last records, never half of one
        if not run("select 1 from sqlite_master").fetchone():
            for name, columns in self._tables.items():
                run(f"create table {name} ({columns[0]} text primary key, {', '.join(columns[1:])}) without rowid")
            run(f"pragma user_version = {VERSION}")
        return self._select(self._connection)

    def _select(self, connection: sqlite3.Connection) -> Rows:
        if not connection.execute("select 1 from sqlite_master").fetchone():
            return {name: {} for name in self._tables}
        if connection.execute("pragma user_version").fetchone() != (VERSION,):
            error = sqlite3.DatabaseError("another version of the layout")
            error.sqlite_errorcode = sqlite3.SQLITE_FORMAT
            raise error
        try:
            return self._texts(connection)
        except sqlite3.OperationalError as error:  # a text that is no UTF-8, for which SQLite has no code
            if getattr(error, "sqlite_errorcode", None) is not None:
                raise
            connection.text_factory = lambda text: text.decode(errors="replace")  # damaged text fails its digest
            return self._texts(connection)

    def _texts(self, connection: sqlite3.Connection) -> Rows:
        rows = {}
        for name, columns in self._tables.items():
            found = connection.execute(f"select {', '.join(columns)} from {name}")  # noqa: S608
            rows[name] = {row[0]: row[1:] for row in found}
        return rows

    def _begin_again(self, error: sqlite3.Error) -> None:
        self.close()
        for place in _beside(self.path):
            files.remove(place)
        if os.path.lexists(self.path):
            files.set_aside(self.path, f"is damaged ({error})")

    def _refused(self, error: Exception) -> ThunderError:
        hint = "free space or make its folder writable"
        return ThunderError(f"cannot be used: {error}", where=str(self.path), hint=hint)


def is_damage(error: Exception) -> bool:
    """Whether an error lies in the content of the file."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and (code is None or code & 0xFF in DAMAGED)


def _is_misplaced(path: Path) -> bool:
    """Whether something that is no file, or a link, has this name."""
    return os.path.lexists(path) and (path.is_symlink() or not path.is_file())


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in BESIDE]


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(address, timeout=WAIT_S, check_same_thread=False, isolation_level=None, uri=True)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Where the folder cannot be written it reads a copy: SQLite would make files."""
    path.stat()
    with contextlib.ExitStack() as stack:
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in (path.name, path.name + "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(path.with_name(name), folder / name)
            path = folder / path.name
        connection = _connect(path, "rw")
        stack.callback(connection.close)
        yield connection
