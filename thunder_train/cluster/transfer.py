"""Copies files to a host and from it over the host's session, and runs a script there.

No other program takes part, so no name of a file or folder stands on a command line, and a host gets and gives exactly
the bytes that were agreed on: it can name no other file here, neither to read it nor to write it.
"""

import contextlib
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, cast

from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.agent.client import Session
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SSH_FAILED
from thunder_train.core.text import printable

OUTPUT_BYTES = 1 << 13
"""The end of a command's output that is kept."""
LOGIN_SHELL = """case "${SHELL:-}" in
*/bash | */zsh | */fish) exec "$SHELL" -lc 'exec /bin/sh -c "$THUNDER_COMMAND"' ;;
*/csh | */tcsh) exec "$SHELL" -c 'exec /bin/sh -c "$THUNDER_COMMAND"' ;;
*) exec sh -lc 'exec /bin/sh -c "$THUNDER_COMMAND"' ;;
esac"""
"""Lets the user's login shell read its start files, for the PATH, and then start sh with the command.

All these shells read the text between the quotes in the same way, and none reads the command. tcsh takes no -l with -c.
"""


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


def run(session: Session, folder: str, command: str, within_s: float) -> None:
    """Run a command, as sh reads it, in a folder of a host with the PATH of its user. Raises ThunderError.

    It ends when this process ends, however it ends.
    """
    script = ssh.script(["sh", "-c", LOGIN_SHELL], {"THUNDER_COMMAND": command}, folder)
    status, lines = _ended(session, ssh.script_argv(session.host), script, within_s)
    if status == 0:
        return
    message = printable(" | ".join(lines[-3:])) or f"exit status {status}"
    if status == SSH_FAILED:
        raise client.ssh_problem(session.host, message)
    message = f"no end within {within_s:g} s" if status is None else message
    raise ThunderError(f"{command} failed: {message}", f"host {session.host}", f"run {command} there")


def _ended(session: Session, argv: list[str], stdin: bytes, within_s: float) -> tuple[int | None, list[str]]:
    """Exit status, None after a timeout, and last lines of a command. Its stdin stays open until it ends."""
    output = b""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with process.started(argv, **pipes) as child, client.Limit(child, within_s) as limit:
        session.transfers.add(child)
        to_child, from_child = cast(BufferedWriter, child.stdin), cast(BufferedReader, child.stdout)
        try:
            with contextlib.suppress(OSError):  # ssh has failed already; its message is in the output
                to_child.write(stdin)
                to_child.flush()
            while part := from_child.read1(OUTPUT_BYTES):
                output = (output + part)[-OUTPUT_BYTES:]
            status = child.wait()
        finally:
            session.transfers.discard(child)
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return None if limit.is_late else status, lines
