"""An external gate: a command that gets proposals as JSON lines on its stdin and answers a verdict for each.

docs/gate.md tells the protocol. Its verdicts are final, so anything but one whole and orderly answer is an error.
"""

import contextlib
import math
import os
import selectors
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from thunder_train import ThunderError, raise_some
from thunder_train.core import files, process
from thunder_train.core.text import printable

FIELDS = {"id": "id", "partition": "partition", "hypothesis": "asr_text", "proposal": "adapter"}
"""All that a gate may see of a prediction, besides telemetry: no field that knows the reference is here."""
TELEMETRY = frozenset(
    {"ctc_confidence", "mean_entropy", "velocity", "jerk", "commitment", "uncertainty", "transition_pressure"}
    | {"recovery_margin", "phase_stiffness", "novelty", "stability"}
)
"""Numbers of the recogniser that a gate may see, by the names of the row contract."""
VERDICTS = ("accept", "reject")
REASON_CHARACTERS = 500
ROW_BYTES = 4096
"""Of an answer, on average; with SPARE_BYTES more for all of them, anything beyond is a flood."""
SPARE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16
LAST_WORDS_BYTES = 4096
LAST_WORDS = 10
"""Lines of a gate's stderr that an error shows."""
GRACE_S = 2
"""Seconds between SIGTERM and SIGKILL."""
END_POLL_S = 0.02
HINT = "mend the gate; docs/gate.md tells what it must answer"


@dataclass(frozen=True)
class Answer:
    """A gate's word on one row. The witness is as given, its format not yet checked."""

    verdict: str
    reason: str
    witness: Any


@dataclass
class _Talk:
    """What was said between us and a gate, so far."""

    unsent: memoryview
    said: bytearray = field(default_factory=bytearray)
    last_words: bytes = b""
    failure: str = ""


class _Pipes(NamedTuple):
    """A gate's ends of our pipes."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]


def request(prediction: dict[str, Any]) -> dict[str, Any]:
    """What a gate is told of a prediction: the fields of FIELDS, and finite numbers named in TELEMETRY."""
    asked: dict[str, Any] = {name: prediction[source] for name, source in FIELDS.items()}
    told = prediction.get("telemetry") or {}
    numbers = {name: told[name] for name in sorted(TELEMETRY & set(told)) if _is_number(told[name])}
    return {**asked, "telemetry": numbers} if numbers else asked


def programs(command: tuple[str, ...]) -> dict[str, str]:
    """The words of a command that are files of the project, with their sha256; interpreters elsewhere are not."""
    own = [word for word in command if files.is_inside(word) and os.path.isfile(word) and os.access(word, os.R_OK)]
    return {word: files.sha256(word) for word in own if Path(word).resolve().is_relative_to(Path.cwd().resolve())}


def ask(command: tuple[str, ...], timeout_s: float, requests: list[dict[str, Any]], where: str) -> dict[str, Answer]:
    """id -> answer, one for every request, by running the command once without a shell.

    timeout_s: longest time in which it may neither take a row nor answer one.  where: what an error names.
    Raises ThunderError for every way of not answering each row exactly once, then ending with status 0.
    """
    if not requests:
        return {}
    where = f"{where}: `{shlex.join(command)}`"
    talk = _Talk(unsent=memoryview("".join(map(files.json_line, requests)).encode()))
    _run(command, timeout_s, talk, SPARE_BYTES + ROW_BYTES * len(requests), where)
    names = [each["id"] for each in requests]
    answers, problems = _answers(talk, set(names), where)
    missing = [name for name in names if name not in answers]
    if talk.failure:
        judged = f"; {len(names) - len(missing)} of {len(names)} rows were judged"
        what = talk.failure + judged + (f", {missing[0]!r} was not" if missing else "")
        raise ThunderError(what, where, HINT + _last_words(talk.last_words))
    if missing:
        what = f"gave no verdict for {len(missing)} of {len(names)} rows, first {missing[0]!r}"
        problems.append(ThunderError(what, where, HINT + _last_words(talk.last_words)))
    raise_some(problems)
    return answers


def _run(command: tuple[str, ...], timeout_s: float, talk: _Talk, most_bytes: int, where: str) -> None:
    """Start the command, talk with it, and see it end, whatever happens to us."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with contextlib.ExitStack() as stack:
        try:
            child = stack.enter_context(process.started(command, GRACE_S, **pipes))
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            what = f"cannot be started: {getattr(error, 'strerror', None) or error}"
            raise ThunderError(what, where, "install it, or mend the command") from None
        _converse(child, timeout_s, talk, most_bytes)


def _converse(child: "subprocess.Popen[bytes]", timeout_s: float, talk: _Talk, most_bytes: int) -> None:
    """Write and read at once, for either pipe may be full, until the gate has closed its stdout and ended."""
    pipes, last = _pipes(child), time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_WRITE if pipe is pipes.stdin else selectors.EVENT_READ)
        while not pipes.stdout.closed or child.poll() is None:
            left = max(0.0, last + timeout_s - time.monotonic())
            # Its end itself wakes no selector, so it is looked for.
            ready = selector.select(min(left, END_POLL_S) if pipes.stdout.closed else left)
            # Progress: rows taken and answers given; a gate that only complains makes none.
            if sum([_serve(key.fileobj, pipes, selector, talk) for key, _ in ready]):
                last = time.monotonic()
            elif not left:
                talk.failure = f"was silent for {timeout_s:g} s"
                return
            if len(talk.said) > most_bytes:
                talk.failure = f"wrote more than {most_bytes} bytes"
                return
        if not pipes.stderr.closed:
            _serve(pipes.stderr, pipes, selector, talk)
    if child.returncode:
        talk.failure = process.failure(child.returncode)


def _serve(pipe: Any, pipes: _Pipes, selector: selectors.BaseSelector, talk: _Talk) -> int:
    """Move what one pipe takes or gives, and close it at its end. Bytes of rows and answers moved."""
    try:
        if pipe is pipes.stdin:
            moved = os.write(pipe.fileno(), talk.unsent[:CHUNK_BYTES])
            talk.unsent = talk.unsent[moved:]
            is_over = not talk.unsent
        else:
            said = os.read(pipe.fileno(), CHUNK_BYTES)
            moved, is_over = len(said) * (pipe is pipes.stdout), not said
            if pipe is pipes.stdout:
                talk.said += said
            else:
                talk.last_words = (talk.last_words + said)[-LAST_WORDS_BYTES:]
    except BlockingIOError:
        return 0
    except BrokenPipeError:  # it reads no further; its answers tell whether that is right
        moved, is_over = 0, True
    if is_over:
        selector.unregister(pipe)
        pipe.close()
    return moved


def _pipes(child: "subprocess.Popen[bytes]") -> _Pipes:
    return _Pipes(*cast(tuple[IO[bytes], IO[bytes], IO[bytes]], (child.stdin, child.stdout, child.stderr)))


def _answers(talk: _Talk, names: set[str], where: str) -> tuple[dict[str, Answer], list[ThunderError]]:
    """The answers by id, a doubled or faulty one among them, and what is wrong with them."""
    answers: dict[str, Answer] = {}
    problems = []
    for number, line in enumerate(bytes(talk.said).removesuffix(b"\n").split(b"\n") if talk.said else [], start=1):
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
    """Id and answer of a line, and what is wrong with it, or ""."""
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


def _last_words(said: bytes) -> str:
    """The end of a gate's stderr, as lines below an error."""
    lines = said.decode(errors="replace").strip().splitlines()[-LAST_WORDS:]
    return "; it said:" + "".join(f"\n  {printable(line)}" for line in lines) if lines else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
