"""An external gate: a command that reads proposals as JSON lines and writes a verdict for each.

Input: predictions and the recipe's command.  Output: an answer for every row.  The verdicts are final, so any missing
or malformed answer is an error.  docs/gate.md describes the protocol.
"""

import contextlib
import math
import os
import selectors
import shlex
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from thunder_train import ThunderError, raise_some
from thunder_train.config.evaluate import Gate
from thunder_train.core import files, process
from thunder_train.core.text import printable

FIELDS = {"id": "id", "partition": "partition", "hypothesis": "asr_text", "proposal": "adapter"}
"""Field of a request -> field of a prediction. With telemetry, all that a gate may see: nothing from the reference."""
VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_NUMERIC", "LC_TIME")
"""Environment variables that every gate gets. No other one is passed on, unless the recipe names it."""
VERDICTS = ("accept", "reject")
REASON_CHARACTERS = 500
ROW_BYTES, SPARE_BYTES = 4096, 1 << 20
"""All answers together may have ROW_BYTES for each row and SPARE_BYTES more, which bounds the memory they use."""
CHUNK_BYTES = 1 << 16
STDERR_BYTES, STDERR_LINES = 4096, 10
"""The end of a gate's stderr that is kept, and the lines of it that an error shows."""
GRACE_S = 2
"""Seconds between SIGTERM and SIGKILL."""
END_POLL_S = 0.02
"""Seconds between two checks whether a gate that has closed its stdout has ended."""
HINT = "correct the gate; docs/gate.md describes the answers it must give"


@dataclass(frozen=True)
class Answer:
    """A gate's answer for one row. The format of the witness is not checked yet."""

    verdict: str
    reason: str
    witness: Any


@dataclass
class _Exchange:
    """The requests that are still to be sent to a gate, and its output so far."""

    unsent: memoryview
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytes = b""
    """The last STDERR_BYTES of it."""
    failure: str = ""
    """Why the gate failed as a process; "" if it did not."""


class _Pipes(NamedTuple):
    """The pipes to a gate's standard streams."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]


def request(prediction: dict[str, Any], telemetry: Collection[str]) -> dict[str, Any]:
    """The request for one prediction: its fields of FIELDS, and its finite numbers of the given names.

    telemetry: names of what a gate may see of it, dotted where one lies in another, as `rover.score`; each counts for
    all below it, and a plain one wherever it lies.
    """
    fields: dict[str, Any] = {name: prediction[source] for name, source in FIELDS.items()}
    given, names = sorted(_numbers(prediction.get("telemetry") or {})), frozenset(telemetry)
    numbers = {name: value for name, value in given if not names.isdisjoint(_names_of(name))}
    return {**fields, "telemetry": numbers} if numbers else fields


def _numbers(telemetry: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(dotted name, finite number) of each number of telemetry, at any depth."""
    for name, value in telemetry.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
        elif _is_number(value):
            yield prefix + name, value


def _names_of(dotted: str) -> list[str]:
    """Names under which a member may be allowed: `a.b.c` -> [`a`, `a.b`, `a.b.c`, `c`]"""
    parts = dotted.split(".")
    return [*(".".join(parts[: end + 1]) for end in range(len(parts))), parts[-1]]


def programs(command: tuple[str, ...], root: Path = Path()) -> dict[str, str]:
    """Argument -> sha256, for each argument that is a file of the project. An interpreter elsewhere is not hashed."""
    paths = {word: root / word for word in command if files.is_inside(word)}
    readable = {word: path for word, path in paths.items() if os.path.isfile(path) and os.access(path, os.R_OK)}
    home = root.resolve()
    return {word: files.sha256(path) for word, path in readable.items() if path.resolve().is_relative_to(home)}


def environment(named: tuple[str, ...]) -> dict[str, str]:
    """The environment of a gate: of this process's variables those of VARIABLES and those that the recipe names."""
    return {name: os.environ[name] for name in (*VARIABLES, *named) if name in os.environ}


def ask(gate: Gate, requests: list[dict[str, Any]], where: str) -> dict[str, Answer]:
    """Run the gate's command once, without a shell: id -> answer, one for every request.

    where: the place that errors name.  Raises ThunderError unless the gate answers each row exactly once and ends with
    status 0.
    """
    if not requests:
        return {}
    where = f"{where}: `{shlex.join(gate.command)}`"
    exchange = _Exchange(unsent=memoryview("".join(map(files.json_line, requests)).encode()))
    _run(gate, exchange, SPARE_BYTES + ROW_BYTES * len(requests), where)
    names = [each["id"] for each in requests]
    answers, problems = _answers(exchange.stdout, set(names), where)
    missing = [name for name in names if name not in answers]
    hint = HINT + _stderr_lines(exchange.stderr)
    if exchange.failure:
        what = f"{exchange.failure}; {len(names) - len(missing)} of {len(names)} rows were judged"
        raise ThunderError(what + (f", {missing[0]!r} was not" if missing else ""), where, hint)
    if missing:
        what = f"gave no verdict for {len(missing)} of {len(names)} rows, first {missing[0]!r}"
        problems.append(ThunderError(what, where, hint))
    raise_some(problems)
    return answers


def _run(gate: Gate, exchange: _Exchange, most_bytes: int, where: str) -> None:
    """Run the command and fill `exchange`. The command has ended on return, also after an error or a signal."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    variables = environment(gate.env)
    with contextlib.ExitStack() as stack:
        try:
            child = stack.enter_context(process.started(gate.command, GRACE_S, env=variables, **pipes))
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            what = f"cannot be started: {getattr(error, 'strerror', None) or error}"
            raise ThunderError(what, where, "install it, or correct the command") from None
        _communicate(child, gate.timeout_s, exchange, most_bytes)


def _communicate(child: "subprocess.Popen[bytes]", timeout_s: float, exchange: _Exchange, most_bytes: int) -> None:
    """Write and read until the gate has closed its stdout and ended, or failed; any pipe may be full meanwhile."""
    pipes, last_progress = _pipes(child), time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE if pipe is pipes.stdin else selectors.EVENT_READ)
        while not pipes.stdout.closed or child.poll() is None:
            left = max(0.0, last_progress + timeout_s - time.monotonic())
            # The end of a process does not wake a selector, so it is polled for.
            ready = selector.select(min(left, END_POLL_S) if pipes.stdout.closed else left)
            # Only rows read and answers written count as progress, not output on stderr.
            if sum([_serve(key.fileobj, pipes, selector, exchange) for key, _ in ready]):
                last_progress = time.monotonic()
            elif not left:
                exchange.failure = f"made no progress for {timeout_s:g} s"
                return
            if len(exchange.stdout) > most_bytes:
                exchange.failure = f"wrote more than {most_bytes} bytes"
                return
        if not pipes.stderr.closed:
            _serve(pipes.stderr, pipes, selector, exchange)
    if child.returncode:
        exchange.failure = process.failure(child.returncode)


def _serve(pipe: Any, pipes: _Pipes, selector: selectors.BaseSelector, exchange: _Exchange) -> int:
    """Write to or read from one ready pipe, and close it at its end. Returns the bytes of rows and answers moved."""
    try:
        if pipe is pipes.stdin:
            moved = os.write(pipe.fileno(), exchange.unsent[:CHUNK_BYTES])
            exchange.unsent = exchange.unsent[moved:]
            is_over = not exchange.unsent
        else:
            chunk = os.read(pipe.fileno(), CHUNK_BYTES)
            moved, is_over = len(chunk) * (pipe is pipes.stdout), not chunk
            if pipe is pipes.stdout:
                exchange.stdout += chunk
            else:
                exchange.stderr = (exchange.stderr + chunk)[-STDERR_BYTES:]
    except BlockingIOError:
        return 0
    except BrokenPipeError:  # the gate reads no further; whether that is an error depends on its answers
        moved, is_over = 0, True
    if is_over:
        selector.unregister(pipe)
        pipe.close()
    return moved


def _pipes(child: "subprocess.Popen[bytes]") -> _Pipes:
    return _Pipes(*cast(tuple[IO[bytes], IO[bytes], IO[bytes]], (child.stdin, child.stdout, child.stderr)))


def _answers(stdout: bytearray, names: set[str], where: str) -> tuple[dict[str, Answer], list[ThunderError]]:
    """(id -> answer, also a repeated or malformed one; an error for each line that is wrong)."""
    answers: dict[str, Answer] = {}
    problems = []
    for number, line in enumerate(bytes(stdout).removesuffix(b"\n").split(b"\n") if stdout else [], start=1):
        name, answer, fault = _answer(line)
        if not fault and name not in names:
            fault = f"row {name[:80]!r} was not asked about"
        elif not fault and name in answers:
            fault = f"row {name!r} is answered twice"
        if name in names:
            answers[name] = answer
        if fault:
            problems.append(ThunderError(f"line {number} of its answers: {fault}", where, HINT))
    return answers, problems


def _answer(line: bytes) -> tuple[str, Answer, str]:
    """(id, answer, what is wrong with the line or "")."""
    nothing = Answer("", "", None)
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "", nothing, f"is not JSON: {error}"
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return "", nothing, "is not an object with an id"
    name, verdict, reason = value["id"], value.get("verdict"), value.get("reason", "")
    answer = Answer(str(verdict), str(reason), value.get("witness"))
    if verdict not in VERDICTS:
        return name, answer, f"verdict {str(verdict)[:80]!r} of row {name[:80]!r} is not {' or '.join(VERDICTS)}"
    if not isinstance(reason, str) or len(reason) > REASON_CHARACTERS or not reason.isprintable():
        return name, answer, f"reason of row {name[:80]!r} is not a line of at most {REASON_CHARACTERS} characters"
    return name, answer, ""


def _stderr_lines(stderr: bytes) -> str:
    """The last lines of a gate's stderr, to be appended to an error."""
    lines = stderr.decode(errors="replace").strip().splitlines()[-STDERR_LINES:]
    return "; its last output on stderr:" + "".join(f"\n  {printable(line)}" for line in lines) if lines else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
