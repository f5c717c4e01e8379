"""Files: nothing that is no plain file is waited for."""

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
