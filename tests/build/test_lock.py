"""One process changes a project at a time, whatever happens to the file that says so."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.build import lock

HOLD = "import sys, time; from pathlib import Path; from thunder_train.build import lock; "
HOLD += "sys.argv = ['/x/doit', 'train:smoke']; lock.take(Path('{}'), False); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """The folder of states of a project."""
    (tmp_path / "project").mkdir()
    yield tmp_path / "project/.thunder"
    lock.release(tmp_path / "project/.thunder")


@pytest.fixture
def other(state: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another doit that builds there."""
    argv = [sys.executable, "-c", HOLD.format(state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "held\n" == process.stdout.readline()
        yield process
        process.kill()


def text(error: "pytest.ExceptionInfo[ThunderError]") -> str:
    """What a person reads."""
    return str(error.value)


def harm(kind: str, state: Path) -> None:
    """Do something to the file of a lock that is held."""
    path = state / "lock"
    if kind == "the folder deleted":
        path.unlink()
        state.rmdir()
    elif kind != "as it was":
        path.unlink()
    if kind == "replaced":
        path.write_text("x")
    if kind == "a folder":
        path.mkdir()
    if kind == "a pipe":
        os.mkfifo(path)
    if kind == "a link":
        path.symlink_to(state.parent / "elsewhere")


KINDS = ["as it was", "deleted", "replaced", "a folder", "a pipe", "a link", "the folder deleted"]


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_process_is_refused(state: Path, kind: str) -> None:
    """
    The lock is on the project's folder; the file only tells who has it.
    """
    harm(kind, state)

    with pytest.raises(ThunderError, match="builds here; let it end, or end it"):
        lock.take(state, waits=False)
    assert not (state.parent / "elsewhere").exists()


def test_the_other_process_is_named(state: Path, other: "subprocess.Popen[str]") -> None:
    """
    With the words of its command.
    """
    with pytest.raises(ThunderError) as caught:
        lock.take(state, waits=False)

    who = f"another doit (process {other.pid}: 'doit train:smoke') builds here"
    assert f"{state.parent}: {who}; let it end, or end it" == text(caught)


def test_a_killed_process_holds_nothing(state: Path, other: "subprocess.Popen[str]") -> None:
    """
    The system drops its lock; the file still names it.
    """
    other.kill()
    other.wait()

    assert not lock.take(state, waits=False)
    assert f'"process": {os.getpid()}' in (state / "lock").read_text()
    assert not lock.take(state, waits=False)  # the same process again
    lock.release(state)
    assert "" == (state / "lock").read_text()


def test_a_process_that_waits_begins_when_the_other_ends(
    state: Path, other: "subprocess.Popen[str]", capfd: pytest.CaptureFixture[str]
) -> None:
    """
    It says for whom it waits, on stderr: stdout may be JSON.
    """
    ender = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {other.pid}"])
    began = time.monotonic()

    assert lock.take(state, waits=True)
    ender.wait()
    assert time.monotonic() - began > 0.4
    expected = f"another doit (process {other.pid}: 'doit train:smoke') builds here; waiting for it to end\n"
    assert ("", expected) == capfd.readouterr()


@pytest.mark.usefixtures("other")
def test_a_doit_that_the_other_has_started_does_not_wait_for_it(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each would wait for the other for ever.
    """
    monkeypatch.setenv(lock.VARIABLE, str(state))

    with pytest.raises(ThunderError, match="builds here, and has started this one; a command that it runs cannot"):
        lock.take(state, waits=True)


@pytest.mark.parametrize("number", lock.WITHOUT_LOCKS)
def test_a_file_system_without_locks_is_told(state: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    NFS without a lock daemon, for one: two builds could not be kept apart.
    """

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)

    with pytest.raises(ThunderError, match="this file system has no locks, so two builds could not be kept apart"):
        lock.take(state, waits=True)


def test_a_file_system_that_locks_no_folder_locks_the_file(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    NFS locks only what is open for writing.
    """
    locked: list[int] = []

    def only_files(descriptor: int, *_: object) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(9, "Bad file descriptor")
        locked.append(descriptor)

    monkeypatch.setattr("fcntl.flock", only_files)

    assert not lock.take(state, waits=True)
    assert 1 == len(locked)
