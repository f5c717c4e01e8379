"""Remembered hashes: which are trusted, which files are read again, and what a damaged cache costs."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from thunder_train.core import files
from thunder_train.core.stat_cache import RACY_NS, StatCache


def settle() -> None:
    """Wait until a file written now is old enough to be trusted."""
    time.sleep(2 * RACY_NS / 1e9)


def test_an_unchanged_file_is_read_once_also_by_the_next_process(tmp_path: Path) -> None:
    """
    A no-op must not read a 20 GB model.
    """
    (tmp_path / "file").write_text("text")
    settle()
    first = StatCache(tmp_path / "stats.sqlite")
    sha = first.sha256(str(tmp_path / "file"))
    second = StatCache(tmp_path / "stats.sqlite")

    assert sha == first.sha256(str(tmp_path / "file")) == second.sha256(str(tmp_path / "file"))
    assert (1, 0) == (first.hashed, second.hashed)


def test_a_file_changed_within_one_tick_is_not_trusted(tmp_path: Path) -> None:
    """
    Git calls it racy: a file can change twice within one tick of the file system's clock.
    """
    cache = StatCache(tmp_path / "stats.sqlite")
    (tmp_path / "file").write_text("text")
    soon = time.time() + 60  # in the future, so the times are younger than the look on any machine
    os.utime(tmp_path / "file", (soon, soon))
    cache.sha256(str(tmp_path / "file"))
    cache.sha256(str(tmp_path / "file"))

    assert 2 == cache.hashed


def test_new_times_cost_one_hash_and_other_bytes_are_noticed(tmp_path: Path) -> None:
    """
    Plain doit hashes a touched file in every later run, and misses an edit with the old time and size.
    """
    path = tmp_path / "file"
    path.write_text("text")
    settle()
    cache = StatCache(tmp_path / "stats.sqlite")
    sha, before = cache.sha256(str(path)), path.stat()
    path.write_text("TEXT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settle()

    assert sha != cache.sha256(str(path)) == cache.sha256(str(path))
    assert 2 == cache.hashed


@pytest.mark.parametrize("harm", [b"", b"not a database at all, but long enough to be read as a header" * 50])
def test_a_damaged_cache_is_set_aside_with_a_warning(
    tmp_path: Path, harm: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Never a traceback, never a wrong hash.
    """
    (tmp_path / "file").write_text("text")
    (tmp_path / "stats.sqlite").write_bytes(harm)

    assert files.sha256(tmp_path / "file") == StatCache(tmp_path / "stats.sqlite").sha256(str(tmp_path / "file"))
    warned = "stats.sqlite is damaged" in capsys.readouterr().err
    assert bool(harm) == warned == (tmp_path / "stats.sqlite.damaged").exists()


def test_a_flipped_bit_in_a_hash_is_not_believed(tmp_path: Path) -> None:
    """
    SQLite does not see it, and a file would count as changed, or as unchanged.
    """
    (tmp_path / "file").write_text("text")
    settle()
    sha = StatCache(tmp_path / "stats.sqlite").sha256(str(tmp_path / "file"))
    with sqlite3.connect(tmp_path / "stats.sqlite") as connection:
        connection.execute("update stats set text = ?", (sha.replace("9", "8"),))
    again = StatCache(tmp_path / "stats.sqlite")

    assert (sha, 1) == (again.sha256(str(tmp_path / "file")), again.hashed)
    assert (sha, 0) == ((third := StatCache(tmp_path / "stats.sqlite")).sha256(str(tmp_path / "file")), third.hashed)


@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_what_is_no_file_is_an_error_at_once(tmp_path: Path, kind: str) -> None:
    """
    A pipe in place of a target was waited for, without end.
    """
    path = tmp_path / "file"
    (os.mkfifo if kind == "a pipe" else os.mkdir)(path)

    with pytest.raises(OSError, match="is no plain file"):
        StatCache(tmp_path / "stats.sqlite").sha256(str(path))
