"""The memory of file hashes on a host. What the questions do is tested with sync and fetch, in tests/cluster."""

import hashlib
import os
from pathlib import Path

import pytest

from thunder_train.agent import files


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_files_have_a_size_and_a_hash(host: Path) -> None:
    """
    A missing file is left out. One of another size is not read: that could take minutes for nothing.
    """
    (host / "a").write_bytes(b"one")
    (host / "b").write_bytes(b"two")

    assert {"a": [3, sha(b"one")], "b": [3, None]} == files.hash_files({"a": None, "b": 99, "c": 3})


def test_a_file_is_read_once(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A model of 50 GB takes minutes to read, and a preflight comes before each training.
    """
    monkeypatch.setattr(files, "RACY_NS", -(10**12))
    Path("a").write_bytes(b"one")
    os.utime("a", (1, 1))
    first = files.hash_files({"a": None})
    monkeypatch.setattr(files, "_sha256", lambda path: "read again")

    assert {"a": [3, sha(b"one")]} == first == files.hash_files({"a": None})
    Path("a").write_bytes(b"six")
    assert {"a": [3, "read again"]} == files.hash_files({"a": None})


def test_a_file_that_was_just_written_is_not_remembered(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It may change again within the clock's tick and keep its time.
    """
    monkeypatch.setattr(files, "RACY_NS", 10**12)  # so that a busy machine does not make the file old
    Path("a").write_bytes(b"one")
    files.hash_files({"a": None})

    assert not Path(".thunder").exists()


def test_a_damaged_memory_is_an_empty_one(host: Path) -> None:
    """
    Also JSON that is not a table.
    """
    Path(".thunder").mkdir()
    for text in ("{", "[]"):
        Path(files.HASHES).write_text(text)
        assert {} == files.hash_files({})


def test_a_full_disk_costs_only_the_time_to_read_again(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The answer does not depend on the memory.
    """
    monkeypatch.setattr(files, "RACY_NS", -(10**12))
    Path(".thunder").write_text("a file in the place of the folder")
    Path("a").write_bytes(b"one")

    assert {"a": [3, sha(b"one")]} == files.hash_files({"a": None})
