"""Extras: packages that only some users need, and the command that adds them to the environment of this process."""

import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("parquet", "s3", "wandb")
"""The extras of pyproject.toml."""


def install(packages: Sequence[str]) -> str:
    """What installs packages of which some are an extra of the same name; the others are not locked here."""
    commands = [command(each) if each in NAMES else f"{sys.executable} -m pip install {each}" for each in packages]
    return "run " + " and ".join(f"`{each}`" for each in commands)


def command(name: str) -> str:
    """The command that installs an extra of pyproject.toml where this process runs."""
    environment = Path(sys.prefix)
    if (environment / "requirements.lock").is_file():  # ./doit has made it
        return f"EXTRA={name} ./doit"
    package = f"'thunder-train[{name}]'"
    return f"uv tool install {package}" if (environment / "uv-receipt.toml").is_file() else f"pip install {package}"
