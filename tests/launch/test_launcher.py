"""The launcher with ranks that succeed, fail or never end, as their flags say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.processes import all_end
from tests.helpers.project_copy import PROJECT, wait_for
from thunder_train.launch.rank_process import GPU_WATCHDOG_HINT

pytestmark = pytest.mark.ranks

ACT = """
import os, signal, subprocess, sys, time
rank, flags = os.environ["MLX_RANK"], sys.argv[1:]
from thunder_train.core import files
files.write_text(f"pid-{rank}", str(os.getpid()))
from thunder_train.worker.watchdog import follow_launcher
follow_launcher()
print("hello from", rank, *flags, flush=True)
if "--deaf" in flags:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--child" in flags:
    child = subprocess.Popen(["sleep", "60"])
    files.write_text(f"child-{rank}", str(child.pid))
if f"--lost-{rank}" in flags:
    sys.exit(75)
if f"--late-{rank}" in flags:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
if f"--exit-{rank}" in flags:
    sys.exit(3)
if f"--raise-{rank}" in flags:
    raise RuntimeError("broken rank")
if f"--watchdog-{rank}" in flags:
    error = "[METAL] Command buffer execution failed: Impacting Interactivity "
    print(error + "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)", flush=True)
    print("Fatal Python error: Aborted\\n\\nThread 0x1:\\n  a.py\\n  b.py", flush=True)
    os.abort()
if f"--kill-{rank}" in flags:
    os.kill(os.getpid(), signal.SIGKILL)
if "--well" not in flags:
    open(f"waiting-{rank}", "w").close()
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the module `act` and a hostfile of two local ranks."""
    (tmp_path / "act.py").write_text(ACT)
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    (tmp_path / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host, host]}))
    return tmp_path


def start(folder: Path, *flags: str, hostfile: str = "hosts.json") -> "subprocess.Popen[str]":
    """The launcher, started in folder."""
    argv = ["thunder_train.launch", "--hostfile", hostfile, "--log-dir", "logs", "--module", "act", *flags]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(folder)])}
    return subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder: Path, *flags: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a launcher that ends by itself."""
    process = start(folder, *flags)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def no_process_left(folder: Path) -> bool:
    """Whether every process that wrote its id has ended, or ends within two seconds."""
    return all_end([*folder.glob("pid-?"), *folder.glob("child-?")])


def both_wait(folder: Path) -> bool:
    """Whether both ranks have reached their sleep."""
    return (folder / "waiting-0").exists() and (folder / "waiting-1").exists()


def test_success_is_0_and_each_rank_has_its_log(folder: Path) -> None:
    """
    The terminal shows rank 0; the others write to their logs, which each launch empties.
    """
    (folder / "logs").mkdir()
    (folder / "logs/rank-1.log").write_text("old\n")
    status, out, err = finished(folder, "--well", "a b")

    assert (0, "hello from 0 --well a b --hostfile hosts.json\n", "") == (status, out, err)
    assert "hello from 1 --well a b --hostfile hosts.json\n" == (folder / "logs/rank-1.log").read_text()


def test_a_limit_of_0_is_passed_on(folder: Path) -> None:
    """
    It means no limit; without the flag, each rank would have the limit that is its own default.
    """
    status, out, _ = finished(folder, "--well", "--stall-timeout", "0")

    assert (0, "hello from 0 --well --hostfile hosts.json --stall-timeout 0\n") == (status, out)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("what", "status"), [("exit", 3), ("raise", 1), ("kill", 137)])
def test_the_first_rank_to_fail_gives_the_exit_status_and_ends_the_others(
    folder: Path, what: str, status: int, rank: int
) -> None:
    """
    mlx.launch exits with 0 in each of these cases, so a build would take a failed training for a finished one.
    """
    actual, _, err = finished(folder, f"--{what}-{rank}", "--child")

    assert status == actual
    assert no_process_left(folder)
    how = {"exit": "ended with exit status 3", "raise": "ended with exit status 1", "kill": "ended by signal 9"}[what]
    lines = "last lines: " if rank else "read logs/rank-0.log\n"  # those of rank 0 are shown as they come
    assert err.startswith(f"rank {rank} (127.0.0.1): {how}; {lines}")
    assert err.endswith(f"; read logs/rank-{rank}.log\n")


def test_the_message_quotes_the_last_lines_of_the_failed_rank(folder: Path) -> None:
    """
    The cause is on the terminal, not only in a file.
    """
    _, _, err = finished(folder, "--raise-1")

    assert "RuntimeError: broken rank" in err


@pytest.mark.parametrize("other", ["--lost-0", "--well-0"])
def test_the_gpus_watchdog_is_named_with_its_cure_and_not_tried_again(folder: Path, other: str) -> None:
    """
    macOS ends a computation for which the display waits (mlx#3267); a restart would end in the same way, hours later.
    The text is that of users' posts, not a recording: untested on a Mac.
    """
    status, _, err = finished(folder, "--watchdog-1", other, "--max-restarts", "2")

    assert 134 == status
    assert f"rank 1 (127.0.0.1): {GPU_WATCHDOG_HINT}\n" in err
    assert "restart 1 of 2" not in err


def test_a_rank_that_lost_another_is_not_the_cause(folder: Path) -> None:
    """
    Over ssh the exit of the rank that died may arrive after the exit of the rank that noticed.
    """
    status, _, err = finished(folder, "--lost-0", "--late-1")

    assert 137 == status
    assert err.startswith("rank 1 (127.0.0.1): ended by signal 9; ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_ends_every_rank(folder: Path, number: signal.Signals) -> None:
    """
    Ctrl-C and a closed terminal leave no process behind, not even children of ranks.
    """
    process = start(folder, "--child")
    wait_for(lambda: both_wait(folder), seconds=15)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)

    assert 128 + number == process.returncode
    assert no_process_left(folder)
    assert f"ended by {number.name}; ending 2 ranks\n" == err


def test_a_rank_that_ignores_sigterm_is_killed_after_five_seconds(folder: Path) -> None:
    """
    A rank that hangs inside a driver may not react to SIGTERM.
    """
    start_s = time.monotonic()
    status, _, _ = finished(folder, "--deaf", "--exit-0")

    assert 3 == status
    assert no_process_left(folder)
    assert time.monotonic() - start_s < 12


def test_kill_9_of_the_launcher_leaves_no_rank(folder: Path) -> None:
    """
    The ranks' stdin is a pipe that only the launcher holds; they exit when it closes.
    """
    process = start(folder)
    wait_for(lambda: both_wait(folder), seconds=15)
    process.kill()
    process.communicate(timeout=30)

    wait_for(lambda: no_process_left(folder), seconds=15)


def test_the_launcher_sleeps_while_it_waits(folder: Path) -> None:
    """
    mlx.launch uses a whole core during the training, often rank 0's.
    """
    process = start(folder)
    wait_for(lambda: both_wait(folder), seconds=15)
    status = Path(f"/proc/{process.pid}/stat")
    if not status.exists():
        pytest.skip("no /proc here")
    before = sum(map(int, status.read_text().rsplit(")", 1)[1].split()[11:13]))
    time.sleep(1)
    after = sum(map(int, status.read_text().rsplit(")", 1)[1].split()[11:13]))
    process.terminate()
    process.communicate(timeout=30)

    assert after - before <= 2  # hundredths of a second of one core


def test_a_missing_hostfile_is_one_line_and_status_2(folder: Path) -> None:
    """
    A user's mistake gives no traceback.
    """
    process = start(folder, hostfile="none.json")
    _, err = process.communicate(timeout=30)

    assert (2, "none.json: is missing; run `./doit hostfile`\n") == (process.returncode, err)


def test_a_closed_pipe_ends_every_rank_without_a_traceback(folder: Path) -> None:
    """
    `doit | head -1`: the lines of rank 0 have no reader any more.
    """
    process = start(folder, "--well")
    assert process.stdout
    process.stdout.close()

    assert (128 + signal.SIGPIPE, "") == (process.wait(30), process.stderr.read() if process.stderr else "")
    assert no_process_left(folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_below_the_output_is_told(folder: Path) -> None:
    """
    `bash launch.sh > log` on a full disk.
    """
    argv = ["thunder_train.launch", "--hostfile", "hosts.json", "--log-dir", "logs", "--module", "act", "--well"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(folder)])}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *argv],
            cwd=folder,
            env=env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (1, "the output: cannot be written: No space left on device\n") == (done.returncode, done.stderr)
    assert no_process_left(folder)
