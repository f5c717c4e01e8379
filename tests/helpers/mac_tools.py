"""Programs of macOS as scripts that print what users' posts show, or write down how they were called."""

import os
from pathlib import Path

import pytest


def tool(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program first on the PATH: a script for sh."""
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def caffeinate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A caffeinate that stays until it is ended. Returns the files of its process id and of its flags."""
    pid, flags = folder / "caffeinate.pid", folder / "caffeinate.flags"
    tool(
        folder,
        "caffeinate",
        f"echo $$ >'{pid}'; echo \"$@\" >'{flags}.draft'; mv '{flags}.draft' '{flags}'; exec sleep 60",
        monkeypatch,
    )
    return pid, flags
