"""Copies files to a host and from it over the host's session, and runs a script there.

No other program takes part, so no name of a file or folder stands on a command line, and a host gets and gives exactly
the bytes that were agreed on: it can name no other file here, neither to read it nor to write it.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.agent.client import Session
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SSH_FAILED
from thunder_train.core.text import printable

SCRIPT_BYTES = 1 << 13
"""The end of a script's output that is read."""


@dataclass(frozen=True)
class Part:
    """What is missing of a content on the other side: all bytes of it from offset on."""

    path: Path
    sha256: str
    offset: int
    bytes: int


def push(session: Session, parts: Iterable[Part], folder: str, recipe: str) -> None:
    """Send contents into .thunder/incoming/ of the project on a host. Raises ThunderError."""
    parts = tuple(parts)
    contents = [[part.sha256, part.offset, part.bytes] for part in parts]
    question = {"ask": "receive", "folder": folder, "recipe": recipe, "contents": contents}
    session.send(question, (piece for part in parts for piece in _pieces(part)))


def _pieces(part: Part) -> Iterator[bytes]:
    """The bytes of a part. Raises ThunderError when the file has become shorter."""
    left = part.bytes
    with part.path.open("rb") as file:
        file.seek(part.offset)
        while left:
            piece = file.read(min(left, client.PART_BYTES))
            if not piece:
                raise ThunderError("became shorter while it was sent", str(part.path), "run it again")
            left -= len(piece)
            yield piece


def pull(session: Session, folder: str, source: str, target: Path, size: int) -> None:
    """Copy a file of the project on a host, of so many bytes, to target; the beginning that target has is kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as file:
        offset = file.tell() if file.tell() <= size else 0
        file.truncate(offset)
        question = {"ask": "send", "folder": folder, "path": source, "offset": offset}
        for piece in session.receive(question, size - offset):
            file.write(piece)


def run(session: Session, folder: str, argv: list[str], within_s: float) -> None:
    """Run a command in a folder of a host, by the user's login shell if that is a usual one. Raises ThunderError.

    It ends when this process ends, however it ends.
    """
    words = " ".join(argv)
    shell = 'case "${SHELL:-}" in */bash | */zsh | */fish) exec "$SHELL" -lc "$1" ;; *) exec sh -lc "$1" ;; esac'
    script = ssh.script(["sh", "-c", shell, "sh", f"exec {words}"], {}, folder)
    with tempfile.TemporaryFile() as output:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": output, "stderr": subprocess.STDOUT}
        status = _status(session, ssh.script_argv(session.host), script, within_s, pipes)
        output.seek(max(0, output.seek(0, os.SEEK_END) - SCRIPT_BYTES))
        lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    if status is None or status:
        message = printable(" | ".join(lines[-3:])) or f"exit status {status}"
        if status == SSH_FAILED:
            raise client.ssh_problem(session.host, message)
        message = message if status else f"no end within {within_s:g} s"
        raise ThunderError(f"{words} failed: {message}", f"host {session.host}", f"run {words} there")


def _status(session: Session, argv: list[str], stdin: bytes, within_s: float, pipes: dict[str, Any]) -> int | None:
    """The exit status of a command whose stdin stays open until it ends; None after a timeout."""
    with process.started(argv, **pipes) as child:
        session.transfers.add(child)
        try:
            if child.stdin:
                child.stdin.write(stdin)
                child.stdin.flush()
            return child.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            session.transfers.discard(child)
