"""Asking a host, and copying files to it and from it: the thin shell around ssh and rsync, all hosts at once.

No value of a configuration reaches a shell unquoted: questions go over stdin, names of files too, and the one path on
an rsync command line is quoted here, since old versions (as on macOS) do not do it themselves.
"""

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from thunder_train import ThunderError, raise_all
from thunder_train.agent import files
from thunder_train.config.fields import FORMS, SSH_NAME
from thunder_train.config.project import Cluster, is_local
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SSH_FAILED

ANSWER_WITHIN_S = 3600
"""The first look at a large model reads all of it. A host that has gone is noticed by ssh itself, in half a minute."""
SILENT_S = 60
"""Seconds without a byte after which rsync gives up."""
BOOT = "import json,sys;t=json.load(sys.stdin);s={'__name__':'there'};exec(t['program'],s);s['answer'](t['question'])"
# The project's own Python, or any where it has none yet.
CHOOSE = 'test -x "$1" && exec "$1" -c "$2"; exec python3 -c "$2"'
COPY = ("--from0", "--files-from=-", "--copy-links", "--times", "--ignore-times", "--partial")
"""Lists of files over stdin; sent whatever size and times say, for they were compared by hash."""
LOST = ("not responding", "closed by", "Connection reset", "Broken pipe", "no end within")
"""Words of ssh about a connection that there was."""

_LIVE: set["subprocess.Popen[bytes]"] = set()
Item = TypeVar("Item")
Result = TypeVar("Result")


def hosts(where: Cluster) -> list[str]:
    """The cluster's remote hosts, each once."""
    return sorted({host.ssh for host in where.hosts if not is_local(host.ssh)})


def everywhere(names: Iterable[Item], act: Callable[[Item], Result]) -> list[Result]:
    """act(host) for all hosts at once. Raises ThunderError with the problems of all of them."""
    problems: list[ThunderError] = []
    found = attempts(names, act, problems)
    raise_all(problems)
    return found


def attempts(names: Iterable[Item], act: Callable[[Item], Result], problems: list[ThunderError]) -> list[Result]:
    """The same; the problems are added to a list, and what went well is returned.

    When this is interrupted, what runs for any host is ended.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        waiting = [pool.submit(_caught, act, name) for name in names]
        try:
            found = [each.result() for each in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end_all()
            raise
    problems += [each for each in found if isinstance(each, ThunderError)]
    return [each for each in found if not isinstance(each, ThunderError)]


def _caught(act: Callable[[Item], Result], name: Item) -> Result | ThunderError:
    try:
        return act(name)
    except ThunderError as error:
        return error


def ask(where: Cluster, host: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of there.py, run on a host. Raises ThunderError naming the host."""
    program = Path(files.__file__).read_text(encoding="utf-8")
    told = json.dumps({"program": program, "question": {"folder": where.folder, **question}})
    python = os.path.join(where.folder, where.python)
    command = shlex.join(["sh", "-c", CHOOSE, "sh", python, BOOT])
    done = _run(ssh.argv(_name(host), command), told.encode(), ANSWER_WITHIN_S)
    if done.returncode:
        raise _failure(host, done)
    lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith(files.MARK)]
    if not lines:
        raise ThunderError("gave no answer", f"host {host}", "look what its login scripts do")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(files.MARK))
    if "error" in found:
        raise ThunderError(found["error"], f"host {host}", "free space there, or make it writable")
    return found


def run(where: Cluster, host: str, script: str, within_s: float) -> None:
    """Run a script of ours in the project folder of a host, as its user would at a login. Raises ThunderError."""
    command = f"cd -- {shlex.quote(where.folder)} && exec ${{SHELL:-sh}} -lc {shlex.quote(script)}"
    done = _run(ssh.argv(_name(host), command), b"", within_s)
    if done.returncode:
        raise ThunderError(f"{script} failed: {_words(done)}", f"host {host}", f"run {script} there")


def push(host: str, source: Path, names: Iterable[str], target: str) -> None:
    """Copy files below source to below target on a host; what breaks off goes on next time. Raises ThunderError."""
    folder = shlex.quote(target)
    _rsync(host, names, f"mkdir -p -- {folder} && cd -- {folder} && exec rsync", [f"{source}/", f"{_name(host)}:."])


def pull(host: str, source: str, names: Iterable[str], target: Path) -> None:
    """Copy files below source on a host to below target. Raises ThunderError."""
    target.mkdir(parents=True, exist_ok=True)
    _rsync(host, names, f"cd -- {shlex.quote(source)} && exec rsync", [f"{_name(host)}:./", f"{target}/"])


def _rsync(host: str, names: Iterable[str], program: str, places: list[str]) -> None:
    shell = shlex.join(ssh.argv(host, "")[:-3])  # without "--", host and command, which rsync adds
    flags = [*COPY, f"--timeout={SILENT_S}", f"--rsh={shell}", f"--rsync-path={program}"]
    listed = "".join(f"{name}\0" for name in names).encode(errors="surrogateescape")
    done = _run(["rsync", *flags, "--", *places], listed, None)
    if done.returncode:
        raise _failure(host, done)


def _name(host: str) -> str:
    """The host, if it is a name: rsync reads others as a path or hands them to ssh as a flag."""
    if not re.fullmatch(SSH_NAME, host):
        raise ThunderError(f"{host!r} is no name of a host", "hostfile", FORMS[SSH_NAME])
    return host


def _run(argv: list[str], told: bytes, within_s: float | None) -> "subprocess.CompletedProcess[bytes]":
    """A command to its end, in a session of its own; status SSH_FAILED when it took too long."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with process.started(argv, **pipes) as child:
            _LIVE.add(child)
            try:
                out, err = child.communicate(told, timeout=within_s)
            finally:
                _LIVE.discard(child)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, SSH_FAILED, b"", f"no end within {within_s} s".encode())
    except FileNotFoundError as error:
        hint = f"install it: apt-get install {error.filename}, or brew install {error.filename}"
        raise ThunderError("is not installed here", str(error.filename), hint) from None
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def _end_all() -> None:
    for child in list(_LIVE):
        process.signal_group(child, signal.SIGTERM)


def _failure(host: str, done: "subprocess.CompletedProcess[bytes]") -> ThunderError:
    """Why ssh or rsync failed, and what mends it."""
    words = _words(done)
    hint = "run it again: it goes on where it stopped"
    if "No space left" in words or "quota" in words.lower():
        hint = "free space there"
    elif re.search("rsync: (command )?not found|rsync: cannot execute|not found: rsync", words):
        hint = "install rsync there: apt-get install rsync, or brew install rsync"
    elif "python3" in words:
        hint = "install Python 3.11 there"
    elif "Host key verification failed" in words:
        hint = f"find out why its key changed; if rightly, `ssh-keygen -R {host}`, then `ssh {host}`"
    elif any(sign in words for sign in LOST):
        words, hint = f"was lost: {words}", f"see that it is on the network, and {hint}"
    elif done.returncode == SSH_FAILED:
        words, hint = f"ssh cannot reach it: {words}", f"make `ssh {host} true` work without a password"
    return ThunderError(words, f"host {host}", hint)


def _words(done: "subprocess.CompletedProcess[bytes]") -> str:
    """What a failed command said last, on one line."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("rsync error:", "rsync: connection unexpectedly closed"))]
    return " | ".join((telling or lines)[-3:]) or f"exit status {done.returncode}"
