"""The only protocol to a host: our program goes over ssh to the host's Python and answers questions, a JSON line each.

One ssh connection per host for all its questions. The host needs Python 3.9, neither the project nor its environment.
The program is main.py with the modules it imports, or another one with `main()` as its last part (mpi_holder.py).
"""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from thunder_train import ThunderError, raise_all
from thunder_train.agent import answers
from thunder_train.agent.main import ANSWER
from thunder_train.config.fields import FORMS, SSH_NAME
from thunder_train.config.project import is_local
from thunder_train.core import privacy, process, ssh
from thunder_train.core.exit_codes import SSH_FAILED
from thunder_train.core.text import printable

PARTS = ("interfaces", "link", "files", "mac", "main")
"""Modules of agent/ that make up the program, each after those it imports."""
ANSWER_WITHIN_S = 30.0
END_WITHIN_S = 2.0
"""Seconds to wait for the end of a program whose input or output has ended."""
REMOTE = (
    "exec /bin/sh -c '"
    "IFS= read -r folder && IFS= read -r python || exit 1; "
    'if cd -- "$folder" 2>/dev/null && "$python" -I -c "" </dev/null >/dev/null 2>&1; then '
    'exec "$python" -u -c "$0"; fi; '
    'if command -v python3 >/dev/null 2>&1; then exec python3 -u -c "$0"; fi; echo no python3 >&2; exit 127'
    "' '{start}'"
)
"""Command on the host, the same for every configuration and with no character that a login shell reads in its own way:
what differs (the project's folder and its interpreter) are the first two lines of stdin."""
START = (
    "import sys; sys.path = list(filter(None, sys.path)); "
    "import json,types; exec(json.loads(sys.stdin.buffer.readline()))"
)
"""Runs LOAD, the next line of stdin: the program itself never stands on a command line. A random.py in the folder where
it starts does not stand in for Python's own."""
LOAD = """
for name, text in json.loads(sys.stdin.buffer.readline()):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""
PYTHONS = "Python 3.11 to 3.14"
CHECK_HOST = "check that host"
CHATTER_BYTES = 1 << 20
"""Most that a host may print beside its answers."""
ERROR_BYTES = 1 << 13
"""The end of stderr that is kept."""
SILENT_S = 60.0
"""Seconds without progress after which a transfer of files is given up."""
PART_BYTES = 1 << 17
READER_END_S = 0.2
LOST = re.compile(
    "not responding|closed by|Connection reset|Broken pipe|client_loop|packet_write_wait|ssh_dispatch_run_fatal|"
    "Read from remote host|kex_exchange_identification"
)
"""ssh's messages about a connection that had been made, of OpenSSH 7 to 10 on Linux and macOS."""
ABSENT = re.compile(
    "timed out|No route to host|Network is unreachable|Host is down|Connection refused|Could not resolve hostname|"
    "Name or service not known|nodename nor servname"
)
"""ssh's messages about a host that it did not find: no key or password matters yet."""

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


class Limit:
    """A context that kills a process when too much time passes in it without `renew`."""

    def __init__(self, target: "subprocess.Popen[bytes]", within_s: float) -> None:
        self.target, self.within_s, self.is_late = target, within_s, False
        self._ended, self._until_s = threading.Event(), 0.0

    def __enter__(self) -> "Limit":
        self.renew()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def renew(self) -> None:
        """Begin the time anew."""
        self._until_s = time.monotonic() + self.within_s

    def _watch(self) -> None:
        while not self._ended.wait(max(0.0, self._until_s - time.monotonic())):
            if time.monotonic() >= self._until_s:
                self.is_late = True
                process.signal_group(self.target, signal.SIGKILL)
                return


class Session:
    """The running program on one host. For one thread at a time."""

    def __init__(self, host: str, project: Project, parts: tuple[str, ...] = PARTS) -> None:
        self.host = host
        self.transfers: set[subprocess.Popen[bytes]] = set()
        """Other commands that run for this host now; cluster/transfer.py starts them."""
        self._chatter, self._errors, self._has_answered = 0, b"", False
        local = [sys.executable, "-u", "-c", START]
        argv = local if is_local(host) else ssh.argv(host, REMOTE.format(start=START))
        place = "" if is_local(host) else f"{one_line(project.folder)}\n{one_line(project.python)}\n"
        try:
            self.process = process.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError as error:
            raise ThunderError(f"{error.filename} is not installed here", where=f"host {host}") from error
        self._output = cast(BufferedReader, self.process.stdout)
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self._write(place.encode())
        self._send(LOAD)
        self._send(_program(parts))

    def ask(self, within_s: float = ANSWER_WITHIN_S, **question: Any) -> dict[str, Any]:
        """The answer to a question of the program: `ask` names it, the others are its arguments.

        Raises ThunderError when the host has failed, answers otherwise than agent/answers.py says, or not within the
        time.
        """
        with Limit(self.process, within_s) as limit:
            return self._exchange(question, limit)

    def send(self, question: Mapping[str, Any], body: Iterable[bytes], within_s: float = SILENT_S) -> dict[str, Any]:
        """The answer to a question that bytes follow. within_s: for each part of them."""
        with Limit(self.process, within_s) as limit:
            return self._exchange(question, limit, body)

    def receive(self, question: Mapping[str, Any], count: int, within_s: float = SILENT_S) -> Iterator[bytes]:
        """The bytes, exactly count of them, that follow the answer to a question. within_s: for each part."""
        with Limit(self.process, within_s) as limit:
            announced = self._exchange(question, limit)["bytes"]
            if announced != count:
                raise self._unexpected(f"offers {announced} bytes in the place of {count}")
            while count:
                part = self._output.read1(min(count, PART_BYTES))
                if not part:
                    raise self._problem(limit)
                limit.renew()
                count -= len(part)
                yield part

    def _exchange(self, question: Mapping[str, Any], limit: Limit, body: Iterable[bytes] = ()) -> dict[str, Any]:
        self._send(question)
        for part in body:
            if not self._write(part):
                break  # the host has refused or failed, and the answer says why
            limit.renew()
        line = self._answer_line()
        if not line.endswith(b"\n"):
            raise self._problem(limit)
        try:
            answer = answers.checked(question["ask"], line)
        except ValueError as error:
            raise self._unexpected(f"its answer to `{question['ask']}` is not one: {error}") from None
        if "failed" in answer:
            is_protected = privacy.NOT_PERMITTED in answer["failed"]
            hint = (
                f"if it is a Mac: {privacy.PROTECTED}" if is_protected else "check the disk space and permissions there"
            )
            raise ThunderError(answer["failed"], f"host {self.host}", hint)
        return answer

    def _answer_line(self) -> bytes:
        """The next answer without its prefix. Without an end of line: the host has ended, or never ends the line."""
        while True:
            line = self._output.readline(answers.LINE_BYTES)
            _, mark, answer = line.partition(ANSWER.encode())  # a login shell's greeting may lack its end of line
            if mark and not line.endswith(b"\n") and len(line) == answers.LINE_BYTES:
                raise self._unexpected("its answer is too long")
            if mark or not line:
                self._has_answered |= bool(mark)
                return answer
            self._chatter += len(line)
            if self._chatter > CHATTER_BYTES:
                raise self._unexpected("prints without end, and not what it was asked")

    def _unexpected(self, what: str) -> ThunderError:
        """The error for a host that does not keep to the protocol; nothing more is read from it."""
        process.signal_group(self.process, signal.SIGKILL)
        return ThunderError(what, f"host {self.host}", CHECK_HOST)

    def _send(self, value: Any) -> None:
        self._write(json.dumps(value).encode() + b"\n")

    def _write(self, data: bytes) -> bool:
        """Whether the bytes went out; if ssh has ended, its message is reported when the answer is missing."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.write(data)
                self.process.stdin.flush()
                return True
        return False

    def _read_errors(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed at the end
            while part := cast(BufferedReader, self.process.stderr).read1(ERROR_BYTES):
                self._errors = (self._errors + part)[-ERROR_BYTES:]

    def _problem(self, limit: Limit) -> ThunderError:
        """Why there was no answer. limit: the time that it had."""
        where = f"host {self.host}"
        timeout = f"no answer within {round(limit.within_s, 1):g} s" if limit.is_late else ""
        try:
            status = self.process.wait(timeout=END_WITHIN_S)
        except subprocess.TimeoutExpired:
            return self._unexpected("closed its output")
        self._reader.join(timeout=END_WITHIN_S)
        lines = self._errors.decode(errors="replace").strip().splitlines()
        if not timeout and status == 127 and lines and "no python3" in lines[-1]:
            return ThunderError("has no Python", where, f"install {PYTHONS} there")
        message = timeout or printable(" | ".join(lines[-3:])) or "no message"
        if not is_local(self.host) and (timeout or status == SSH_FAILED):
            return ssh_problem(self.host, message, self._has_answered)
        hint = "check that Python 3.9 or newer is installed there"
        return ThunderError(f"the program that answers for it ended: {message}", where, hint)

    def kill(self) -> None:
        """End the program and all transfers at once; threads that wait for them go on."""
        process.signal_group(self.process, signal.SIGKILL)
        for transfer in list(self.transfers):
            process.signal_group(transfer, signal.SIGTERM)

    def close(self) -> None:
        """End the program, on the host too."""
        with contextlib.suppress(OSError):
            if self.process.stdin:
                self.process.stdin.close()  # the program on the host reads the end of its input
        try:
            self.process.wait(timeout=END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.signal_group(self.process, signal.SIGKILL)
            self.process.wait()
        self._output.close()
        self._reader.join(timeout=READER_END_S)
        if self.process.stderr and not self._reader.is_alive():  # under ControlPersist a part of ssh keeps it open
            self.process.stderr.close()


def one_line(value: str) -> str:
    """A folder or a program of a configuration, as a line for a host. Raises ThunderError for more than a line."""
    if printable(value) != value:
        raise ThunderError(
            f"{value!r} has a character that cannot be printed", "[clusters]", "correct folder and python"
        )
    return value


def ssh_problem(host: str, message: str, was_connected: bool = False) -> UnreachableError:
    """The error for a failure of ssh itself. message: the last lines that it printed.

    was_connected: whether the host had answered before; then no password is missing, whatever ssh says.
    """
    what, hint = f"ssh cannot reach it: {message}", f"make `ssh {host} true` work without a password"
    if "Host key verification failed" in message:
        hint = f"find out why its key changed; if rightly, `ssh-keygen -R {host}`, then `ssh {host}`"
    elif was_connected or LOST.search(message):
        what = f"the connection was lost: {message}"
        hint = "check that it is on the network, then run the command again: it continues where it stopped"
    elif ABSENT.search(message):
        hint = (
            f"check that it is on, on this network, and lets you in: `ssh {host} true`; on a Mac turn on Remote Login"
        )
    if setting := privacy.hint(message):
        hint = f"{hint}; {setting}"
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
