"""doit's records outlive any kill, and a damaged file costs a rebuild, never a wrong "up to date"."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from doit.dependency import JSONCodec
from doit.exceptions import InvalidCommand

from thunder_train.build import lock
from thunder_train.build.state import DurableState, records


@pytest.fixture(autouse=True)
def unlocked(tmp_path: Path) -> Iterator[None]:
    """Each test begins and ends as a process does."""
    yield
    lock.release(tmp_path)


def opened(path: Path) -> DurableState:
    """The state as doit opens it."""
    return DurableState(str(path / "state.sqlite"), JSONCodec())


def succeed(state: DurableState, name: str) -> None:
    """What doit does when a task succeeds; `deps:` comes last."""
    state.set(name, "_values_:", {"made": {"a": "1"}})
    state.set(name, "deps:", ["a"])


def test_a_success_is_on_disk_at_once(tmp_path: Path) -> None:
    """
    doit's own backends write at the end of the run, so a kill loses every finished task.
    """
    succeed(opened(tmp_path), "train:smoke")  # never closed: as if killed

    assert {"made": {"a": "1"}} == opened(tmp_path).get("train:smoke", "_values_:")


def test_an_unfinished_record_is_not_on_disk(tmp_path: Path) -> None:
    """
    Half a record would be read as a whole one.
    """
    opened(tmp_path).set("train:smoke", "_values_:", {"made": {}})

    assert not opened(tmp_path).in_("train:smoke")


def test_a_removal_is_on_disk_at_once_with_its_mark(tmp_path: Path) -> None:
    """
    A kill while the stage runs must not leave the old record standing.
    """
    state = opened(tmp_path)
    succeed(state, "train:smoke")
    state.remove("train:smoke")
    state.mark("train:smoke", "was interrupted")
    again = opened(tmp_path)

    assert not again.in_("train:smoke")
    assert "was interrupted" == again.marked("train:smoke")
    succeed(again, "train:smoke")
    assert "" == opened(tmp_path).marked("train:smoke")


def test_values_are_kept_once_under_their_digest(tmp_path: Path) -> None:
    """
    Recipes share clusters and code; their records name them by hash.
    """
    state = opened(tmp_path)
    digest = state.keep({"b": 1, "a": [1.5, None]})

    assert digest == state.keep({"a": [1.5, None], "b": 1})
    assert {"a": [1.5, None], "b": 1} == opened(tmp_path).kept(digest)
    assert opened(tmp_path).kept("0" * 64) is None


@pytest.mark.parametrize("harm", ["truncate", "overwrite", "empty"])
def test_a_damaged_file_is_rebuilt_with_a_warning(
    tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every stage runs again or comes from the run cache; there is no traceback.
    """
    state = opened(tmp_path)
    for number in range(200):
        succeed(state, f"train:{number:0100}")
    state.dump()
    path = tmp_path / "state.sqlite"
    data = path.read_bytes()
    path.write_bytes({"truncate": data[: len(data) // 2], "overwrite": b"x" * len(data), "empty": b""}[harm])

    again = opened(tmp_path)

    assert not again.in_("train:0")
    succeed(again, "train:1")
    assert opened(tmp_path).in_("train:1")
    assert (harm != "empty") == ("is damaged" in capsys.readouterr().err)


def test_one_damaged_record_runs_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The other tasks keep their records.
    """
    state = opened(tmp_path)
    succeed(state, "a")
    succeed(state, "b")
    state.dump()
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("update tasks set record = '{' where task_id = 'a'")
    again = opened(tmp_path)

    assert again.get("a", "deps:") is None
    assert ["a"] == again.get("b", "deps:")
    assert "warning: the record of a in " in capsys.readouterr().err
    succeed(again, "a")
    assert ["a"] == opened(tmp_path).get("a", "deps:")


@pytest.mark.parametrize("table", ["tasks", "marks", "kept"])
def test_one_flipped_bit_is_not_believed(tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    JSON stays JSON and SQLite sees nothing, so each row has its digest: a hash or a reason would be wrong.
    """
    state = opened(tmp_path)
    succeed(state, "a")
    state.mark("b", "failed: 1")
    digest = state.keep({"rate": 1})
    state.dump()
    column = {"tasks": "record", "marks": "text", "kept": "value"}[table]
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute(f"update {table} set {column} = replace({column}, '1', '3')")  # noqa: S608
    again = opened(tmp_path)

    found = {"tasks": again.get("a", "deps:"), "marks": again.marked("b"), "kept": again.kept(digest)}
    assert {"tasks": ["a"], "marks": "failed: 1", "kept": {"rate": 1}} | {
        table: "" if table == "marks" else None
    } == found
    assert digest == again.keep({"rate": 1})
    assert {"rate": 1} == opened(tmp_path).kept(digest)


def test_a_run_reads_what_was_written_while_it_waited(tmp_path: Path) -> None:
    """
    The second of two doits waits for the first, and must not use what it read before.
    """
    second = opened(tmp_path)
    assert not second.in_("train:smoke")
    second.build({"train:smoke"})
    succeed(opened(tmp_path), "train:smoke")

    assert ["a"] == second.get("train:smoke", "deps:")


def test_reading_makes_no_file_and_takes_no_lock(tmp_path: Path) -> None:
    """
    `doit list` in the project of somebody else.
    """
    state = opened(tmp_path / "new")

    assert (None, False, "", None) == (state.get("a", "deps:"), state.in_("a"), state.marked("a"), state.kept("0" * 64))
    state.dump()
    assert ([], False) == ([*tmp_path.iterdir()], lock.is_held(tmp_path / "new"))


def test_a_run_of_nothing_that_is_kept_writes_nothing(tmp_path: Path) -> None:
    """
    `doit test` runs beside a build.
    """
    state = opened(tmp_path)
    state.build({"train:smoke"})
    state.get("test", "ignore:")
    succeed(state, "test")
    state.remove("test")
    state.dump()

    assert ([], False) == ([*tmp_path.iterdir()], lock.is_held(tmp_path))


def test_a_change_on_what_is_no_longer_so_is_refused(tmp_path: Path) -> None:
    """
    `doit reset-dep` copies values that it read; a build that ended meanwhile has written others.
    """
    late = opened(tmp_path)
    late.get("train:smoke", "_values_:")
    succeed(opened(tmp_path), "train:smoke")

    with pytest.raises(InvalidCommand, match="another doit has just changed it; give this command again"):
        late.set("train:smoke", "_values_:", {})


@pytest.mark.parametrize("begins", [True, False], ids=["a run", "another command"])
def test_a_file_damaged_while_it_is_open_is_written_again(
    tmp_path: Path, begins: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What doit knew before is in memory and goes into the new file.
    """
    state = opened(tmp_path)
    if begins:
        state.build({"a"})
        state.get("a", "deps:")
    succeed(state, "a")
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("drop table tasks")
    succeed(state, "b")
    again = opened(tmp_path)

    assert (["a"], ["a"]) == (again.get("a", "deps:"), again.get("b", "deps:"))
    assert "state.sqlite is damaged (no such table: tasks)" in capsys.readouterr().err


def test_an_ignored_task_is_on_disk_and_keeps_its_record(tmp_path: Path) -> None:
    """
    `doit ignore` sets one value and no more; what doit knew of the task stays until `doit forget`.
    """
    succeed(opened(tmp_path), "train:smoke")
    opened(tmp_path).set("train:smoke", "ignore:", "1")
    again = opened(tmp_path)

    assert ("1", ["a"]) == (again.get("train:smoke", "ignore:"), again.get("train:smoke", "deps:"))


def test_records_are_read_without_writing(tmp_path: Path) -> None:
    """
    For `doit dumpdb`: every record, damaged ones as they are; no file is made.
    """
    assert [] == records(str(tmp_path / "state.sqlite"))
    assert [] == [*tmp_path.iterdir()]
    state = opened(tmp_path)
    succeed(state, "b")
    succeed(state, "a")
    state.dump()
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("update tasks set record = '{' where task_id = 'b'")
    lock.release(tmp_path)

    assert ["a", "b"] == [name for name, _ in records(str(tmp_path / "state.sqlite"))]
    assert {"damaged:": "{"} == records(str(tmp_path / "state.sqlite"))[1][1]
