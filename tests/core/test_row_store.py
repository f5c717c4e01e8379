"""A file of rows is read wherever it can be read, and damage of any kind costs its rows and no more."""

import os
import sqlite3
from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.core.row_store import RowStore, is_whole, sealed

TABLES = {"t": ("key", "text")}


def written(folder: Path, count: int = 300) -> Path:
    """A file with rows."""
    store = RowStore(folder / "rows.sqlite", TABLES)
    store.open()
    store.write(*(store.put("t", f"{number:040}", "text") for number in range(count)))
    store.close()
    return store.path


def rebuilt(path: Path) -> dict[str, tuple[str, ...]]:
    """The rows that can be relied on after opening for writing; a new row must then be kept."""
    store = RowStore(path, TABLES)
    rows = {key: row for key, row in store.open()["t"].items() if is_whole("t", key, row)}
    store.write(store.put("t", "new", "text"))
    store.close()
    assert "new" in RowStore(path, TABLES).read()["t"]
    return rows


def directory(path: Path) -> None:
    """A folder of that name."""
    path.unlink(missing_ok=True)
    (path / "inside").mkdir(parents=True)


def run_sql(text: str, path: Path) -> None:
    """Change the file as SQLite would."""
    with sqlite3.connect(path) as connection:
        connection.execute(text)


HARMS = {
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "overwritten": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "short": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "pages zeroed": lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)),
    "header zeroed": lambda path: path.write_bytes(bytes(4096) + path.read_bytes()[4096:]),
    "a folder": directory,
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "-wal is a folder": lambda path: directory(path.with_name("rows.sqlite-wal")),
    "-wal is a link": lambda path: path.with_name("rows.sqlite-wal").symlink_to("/etc/passwd"),
    "-shm is a link": lambda path: path.with_name("rows.sqlite-shm").symlink_to("/etc/passwd"),
    "a link": lambda path: (path.rename(path.with_name("other")), path.symlink_to("other")),
    "-wal is noise": lambda path: path.with_name("rows.sqlite-wal").write_bytes(b"x" * 5000),
    "no table": lambda path: run_sql("drop table t", path),
    "other columns": lambda path: run_sql("alter table t rename column text to words", path),
    "another version": lambda path: run_sql("pragma user_version = 1", path),
    "text that is no UTF-8": lambda path: run_sql("update t set text = cast(x'ff' as text)", path),
    "bytes for text": lambda path: run_sql("update t set text = x'00'", path),
    "a number for text": lambda path: run_sql("update t set text = 1", path),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("looks_first", [False, True])
def test_damage_costs_rows_and_no_more(
    tmp_path: Path, harm: str, looks_first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Of every kind; a file that is set aside is told in one line.
    """
    path = written(tmp_path)
    HARMS[harm](path)
    if looks_first:
        rows = RowStore(path, TABLES).read()["t"]
        assert {row[0] for key, row in rows.items() if is_whole("t", key, row)} <= {"text"}
        capsys.readouterr()

    assert {row[0] for row in rebuilt(path).values()} <= {"text"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 1
    assert all(line.startswith(f"warning: {path}") and "; kept as rows.sqlite" in line for line in lines)
    assert len(lines) == len([*tmp_path.glob("*.damaged")])


def test_any_flipped_bit_costs_rows_and_no_more(tmp_path: Path) -> None:
    """
    Every 211th byte of the file, in turn.
    """
    data = written(tmp_path, 60).read_bytes()
    (tmp_path / "copy").mkdir()
    path = tmp_path / "copy/rows.sqlite"
    for place in range(0, len(data), 211):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)

        assert {row[0] for row in rebuilt(path).values()} <= {"text"}, place


def test_a_second_damaged_file_replaces_the_first(tmp_path: Path) -> None:
    """
    Also where a folder was set aside before.
    """
    path = written(tmp_path)
    directory(path)
    rebuilt(path)
    path.write_bytes(b"x" * 500)

    assert {} == rebuilt(path)
    assert b"x" * 500 == (tmp_path / "rows.sqlite.damaged").read_bytes()


def test_a_row_under_another_key_is_not_whole(tmp_path: Path) -> None:
    """
    The digest is over the key too, and over the table.
    """
    row = RowStore(written(tmp_path, 1), TABLES).read()["t"]["0" * 40]

    assert (True, False, False) == (is_whole("t", "0" * 40, row), is_whole("t", "1", row), is_whole("u", "0" * 40, row))


def test_what_cannot_be_written_is_told_when_it_is_opened_to_write(tmp_path: Path) -> None:
    """
    A file where the folder should be.
    """
    (tmp_path / "folder").write_text("")

    with pytest.raises(ThunderError, match=r"folder/rows\.sqlite: cannot be used: .*; free space or make its folder"):
        RowStore(tmp_path / "folder/rows.sqlite", TABLES).open()


def test_a_folder_that_cannot_be_written_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With the rows of a process that was killed, which are still in the -wal; no file is made.
    """
    store = RowStore(tmp_path / "rows.sqlite", TABLES)
    store.open()
    store.write(store.put("t", "key", "text"))
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("os.access", lambda *_: False)

    assert "text" == RowStore(tmp_path / "rows.sqlite", TABLES).read()["t"]["key"][0]
    assert before == sorted(tmp_path.iterdir())


def test_reading_leaves_no_file_beside(tmp_path: Path) -> None:
    """
    A reader makes -wal and -shm while it reads.
    """
    path = written(tmp_path)
    RowStore(path, TABLES).read()

    assert [path] == [*tmp_path.iterdir()]


def test_a_damaged_row_gets_no_new_digest(tmp_path: Path) -> None:
    """
    When a file turns out to be damaged as it is written, only whole rows go into the new one.
    """
    path = written(tmp_path)
    run_sql("update t set text = 'other'", path)
    store = RowStore(path, TABLES)
    rows = store.open()
    rows["t"]["new"] = sealed("t", "new", "text")[1:]

    assert store.repair(sqlite3.DatabaseError("file is not a database"), {"t": rows["t"]})
    assert {"new": "text"} == {key: row[0] for key, row in RowStore(path, TABLES).read()["t"].items()}


def test_what_is_committed_outlasts_a_power_cut_on_macos_too(tmp_path: Path) -> None:
    """
    SQLite's plain fsync ends there in the drive's cache. Untested on a Mac: on Linux both settings change nothing.
    """
    store = RowStore(tmp_path / "rows.sqlite", TABLES)
    store.open()
    assert store._connection
    settings = [
        store._connection.execute(f"pragma {name}").fetchone() for name in ("fullfsync", "checkpoint_fullfsync")
    ]
    store.close()

    assert [(1,), (1,)] == settings
