"""Extras: packages that only some users need, and the command that adds them to the environment of this process."""

import sys
from pathlib import Path

NAMES = ("parquet", "s3")
"""The extras of pyproject.toml."""


def command(name: str) -> str:
    """The command that installs an extra of pyproject.toml where this process runs."""
    environment = Path(sys.prefix)
    if (environment / "requirements.lock").is_file():  # ./doit has made it
        return f"EXTRA={name} ./doit"
    package = f"'thunder-train[{name}]'"
    return f"uv tool install {package}" if (environment / "uv-receipt.toml").is_file() else f"pip install {package}"
