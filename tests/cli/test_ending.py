"""A command that is stopped from outside ends with one line and a status, never with a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.core import privacy

SCRIPT = """
import errno, os, signal, sqlite3, sys, time
from thunder_train import ThunderError
from thunder_train.cli import ending
def main():
    {body}
    return 5
sys.exit(ending.run(main))
"""


def run(body: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """A program whose main is this body."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    argv = [sys.executable, "-c", SCRIPT.format(body=body)]
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(argv, env=environment, text=True, check=False, **(defaults | options))  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("pass", 5, ""),
        ("raise ThunderError('is missing', 'a.toml', 'add it')", 3, "ERROR: a.toml: is missing; add it\n"),
        ("raise PermissionError(13, 'Permission denied', 'x')", 3, "ERROR: x: Permission denied\n"),
        (  # as on a Mac
            "ending.privacy.hint.__defaults__ = (True,); raise PermissionError(1, 'Operation not permitted', 'x')",
            3,
            f"ERROR: x: Operation not permitted; {privacy.PROTECTED}\n",
        ),
        (
            "raise OSError(errno.EMFILE, 'Too many open files', 'x')",
            3,
            "ERROR: x: Too many open files; raise the limit, as with `ulimit -n 1024`\n",
        ),
        ("raise sqlite3.OperationalError('disk I/O error')", 3, "ERROR: disk I/O error\n"),
        ("raise RecursionError", 3, "ERROR: a file is nested too deeply\n"),
        ("raise MemoryError", 3, "ERROR: there is not enough memory\n"),
        ("raise ThunderError('\\x1b[2J')", 3, "ERROR: \N{REPLACEMENT CHARACTER}[2J\n"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 143, "doit: interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", 130, "doit: interrupted\n"),
        ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(9)", 129, "doit: interrupted\n"),
    ],
)
def test_each_kind_of_end(body: str, status: int, said: str) -> None:
    """
    Statuses as shells and doit have them.
    """
    done = run(body)

    assert (status, said) == (done.returncode, done.stderr)


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    """
    Whoever reports it needs the place.
    """
    assert "Traceback" in run("None.x").stderr


def test_a_closed_pipe_ends_the_command_without_a_word() -> None:
    """
    `doit list | head -1` is no failure of doit's; the status is that of a program which SIGPIPE ended.
    """
    reader, writer = os.pipe()
    os.close(reader)
    done = run("print('x' * 100000)", stdout=writer)
    os.close(writer)

    assert (128 + signal.SIGPIPE, "") == (done.returncode, done.stderr)


def test_a_closed_pipe_passes_what_catches_every_exception() -> None:
    """
    doit turns each Exception of an action into a failure with a traceback.
    """
    reader, writer = os.pipe()
    os.close(reader)
    body = "try: print('x' * 100000, flush=True)\n    except Exception: print('caught', file=sys.stderr)"
    done = run(body, stdout=writer)
    os.close(writer)

    assert (128 + signal.SIGPIPE, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_below_the_output_is_told() -> None:
    """
    The last lines are written when the program ends; that is told too.
    """
    with open("/dev/full", "w") as full:
        done = run("print('x')", stdout=full)

    assert 74 == done.returncode
    assert "doit: the output cannot be written: No space left on device\n" == done.stderr


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_is_none_at_all(closed: str) -> None:
    """
    `doit list >&-`.
    """
    number = {"stdout": 1, "stderr": 2}[closed]

    assert 5 == run(f"print('x', file=sys.{closed})", preexec_fn=lambda: os.close(number)).returncode


def test_ctrl_c_during_the_first_imports_says_nothing() -> None:
    """
    Nothing has begun that would have to be ended, and a traceback would help nobody.
    """
    code = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, *rest):
        if name == "thunder_train.cli.ending":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
runpy.run_module("thunder_train.cli", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (-signal.SIGINT, "", "") == (done.returncode, done.stdout, done.stderr)
