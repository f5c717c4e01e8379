"""What ./doit shows of an installation, and how one ends that fails, is killed or meets another."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.wrapper import environ, environments, fake_pip, fake_program, lines, lock, run


def test_packages_that_cannot_be_fetched_are_reported_and_tried_again(clone: Path) -> None:
    """
    Without a network or with a wrong hash the environment stays unfinished, and the next ./doit starts over.
    """
    lock(clone, f"rapidfuzz==3.14.6 --hash=sha256:{'0' * 64}\n")

    done = run(clone, PYTHON=sys.executable, PIP_NO_INDEX="1")

    assert 3 == done.returncode
    assert "./doit: the packages of requirements.lock could not be installed, see above" in done.stderr
    assert "connect and run ./doit again" in done.stderr
    assert ([], False) == (list(clone.glob(".venv-2*")), (clone / ".venv").exists())


@pytest.mark.parametrize(
    ("says", "reason", "cure"),
    [
        ("Retrying after connection broken by NewConnectionError", ": no package index was reached", "connect and run"),
        ("client error (Connect): invalid peer certificate: UnknownIssuer", ": the package index has", "PIP_CERT=FILE"),
        ("OSError: [Errno 28] No space left on device", ": the disk is full", "free some space"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", ": a package has another hash", "do not trust where it came from"),
        ("Downloading a; No matching distribution found for mlx", ": one has no version for this machine", "PYTHON="),
        ("mlx==1 has no wheels with a matching platform tag", ": one has no version for this machine", "PYTHON="),
        ("No matching distribution found for mlx", "", "connect and run ./doit again"),
    ],
)
@pytest.mark.parametrize("has_old", [True, False])
def test_what_pip_could_not_do_is_named_and_an_old_environment_stays_in_use(
    clone: Path, says: str, reason: str, cure: str, has_old: bool
) -> None:
    """
    Without a network a changed lock must cost nothing but a warning; and no mistake looks like a lack of network.
    """
    if has_old:
        lock(clone, "old==1\n")
        run(clone, "list")
    lock(clone, "new==1\n")
    fake_pip(clone, f"echo '{says}' >&2; exit 1")
    failed = "the packages of requirements.lock could not be installed"

    done = run(clone, "list")

    if not has_old:
        assert (3, True) == (done.returncode, says in done.stderr)
        assert f"./doit: {failed}, see above{reason}" in done.stderr
        assert cure in done.stderr.splitlines()[-1]
        assert [] == list(clone.glob(".venv-2*"))
        return
    warning = f"./doit: going on with the environment so far; {failed}{reason}"
    assert (7, True) == (done.returncode, done.stderr.splitlines()[-1].startswith(warning))
    lock(clone, "old==1\n")
    assert (7, "") == ((done := run(clone, "list")).returncode, done.stderr)
    assert 1 == len(environments(clone))


@pytest.mark.parametrize("content", [None, "", "999999\n", "1\n", "not a number\n"])
def test_a_lock_left_by_a_killed_run_is_taken_over(clone: Path, content: str | None) -> None:
    """
    Whatever an earlier ./doit left, also when its number has become that of another process.
    """
    (clone / ".venv.lock").mkdir()
    (clone / ".venv-lock").write_text(content or "")
    if content is not None:
        (clone / ".venv.lock/pid").write_text(content)

    assert 7 == run(clone, "list").returncode
    assert (clone / ".venv/requirements.lock").exists()
    assert not (clone / ".venv.lock").exists()


def test_the_script_may_change_while_it_runs(clone: Path) -> None:
    """
    bash reads a script as it goes, and `git pull` may come in the minutes of an installation.
    """
    fake_pip(clone, 'printf "%20000s\\nexit 9\\n" "" >"$HOME/a project/doit"')

    assert 7 == run(clone, "list").returncode


def test_two_at_once_make_one_environment(clone: Path) -> None:
    """
    The second waits, and says so.
    """
    fake_pip(clone, "sleep 1")
    command = ["bash", str(clone / "doit"), "list"]
    both = [subprocess.Popen(command, env=environ(clone), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(each.communicate()[1] for each in both)

    assert [7, 7] == [each.returncode for each in both]
    assert 1 == len(lines(clone, "installed"))
    assert 1 == said.count("./doit: another ./doit makes an environment; waiting for it\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_in_the_middle_leaves_no_environment_that_looks_whole(clone: Path, number: signal.Signals) -> None:
    """
    After kill -9 a half made one stays, with its installer; the next ./doit waits for neither.
    """
    fake_pip(clone, 'sleep 30 & echo $! >"$HOME/sleeping"; wait')
    command = ["bash", str(clone / "doit"), "list"]
    with subprocess.Popen(command, env=environ(clone), stderr=subprocess.DEVNULL) as process:
        while not lines(clone, "sleeping"):
            time.sleep(0.05)
        process.send_signal(number)
        status = process.wait()
    left = list(clone.glob(".venv-2*"))
    fake_pip(clone, "")
    start = time.monotonic()
    done = run(clone, "list")
    os.kill(int(lines(clone, "sleeping")[0]), signal.SIGKILL)

    assert (-9 if number == signal.SIGKILL else 128 + number) == status
    assert (number == signal.SIGKILL) == bool(left)
    assert (7, True) == (done.returncode, time.monotonic() - start < 20)
    assert [(clone / ".venv").resolve()] == environments(clone)


PIP = """
echo 'Ignoring numpy: markers do not match your environment'
echo 'Collecting mlx==1'
echo '  Downloading mlx-1-cp311-cp311-manylinux_2_35_x86_64.whl (13.9 MB)'
sleep 2.5
echo 'Installing collected packages: mlx'
mkdir "$(dirname "$0")"/../lib/python3.11/site-packages/mlx.dist-info
sleep 2.5
"""
UV = """
case $1 in venv) exec python3 -m venv "$4" ;; esac
echo 'Downloading numpy (16.1MiB)' >&2
echo 'Downloading mlx (13.9MiB)' >&2
echo ' Downloaded mlx' >&2
sleep 2.5
"""


def said_to_terminal(clone: Path) -> str:
    """What ./doit writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(["bash", str(clone / "doit"), "list"], env=environ(clone), stderr=theirs) as process:
        process.wait()
    os.close(theirs)
    said = os.read(ours, 10000).decode()
    os.close(ours)
    return said


def test_a_terminal_shows_how_far_pip_is(clone: Path) -> None:
    """
    It took 136 silent seconds on a slow line: pip draws a bar for a file, and only on a terminal of its own.
    """
    lock(clone, "mlx==1 ; sys_platform == 'linux'\n    --hash=sha256:0\nnumpy==1\nnumpy==2\nhf-xet==1\n")
    fake_pip(clone, PIP)

    said = said_to_terminal(clone)

    assert " s, 1 of 3 packages, downloading mlx-1 (13.9 MB)" in said
    assert " s, 1 of 3 packages installed" in said


def test_a_terminal_shows_how_far_uv_is(clone: Path) -> None:
    """
    uv downloads many at once and names only the large ones.
    """
    fake_program(clone, "uv", UV)

    assert " s, 1 of 2 large packages, downloading numpy (16.1MiB)" in said_to_terminal(clone)
