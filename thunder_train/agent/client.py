"""The only protocol to a host: our program goes over ssh to the host's Python and answers questions, a JSON line each.

One ssh connection per host for all its questions. The host needs Python 3.9, neither the project nor its environment.
The program is main.py with the modules it imports, or another one with `main()` as its last part (mpi_holder.py).
"""

import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from thunder_train import ThunderError, raise_all
from thunder_train.agent.main import ANSWER
from thunder_train.config.fields import FORMS, SSH_NAME
from thunder_train.config.project import is_local
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SSH_FAILED
from thunder_train.core.text import printable

PARTS = ("interfaces", "link", "files", "main")
"""Modules of agent/ that make up the program, each after those it imports."""
ANSWER_WITHIN_S = 30.0
FIND_PYTHON = (
    'if cd "$1" 2>/dev/null && command -v "$2" >/dev/null 2>&1; then exec "$2" -u -c "$3"; fi; '
    'if command -v python3 >/dev/null 2>&1; then exec python3 -u -c "$3"; fi; echo "no python3" >&2; exit 127'
)
"""Shell command on the host: $1 project folder, $2 its interpreter, $3 what the interpreter runs."""
START = "import json,sys,types; exec(json.loads(sys.stdin.readline()))"
"""Runs LOAD, the first line of stdin: the program itself never stands on a command line."""
LOAD = """
for name, text in json.loads(sys.stdin.readline()):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""
LOST = re.compile("not responding|closed by|Connection reset|Broken pipe")
"""ssh's messages about a connection that had been made."""

Result = TypeVar("Result")


class Project(Protocol):
    """Where the project is on hosts: a cluster's settings, or the launcher's flags."""

    @property
    def folder(self) -> str:
        """The project's folder, from a host's home folder."""

    @property
    def python(self) -> str:
        """Its interpreter, from the project's folder."""


class UnreachableError(ThunderError):
    """A host cannot be reached over ssh or stopped answering. Another attempt may succeed."""


class Session:
    """The running program on one host. For one thread at a time."""

    def __init__(self, host: str, project: Project, parts: tuple[str, ...] = PARTS) -> None:
        self.host = host
        self.transfers: set[subprocess.Popen[bytes]] = set()
        """Other commands that run for this host now; cluster/transfer.py starts them."""
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the session)
        local = [sys.executable, "-u", "-c", START]
        remote = ["sh", "-c", FIND_PYTHON, "sh", project.folder, project.python, START]
        argv = local if is_local(host) else ssh.argv(host, shlex.join(remote))
        try:
            self.process = process.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        except FileNotFoundError as error:
            raise ThunderError(f"{error.filename} is not installed here", where=f"host {host}") from error
        self._send(LOAD)
        self._send(_program(parts))

    def ask(self, within_s: float = ANSWER_WITHIN_S, **question: Any) -> dict[str, Any]:
        """The answer to a question of the program: `ask` names it, the others are its arguments.

        Raises ThunderError when the host has failed or has not answered within the time.
        """
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            self.process.kill()

        timer = threading.Timer(within_s, give_up)
        timer.start()
        try:
            self._send(question)
            for line in self.process.stdout or ():
                if line.startswith(ANSWER.encode()):
                    return self._checked(json.loads(line[len(ANSWER) :]))
        finally:
            timer.cancel()
        raise self._problem(f"no answer within {round(within_s, 1):g} s" if is_late.is_set() else "")

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "failed" in answer:
            raise ThunderError(answer["failed"], f"host {self.host}", "check the disk space and permissions there")
        return answer

    def _send(self, value: Any) -> None:
        with contextlib.suppress(OSError):  # ssh has ended: its message is reported when the answer is missing
            if self.process.stdin:
                self.process.stdin.write(json.dumps(value).encode() + b"\n")
                self.process.stdin.flush()

    def _problem(self, timeout: str) -> ThunderError:
        """Why there was no answer. timeout: its message, "" if the program ended by itself."""
        where, status = f"host {self.host}", self.process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if not timeout and status == 127 and lines and "no python3" in lines[-1]:
            return ThunderError("has no Python", where, "install Python 3.11 or newer there")
        message = timeout or printable(" | ".join(lines[-3:])) or "no message"
        if not is_local(self.host) and (timeout or status == SSH_FAILED):
            return ssh_problem(self.host, message)
        hint = "check that Python 3.9 or newer is installed there"
        return ThunderError(f"the program that answers for it ended: {message}", where, hint)

    def kill(self) -> None:
        """End the program and all transfers at once; threads that wait for them go on."""
        self.process.kill()
        for transfer in list(self.transfers):
            process.signal_group(transfer, signal.SIGTERM)

    def close(self) -> None:
        """End the program, on the host too."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()  # the program on the host reads the end of its input
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self._errors.close()


def ssh_problem(host: str, message: str) -> UnreachableError:
    """The error for a failure of ssh itself. message: the last lines that it printed."""
    what, hint = f"ssh cannot reach it: {message}", f"make `ssh {host} true` work without a password"
    if "Host key verification failed" in message:
        hint = f"find out why its key changed; if rightly, `ssh-keygen -R {host}`, then `ssh {host}`"
    elif LOST.search(message):
        what = f"the connection was lost: {message}"
        hint = "check that it is on the network, then run the command again: it continues where it stopped"
    return UnreachableError(what, f"host {host}", hint)


def _program(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """[(module, its source)]; the packages around them are empty, so that imports can only use what was sent."""
    folder = Path(__file__).parent
    parts = [(f"thunder_train.agent.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in names]
    return [("thunder_train", ""), ("thunder_train.agent", ""), *parts]


@contextlib.contextmanager
def opened(hosts: Iterable[str], project: Project, parts: tuple[str, ...] = PARTS) -> Iterator[dict[str, Session]]:
    """Sessions with all hosts, closed at the end in any case. Raises ThunderError for each name that is no ssh name."""
    hosts, sessions = tuple(hosts), dict[str, Session]()
    bad_names = [host for host in hosts if not is_local(host) and not re.fullmatch(SSH_NAME, host)]
    raise_all([ThunderError(f"{name!r} is no name of a host", "hostfile", FORMS[SSH_NAME]) for name in bad_names])
    try:
        for host in hosts:
            sessions[host] = Session(host, project, parts)
        yield sessions
    finally:
        attempts(sessions, Session.close, [])


def attempts(
    sessions: Mapping[str, Session], act: Callable[[Session], Result], problems: list[ThunderError]
) -> dict[str, Result]:
    """{host: act(session)} of the hosts where it succeeded; the other hosts' ThunderErrors are added to problems.

    All hosts at once. An interruption ends what runs for any host.
    """

    def attempt(session: Session) -> Result | ThunderError:
        try:
            return act(session)
        except ThunderError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(sessions))) as pool:
        try:
            outcomes = dict(zip(sessions, pool.map(attempt, sessions.values()), strict=True))
        except BaseException:  # Ctrl-C: the threads wait for the hosts, and the pool waits for its threads
            for session in sessions.values():
                session.kill()
            raise
    problems += [outcome for outcome in outcomes.values() if isinstance(outcome, ThunderError)]
    return {host: outcome for host, outcome in outcomes.items() if not isinstance(outcome, ThunderError)}


def everywhere(sessions: Mapping[str, Session], act: Callable[[Session], Result]) -> dict[str, Result]:
    """{host: act(session)}, all hosts at once. Raises ThunderError with the problems of every host."""
    problems: list[ThunderError] = []
    results = attempts(sessions, act, problems)
    raise_all(problems)
    return results
