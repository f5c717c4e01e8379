"""How a command ends when a person, a signal, a pipe or the machine stops it: one line and a status, no traceback."""

import errno
import io
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any, TextIO

from thunder_train import ThunderError
from thunder_train.core import privacy, process, terminal
from thunder_train.core.exit_codes import SIGNAL

FAILED = 1
"""doit's status when a task has failed."""
USER_ERROR = 3
"""doit's status of an error before any task has run."""
FULL = 74
"""Status when the output cannot be written, as sysexits.h has it (EX_IOERR)."""
TOO_MANY = (errno.EMFILE, errno.ENFILE)


class OutputLost(KeyboardInterrupt):
    """Nobody reads the output any more, or its disk is full. Like Ctrl-C it passes every `except Exception`."""


class _Output(io.FileIO):
    """A standard stream that ends the command when it cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OutputLost from None
        except OSError as error:
            if error.errno == errno.EBADF:  # closed by the caller; bash has its script open there
                return len(data)
            raise OutputLost(error.strerror) from None


def run(main: Callable[[], int]) -> int:
    """The status of a command, whose signals, streams and errors this handles."""
    process.follow_signals()
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)
    terminal.guard()
    try:
        status = main()
        sys.stdout.flush()
        return status
    except OutputLost as lost:
        return _without_output(str(lost))
    except KeyboardInterrupt as interrupt:
        number = next((each for each in interrupt.args if isinstance(each, int)), signal.SIGINT)
        return _say("doit: interrupted", SIGNAL + number)
    except ThunderError as error:
        return _say(in_form(error, "ERROR: "), USER_ERROR)
    except (OSError, sqlite3.Error, RecursionError, MemoryError) as error:
        return _say(f"ERROR: {in_words(error)}", USER_ERROR)


def in_form(error: ThunderError, start: str = "") -> str:
    """An error that ends a command with USER_ERROR: JSON where --json was given, else its text after `start`."""
    return as_json(error, USER_ERROR) if "--json" in sys.argv else f"{start}{error}"


def as_json(error: ThunderError, status: int) -> str:
    """An error for programs, on one line: each problem with its place and its cure. status: the command's."""
    problems = [{"what": each.what, "where": each.where, "hint": each.hint} for each in error.problems]
    return json.dumps({"schema": "thunder.error/1", "problems": problems, "status": status}, sort_keys=True)


def in_words(error: BaseException) -> str:
    """What the machine refused, on one line."""
    if isinstance(error, RecursionError):
        return "a file is nested too deeply"
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    what = getattr(error, "strerror", None) or str(error)
    where = getattr(error, "filename", None)
    hint = "; raise the limit, as with `ulimit -n 1024`" if getattr(error, "errno", None) in TOO_MANY else ""
    if setting := privacy.hint(str(error)):
        hint = f"; {setting}"
    return (f"{where}: {what}" if where else what) + hint


def _stream(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed by the caller
        return open(os.devnull, "w", encoding="utf-8")
    raw = io.BufferedWriter(_Output(descriptor, "w", closefd=False))
    is_by_line = stream.isatty() or descriptor == 2
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=is_by_line)


def _say(text: str, status: int) -> int:
    _end_signals()
    try:
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
    except OutputLost as lost:
        return _without_output(str(lost), status)
    return status


def _without_output(why: str, status: int = 0) -> int:
    """End without a word after a closed pipe, with one line on a stderr that still works after a full disk."""
    _end_signals()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # the interpreter flushes once more as it ends
    if not why:
        os.dup2(nothing, 2)
        return status or SIGNAL + signal.SIGPIPE
    try:
        print(f"doit: the output cannot be written: {why}", file=sys.stderr, flush=True)
    except OutputLost:
        os.dup2(nothing, 2)
    return status or FULL


def _end_signals() -> None:
    """A second Ctrl-C must not break into the last words of the first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
