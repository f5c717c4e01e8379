"""The launcher with ranks that do what their flags say: end well, badly, or never."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT

pytestmark = pytest.mark.ranks

ACT = """
import os, signal, subprocess, sys, time
rank, what = os.environ["MLX_RANK"], sys.argv[1:]
from thunder_train.core import files
files.write_text(f"pid-{rank}", str(os.getpid()))
from thunder_train.worker.watchdog import follow_launcher
follow_launcher()
print("hello from", rank, *what, flush=True)
if "--deaf" in what:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--child" in what:
    child = subprocess.Popen(["sleep", "60"])
    files.write_text(f"child-{rank}", str(child.pid))
if f"--lost-{rank}" in what:
    sys.exit(75)
if f"--late-{rank}" in what:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
if f"--exit-{rank}" in what:
    sys.exit(3)
if f"--raise-{rank}" in what:
    raise RuntimeError("broken rank")
if f"--kill-{rank}" in what:
    os.kill(os.getpid(), signal.SIGKILL)
if "--well" not in what:
    open(f"waiting-{rank}", "w").close()
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the module `act` and a hostfile of two local ranks."""
    (tmp_path / "act.py").write_text(ACT)
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    (tmp_path / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host, host]}))
    return tmp_path


def start(folder, *flags, hostfile="hosts.json"):
    """The launcher, started in folder."""
    argv = ["thunder_train.launch", "--hostfile", hostfile, "--log-dir", "logs", "--module", "act", *flags]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(folder)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", *argv], cwd=folder, env=env, **pipes)


def finished(folder, *flags):
    """(exit status, stdout, stderr) of a launcher that ends by itself."""
    process = start(folder, *flags)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def wait_for(condition, seconds=15):
    """Wait until condition() holds."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def alive(file):
    """Whether the process whose id is in file runs; a zombie does not."""
    pid = int(file.read_text())
    try:
        os.kill(pid, 0)
        if not Path("/proc/self").exists():  # a Mac
            return True
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def nobody_left(folder):
    """Whether every process that wrote its id has ended, or does so now: SIGKILL takes a busy machine a moment."""
    return all_end([*folder.glob("pid-?"), *folder.glob("child-?")])


def all_end(files, within_s=2):
    """Whether the processes whose ids are in these files end within so many seconds."""
    limit = time.monotonic() + within_s
    while any(alive(file) for file in files):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def both_wait(folder):
    """Whether both ranks came to their sleep."""
    return (folder / "waiting-0").exists() and (folder / "waiting-1").exists()


def test_all_well_is_0_and_each_rank_has_its_log(folder):
    """
    The terminal shows rank 0; the others are read in their logs, which start anew each time.
    """
    (folder / "logs").mkdir()
    (folder / "logs/rank-1.log").write_text("old\n")
    status, out, err = finished(folder, "--well", "a b")

    assert (0, "hello from 0 --well a b --hostfile hosts.json\n", "") == (status, out, err)
    assert "hello from 1 --well a b --hostfile hosts.json\n" == (folder / "logs/rank-1.log").read_text()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("what", "status"), [("exit", 3), ("raise", 1), ("kill", 137)])
def test_the_first_rank_to_fail_gives_the_exit_status_and_ends_the_others(folder, what, status, rank):
    """
    mlx.launch exits 0 in each of these cases, so a build on top of it would call a dead training done.
    """
    got, _, err = finished(folder, f"--{what}-{rank}", "--child")

    assert status == got
    assert nobody_left(folder)
    how = {"exit": "ended with exit status 3", "raise": "ended with exit status 1", "kill": "ended by signal 9"}[what]
    assert err.startswith(f"rank {rank} (127.0.0.1): {how}; last lines: ")
    assert err.endswith(f"; read logs/rank-{rank}.log\n")


def test_the_message_holds_the_last_words_of_the_failed_rank(folder):
    """
    The cause is on the screen, not only in a file.
    """
    _, _, err = finished(folder, "--raise-1")

    assert "RuntimeError: broken rank" in err


def test_a_rank_that_lost_another_is_not_the_cause(folder):
    """
    Over ssh the end of the rank that died may arrive after the end of the one that noticed.
    """
    status, _, err = finished(folder, "--lost-0", "--late-1")

    assert 137 == status
    assert err.startswith("rank 1 (127.0.0.1): ended by signal 9; ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_ends_every_rank(folder, number):
    """
    Ctrl-C and a closed terminal leave nothing behind, neither children of the ranks.
    """
    process = start(folder, "--child")
    wait_for(lambda: both_wait(folder))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)

    assert 128 + number == process.returncode
    assert nobody_left(folder)
    assert f"ended by {number.name}; ending 2 ranks\n" == err


def test_a_rank_that_ignores_sigterm_is_killed_after_five_seconds(folder):
    """
    A rank that hangs inside a driver may not hear SIGTERM.
    """
    start_s = time.monotonic()
    status, _, _ = finished(folder, "--deaf", "--exit-0")

    assert 3 == status
    assert nobody_left(folder)
    assert time.monotonic() - start_s < 12


def test_kill_9_of_the_launcher_leaves_no_rank(folder):
    """
    The ranks' stdin is a pipe that only the launcher holds; its end is their end.
    """
    process = start(folder)
    wait_for(lambda: both_wait(folder))
    process.kill()
    process.communicate(timeout=30)

    wait_for(lambda: nobody_left(folder))


def test_the_launcher_sleeps_while_it_waits(folder):
    """
    mlx.launch spins on one core for the whole training, often rank 0's.
    """
    process = start(folder)
    wait_for(lambda: both_wait(folder))
    status = Path(f"/proc/{process.pid}/stat")
    if not status.exists():
        pytest.skip("no /proc here")
    before = sum(map(int, status.read_text().rsplit(")", 1)[1].split()[11:13]))
    time.sleep(1)
    after = sum(map(int, status.read_text().rsplit(")", 1)[1].split()[11:13]))
    process.terminate()
    process.communicate(timeout=30)

    assert after - before <= 2  # hundredths of a second of one core


def test_a_missing_hostfile_is_one_line_and_status_2(folder):
    """
    No traceback for a user's mistake.
    """
    process = start(folder, hostfile="none.json")
    _, err = process.communicate(timeout=30)

    assert (2, "none.json: is missing; run `./doit hostfile`\n") == (process.returncode, err)
