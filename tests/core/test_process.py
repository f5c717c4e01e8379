"""Child processes: each ends with all that it started, whatever happens to us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.processes import alive
from tests.helpers.project_copy import wait_for
from thunder_train import ThunderError
from thunder_train.core import process

WITH_CHILD = ["sh", "-c", "sleep 60 & echo $! > new; mv new child; wait"]
DEAF = ["sh", "-c", "trap '' TERM; echo $$ > new; mv new child; while :; do sleep 0.05; done"]


def test_a_failed_command_is_named_with_its_status() -> None:
    """
    A signal is no exit status, and reads as what it is.
    """
    for script, what in (("exit 3", "ended with status 3"), ("kill -9 $$", "was ended by signal 9")):
        with pytest.raises(ThunderError) as caught:
            process.tool(["sh", "-c", script], where="probe", hint="read above")

        assert f"probe: {what}; read above" == str(caught.value)


def test_our_own_program_gets_our_interpreter_and_a_pipe_as_stdin(tmp_path: Path) -> None:
    """
    The end of that pipe is our end, which the program watches for.
    """
    script = f'test -p /dev/stdin && test "$THUNDER_STDIN" = 1 && echo "$THUNDER_PYTHON" > {tmp_path}/python'
    process.command(["sh", "-c", script], where="probe", hint="")

    assert f"{sys.executable}\n" == (tmp_path / "python").read_text()


def test_an_error_ends_a_child_and_its_children(tmp_path: Path) -> None:
    """
    They are of its session, so one signal reaches all.
    """

    def fail() -> None:
        wait_for((tmp_path / "child").exists)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), process.started(WITH_CHILD, cwd=tmp_path) as child:
        fail()

    assert -signal.SIGTERM == child.returncode
    wait_for(lambda: not alive(tmp_path / "child"), seconds=2)
    assert not process._running


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """
    A process inside a broken driver hears nothing else.
    """
    start_s = time.monotonic()
    with process.started(DEAF, grace_s=0.2, cwd=tmp_path) as child:
        wait_for((tmp_path / "child").exists)

    assert -signal.SIGKILL == child.returncode
    assert time.monotonic() - start_s < 10


def test_pipes_are_closed_though_the_child_has_gone() -> None:
    """
    Text that it did not read must not hide the error that ended it.
    """
    with process.started(["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.wait()
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"late")

    assert child.stdin.closed
    assert child.stdout.closed


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_a_group_that_has_just_ended_takes_no_signal(monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """
    Linux and macOS say so with different errors.
    """

    def killpg(group: int, number: int) -> None:
        raise error

    child = process.start(["true"])
    monkeypatch.setattr(os, "killpg", killpg)
    process.signal_group(child, signal.SIGTERM)

    assert 0 == child.wait()


def test_a_signal_to_us_asks_every_child_to_end() -> None:
    """
    The handler runs in the main thread alone, and other threads may wait for children too.
    """
    with process.started(["sleep", "60"]) as child:
        with pytest.raises(KeyboardInterrupt):
            process.interrupt()
        assert -signal.SIGTERM == child.wait(timeout=10)
