"""Files: nothing that is no plain file is waited for."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.config.toml_io import read_toml
from thunder_train.core import files, templates

READERS: dict[str, Callable[[Path], Any]] = {
    "json": files.read_json,
    "lines": files.read_jsonl,
    "template": lambda path: templates.shell(path, {}),
    "toml": lambda path: read_toml(path, str(path), ""),
}


@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing"])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_none_is_told_at_once(tmp_path: Path, reader: str, kind: str) -> None:
    """
    A pipe that nobody writes to would stop every command without a word.
    """
    path = tmp_path / "file"
    if kind != "nothing":
        (os.mkfifo if kind == "pipe" else os.mkdir)(path)

    with pytest.raises(ThunderError) as caught:
        READERS[reader](path)

    assert str(caught.value).startswith(f"{path}: {'is missing' if kind == 'nothing' else 'cannot be read: is '}")


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    """
    But not for hidden ones, and no path stands for no file: "" would be the root of the disk.
    """
    for name in ("corpus/b/c.jsonl", "corpus/a.jsonl", "corpus/.git/x", "corpus/.y", "other.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "corpus" / "loop").symlink_to(tmp_path / "corpus")

    assert ["corpus/a.jsonl", "corpus/b/c.jsonl"] == files.expand_all("corpus/", tmp_path)
    assert ["corpus/a.jsonl"] == files.expand_all("corpus/*.jsonl", tmp_path)
    assert [] == files.expand_all("", tmp_path)


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        ("corpus", "corpus/a.jsonl", "corpus/a.jsonl"),
        ("/home/me/corpus/", "/home/me/corpus/b/a.jsonl", "corpus/b/a.jsonl"),
        ("/home/me/*.jsonl", "/home/me/a.jsonl", "a.jsonl"),
        ("data/*.jsonl", "data/a.jsonl", "data/a.jsonl"),
    ],
)
def test_a_file_of_a_folder_outside_the_project_has_the_folders_name(folder: str, path: str, expected: str) -> None:
    """
    Two files of one name in its folders must stay two, and nobody reads where a person keeps files.
    """
    assert expected == files.portable_below(folder, path)


@pytest.mark.parametrize("is_refused", [False, True])
def test_on_macos_bytes_leave_the_drives_cache_too(
    is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    os.fsync ends there before a power cut is survived; a file system that refuses F_FULLFSYNC gets os.fsync. Untested
    on a Mac: Linux has no such command.
    """
    calls: list[str] = []

    def command(descriptor: int, number: int) -> int:
        calls.append(f"fcntl {number}")
        if is_refused:
            raise OSError(errno.ENOTSUP, "refused")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", command)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    files.write_text(tmp_path / "a", "text")
    files.move(tmp_path / "a", tmp_path / "b")

    assert (["fcntl 51", "fsync"] if is_refused else ["fcntl 51"]) * 2 == calls
    assert "text" == (tmp_path / "b").read_text()
