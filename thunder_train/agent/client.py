"""A conversation with a host: our own small program is sent there, and answers questions until the session is closed.

One ssh connection per host for everything. The host needs a Python, and neither the project nor its environment.
"""

import json
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from thunder_train import ThunderError
from thunder_train.config.project import is_local
from thunder_train.core import process, ssh
from thunder_train.core.exit_codes import SSH_FAILED
from thunder_train.core.text import printable

PARTS = ("interfaces", "link", "relay", "main")
"""Modules of agent/ that make a program, in the order of their imports; the last one's main is its start."""
MARK = "thunder-answer "
"""As in agent/main.py."""
ANSWER_WITHIN_S = 30.0
HERE = "localhost"
FIND_PYTHON = (
    'if cd "$1" 2>/dev/null && command -v "$2" >/dev/null 2>&1; then exec "$2" -u -c "$3"; fi; '
    'if command -v python3 >/dev/null 2>&1; then exec python3 -u -c "$3"; fi; echo "no python3" >&2; exit 127'
)
START = "import json,sys,types; exec(json.loads(sys.stdin.readline()))"
LOAD = """
for name, text in json.loads(sys.stdin.readline()):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""


class Project(Protocol):
    """Where the project lies on hosts, and its interpreter there, as [clusters] tells or the launcher's flags."""

    @property
    def folder(self) -> str:
        """From a host's home."""

    @property
    def python(self) -> str:
        """From the folder."""


class UnreachableError(ThunderError):
    """A host does not let us in, or no longer answers. Another time it may."""


class Session:
    """The program on one host, started; `ask` talks to it. Safe for one thread at a time."""

    def __init__(self, host: str, where: Project, parts: tuple[str, ...] = PARTS) -> None:
        self.host = host
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the session)
        own = [sys.executable, "-u", "-c", START]
        remote = ["sh", "-c", FIND_PYTHON, "sh", where.folder, where.python, START]
        argv = own if is_local(host) else ssh.argv(host, shlex.join(remote))
        try:
            self.process = process.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        except FileNotFoundError as error:
            raise ThunderError(f"{error.filename} is not installed here", where=f"host {host}") from error
        self._send(LOAD)
        self._send(_program(parts))

    def ask(self, within_s: float = ANSWER_WITHIN_S, **question: Any) -> dict[str, Any]:
        """The answer to a question of agent/main.py. Raises ThunderError when there is none within the time."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(within_s, give_up)
        timer.start()
        try:
            self._send(question)
            for line in self.process.stdout or ():
                if line.startswith(MARK.encode()):
                    found: dict[str, Any] = json.loads(line[len(MARK) :])
                    return found
        finally:
            timer.cancel()
        raise self._problem(f"no answer within {round(within_s, 1):g} s" if late.is_set() else "")

    def _send(self, value: Any) -> None:
        with suppress(OSError):  # a dead ssh: its own words are told when the answer is missed
            if self.process.stdin:
                self.process.stdin.write(json.dumps(value).encode() + b"\n")
                self.process.stdin.flush()

    def _problem(self, silence: str) -> ThunderError:
        where, status = f"host {self.host}", self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        if not silence and status == 127 and said and "no python3" in said[-1]:
            return ThunderError("has no Python", where, "install Python 3.11 or newer there")
        words = silence or printable(" | ".join(said[-3:])) or "no message"
        if not is_local(self.host) and (silence or status == SSH_FAILED):
            hint = f"make `ssh {self.host} true` work without a password"
            if "Host key verification failed" in words:
                hint = f"find out why its key changed; if rightly, `ssh-keygen -R {self.host}`, then `ssh {self.host}`"
            return UnreachableError(f"ssh cannot reach it: {words}", where, hint)
        return ThunderError(f"the program that asks it ended: {words}", where, "see that Python 3.9 or newer is there")

    def close(self) -> None:
        """End the program, on the host too."""
        with suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()  # the host sees the end of its input
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.errors.close()


def machine(ssh: str) -> str:
    """The name of a host's session: this machine has one, whatever [clusters] calls it."""
    return HERE if is_local(ssh) else ssh


def _program(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """[(module, its source)]; the packages around them are empty, so that imports find what was sent and no other."""
    folder = Path(__file__).parent
    parts = [(f"thunder_train.agent.{part}", (folder / f"{part}.py").read_text(encoding="utf-8")) for part in names]
    return [("thunder_train", ""), ("thunder_train.agent", ""), *parts]


@contextmanager
def opened(hosts: list[str], where: Project, parts: tuple[str, ...] = PARTS) -> Iterator[dict[str, Session]]:
    """Sessions with all hosts, closed at the end whatever happens."""
    sessions: dict[str, Session] = {}
    try:
        for host in hosts:
            sessions[host] = Session(host, where, parts)
        yield sessions
    finally:
        together(sessions, Session.close)


def together(sessions: Mapping[str, Session], act: Any) -> dict[str, Any]:
    """{host: act(session)}, all hosts at once; an act's ThunderError stands in its answer's place."""

    def one(session: Session) -> Any:
        try:
            return act(session)
        except ThunderError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(sessions))) as pool:
        try:
            return dict(zip(sessions, pool.map(one, sessions.values()), strict=True))
        except BaseException:  # Ctrl-C: the threads wait for answers, and the pool for the threads
            for session in sessions.values():
                session.process.kill()
            raise
