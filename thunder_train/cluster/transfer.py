"""Copies files to a host and from it by rsync, and runs a script there: commands beside the host's session.

No value of a configuration reaches a shell unquoted: rsync reads the file names from stdin, and the one path on its
command line is quoted here, because old versions (as on macOS) do not quote it.
"""

import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.agent.client import Session
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SSH_FAILED

SILENT_S = 60
"""Seconds without a byte after which rsync gives up."""
COPY = ("--from0", "--files-from=-", "--copy-links", "--times", "--ignore-times", "--partial")
"""--ignore-times: the files were compared by hash, so all of them are sent, whatever their size and times."""


def push(session: Session, source: Path, names: Iterable[str], target: str) -> None:
    """Copy files below source to below target on a host. Raises ThunderError; the next call continues partial files."""
    folder = shlex.quote(target)
    remote_program = f"mkdir -p -- {folder} && cd -- {folder} && exec rsync"
    _rsync(session, names, remote_program, [f"{source}/", f"{session.host}:."])


def pull(session: Session, source: str, names: Iterable[str], target: Path) -> None:
    """Copy files below source on a host to below target. Raises ThunderError."""
    target.mkdir(parents=True, exist_ok=True)
    remote_program = f"cd -- {shlex.quote(source)} && exec rsync"
    _rsync(session, names, remote_program, [f"{session.host}:./", f"{target}/"])


def run(session: Session, folder: str, script: str, within_s: float) -> None:
    """Run a shell script in a folder of a host, from the user's login shell. Raises ThunderError."""
    command = f"cd -- {shlex.quote(folder)} && exec ${{SHELL:-sh}} -lc {shlex.quote(script)}"
    done = _run(session, ssh.argv(session.host, command), b"", within_s)
    if done.returncode:
        raise ThunderError(f"{script} failed: {_message(done)}", f"host {session.host}", f"run {script} there")


def _rsync(session: Session, names: Iterable[str], remote_program: str, places: list[str]) -> None:
    shell = shlex.join(ssh.argv(session.host, "")[:-3])  # rsync adds the last three: "--", host and command
    flags = [*COPY, f"--timeout={SILENT_S}", f"--rsh={shell}", f"--rsync-path={remote_program}"]
    stdin = "".join(f"{name}\0" for name in names).encode(errors="surrogateescape")
    done = _run(session, ["rsync", *flags, "--", *places], stdin, None)
    if done.returncode:
        raise _failure(session.host, done)


def _run(
    session: Session, argv: list[str], stdin: bytes, within_s: float | None
) -> "subprocess.CompletedProcess[bytes]":
    """A command to its end, in a process group of its own; status SSH_FAILED after a timeout."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with process.started(argv, **pipes) as child:
            session.transfers.add(child)
            try:
                out, err = child.communicate(stdin, timeout=within_s)
            finally:
                session.transfers.discard(child)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, SSH_FAILED, b"", f"no end within {within_s} s".encode())
    except FileNotFoundError as error:
        hint = f"install it: apt-get install {error.filename}, or brew install {error.filename}"
        raise ThunderError("is not installed here", str(error.filename), hint) from None
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def _failure(host: str, done: "subprocess.CompletedProcess[bytes]") -> ThunderError:
    """Why rsync failed, with a hint."""
    message = _message(done)
    hint = "run it again: it continues where it stopped"
    if "No space left" in message or "quota" in message.lower():
        hint = "free space there"
    elif re.search("rsync: (command )?not found|rsync: cannot execute|not found: rsync", message):
        hint = "install rsync there: apt-get install rsync, or brew install rsync"
    elif done.returncode == SSH_FAILED or client.LOST.search(message):
        return client.ssh_problem(host, message)
    return ThunderError(message, f"host {host}", hint)


def _message(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The last lines that a failed command wrote to stderr, as one line."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    summaries = ("rsync error:", "rsync: connection unexpectedly closed")  # they follow the line with the reason
    reasons = [line for line in lines if not line.startswith(summaries)]
    return " | ".join((reasons or lines)[-3:]) or f"exit status {done.returncode}"
