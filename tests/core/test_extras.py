"""The command that adds an extra."""

import sys
from pathlib import Path

import pytest

from thunder_train.core import extras


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("requirements.lock", "EXTRA=parquet ./doit"),
        ("uv-receipt.toml", "uv tool install 'thunder-train[parquet]'"),
        ("pyvenv.cfg", "pip install 'thunder-train[parquet]'"),
    ],
)
def test_an_extra_is_added_by_what_made_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, command: str
) -> None:
    """
    pip in an environment of ./doit would change it, and the next one would lack the package.
    """
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    assert command == extras.command("parquet")
