"""Faults of real ring ranks: the launch ends in time, names the right rank, leaves no process, and restarts all."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.helpers.processes import all_end
from tests.helpers.project_copy import PROJECT, wait_for
from thunder_train.launch import rank_process, restarts
from thunder_train.launch.rank_process import Command, Events, Placement, Rank, split_heartbeat
from thunder_train.launch.supervisor import Heartbeats, Limits, Silence

TIMEOUT_S = 2.0
START_S = 6.0
"""Enough for Python and MLX to start on a busy machine."""
MARGIN_S = 10.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a hostfile of two local ring ranks."""
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    (tmp_path / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host, host]}))
    return tmp_path


def start(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """The launcher of two fault probes, started in folder."""
    argv = ["-m", "thunder_train.launch", "--hostfile", "hosts.json", "--log-dir", "logs"]
    argv += ["--module", "tests.helpers.fault_probe"]
    argv += ["--stall-timeout", str(TIMEOUT_S), "--start-timeout", str(START_S), *flags]
    return subprocess.Popen(
        [sys.executable, *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder: Path, *flags: str) -> tuple[int, str, str, float]:
    """(exit status, stdout, stderr, seconds) of a launcher that ends by itself."""
    start_s = time.monotonic()
    process = start(folder, *flags)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err, time.monotonic() - start_s


def first_line(process: "subprocess.Popen[str]") -> str:
    """Wait for the launcher's first line of output: the ranks have completed a step."""
    assert process.stdout
    return process.stdout.readline()


def no_process_left(folder: Path) -> bool:
    """Whether every probe has ended."""
    return all_end(folder.glob("pid-?-?"))


def steps(text: str) -> list[int]:
    """The steps that rank 0 reported."""
    return [int(number) for number in re.findall(r"^step (\d+)/", text, re.MULTILINE)]


@pytest.mark.ranks
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_sleeps_ends_itself_and_is_named(folder: Path, rank: int) -> None:
    """
    The other rank waits inside MLX for as long and must not be named.
    """
    status, out, err, seconds = finished(folder, "--fault", "sleep", "--rank", str(rank))

    assert 70 == status, err
    reason = f"rank {rank}: no step ended for 2 s after step 4; its watchdog ended it"
    failure = f"rank {rank} (127.0.0.1): ended with exit status 70; "
    if rank == 0:  # its lines are shown as they come
        assert out.endswith(f"{reason}\n")
        assert f"{failure}read logs/rank-0.log\n" == err
    else:
        assert err.startswith(f"{failure}last lines: ")
        assert err.endswith(f"{reason}; read logs/rank-1.log\n")
    assert no_process_left(folder)
    assert seconds < START_S + TIMEOUT_S + MARGIN_S


@pytest.mark.ranks
def test_a_stopped_rank_is_named_by_the_launcher_and_killed(folder: Path) -> None:
    """
    Under SIGSTOP no thread of the rank runs, so only its silence shows the fault.
    """
    status, _, err, seconds = finished(folder, "--fault", "stop")

    assert 70 == status
    assert re.fullmatch(r"rank 1 \(127.0.0.1\): silent for [23] s after step [1-4]; read logs/rank-1.log\n", err), err
    assert no_process_left(folder)
    assert seconds < START_S + TIMEOUT_S + MARGIN_S


@pytest.mark.ranks
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_never_starts_is_named(folder: Path, rank: int) -> None:
    """
    The other rank waits in MLX's accept, which has no timeout and lets no other thread run.
    """
    status, _, err, seconds = finished(folder, "--fault", "never", "--rank", str(rank))

    expected = rf"rank {rank} \(127.0.0.1\): silent for \d+ s before its first step; read logs/rank-{rank}.log\n"
    assert 70 == status
    assert re.fullmatch(expected, err)
    assert no_process_left(folder)
    assert seconds < START_S + MARGIN_S


@pytest.mark.ranks
def test_a_rank_that_dies_is_named_and_not_the_one_that_lost_it(folder: Path) -> None:
    """
    Rank 0 sees the broken link and exits too, with a status other than a user's mistake.
    """
    status, _, err, seconds = finished(folder, "--fault", "die")

    assert 137 == status
    assert "rank 1 (127.0.0.1): ended by signal 9; read logs/rank-1.log\n" == err
    assert no_process_left(folder)
    assert seconds < START_S + MARGIN_S


@pytest.mark.ranks
def test_a_rank_without_addresses_does_not_train_alone(folder: Path) -> None:
    """
    MLX would give it a world of one rank, and every Mac would write its own adapter.
    """
    status, out, err, seconds = finished(folder, "--fault", "alone", "--rank", "0")

    assert 75 == status
    assert "rank 0 (127.0.0.1): ended with exit status 75" in err
    assert "the ring ranks could not connect" in out
    assert no_process_left(folder)
    assert seconds < START_S + MARGIN_S


@pytest.mark.ranks
def test_a_port_taken_in_between_costs_one_restart(folder: Path) -> None:
    """
    The launcher picks free ports but cannot reserve them until MLX listens; the second attempt uses others.
    """
    status, out, err, _ = finished(folder, "--fault", "port", "--attempts", "1", "--max-restarts", "1")

    assert (0, list(range(1, 11))) == (status, steps(out)), err
    assert any("Couldn't bind socket" in log.read_text() for log in (folder / "logs").glob("*.log")), err
    assert err.endswith("\nstarting all ranks again, from the last checkpoint: restart 1 of 1\n")


@pytest.mark.ranks
@pytest.mark.parametrize("fault", ["die", "sleep"])
def test_a_restart_goes_on_from_the_checkpoint_and_keeps_the_logs(folder: Path, fault: str) -> None:
    """
    A training overnight survives a crash.
    """
    status, out, err, _ = finished(folder, "--fault", fault, "--attempts", "1", "--max-restarts", "2")

    assert (0, list(range(1, 11))) == (status, steps(out)), err
    log = (folder / "logs/rank-0.log").read_text()
    first, second = log.split("--- attempt 2 ---\n")
    assert [1, 2, 3, 4] == steps(first)
    assert [5, 6, 7, 8, 9, 10] == steps(second)
    assert "thunder-beat" not in log + out
    assert err.endswith("\nstarting all ranks again, from the last checkpoint: restart 1 of 2\n")
    assert 2 == len(err.splitlines())
    assert no_process_left(folder)


@pytest.mark.ranks
def test_it_gives_up_when_the_restarts_are_used_up(folder: Path) -> None:
    """
    A fault that returns every time must not be repeated all night; its exit status is returned.
    """
    status, _, err, _ = finished(folder, "--fault", "quit", "--rank", "0", "--max-restarts", "1")
    failure = "rank 0 (127.0.0.1): ended with exit status 5; "

    assert 5 == status
    first, again, second, end = err.splitlines()
    assert first.startswith(failure)
    assert second.startswith(failure)
    assert "starting all ranks again, from the last checkpoint: restart 1 of 1" == again
    assert "giving up: restart 1 of 1 failed too" == end


@pytest.mark.ranks
def test_a_users_mistake_is_not_restarted(folder: Path) -> None:
    """
    A wrong flag stays wrong.
    """
    status, _, err, _ = finished(folder, "--fault", "mistake", "--max-restarts", "5")

    assert 2 == status
    assert 1 == len(err.splitlines())
    assert "--probe: is wrong" in err


@pytest.mark.ranks
def test_a_signal_to_the_launcher_is_not_followed_by_a_restart(folder: Path) -> None:
    """
    Ctrl-C ends the launch.
    """
    process = start(folder, "--steps", "100000", "--max-restarts", "5")
    first_line(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert (130, "ended by SIGINT; ending 2 ranks\n") == (process.returncode, err)
    assert no_process_left(folder)


@pytest.mark.ranks
def test_a_stopped_launcher_names_no_rank_when_it_continues(folder: Path) -> None:
    """
    After Ctrl-Z and fg: the launcher read no heartbeat, but the ranks kept running.
    """
    process = start(folder, "--steps", "250")
    first_line(process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)

    assert (0, "", 250) == (process.returncode, err, steps(out)[-1])


@pytest.mark.ranks
def test_the_launcher_uses_under_two_per_cent_of_a_core_while_ranks_train(folder: Path) -> None:
    """
    mlx.launch uses a whole core, often rank 0's.
    """
    process = start(folder, "--steps", "100000")
    status = Path(f"/proc/{process.pid}/stat")
    first_line(process)
    if not status.exists():
        pytest.skip("no /proc here")
    used = [cpu_ticks(status)]
    time.sleep(3)
    used.append(cpu_ticks(status))
    process.terminate()
    process.communicate(timeout=30)

    assert used[1] - used[0] <= 6  # hundredths of a second in three seconds


def cpu_ticks(status: Path) -> int:
    """CPU time of a process in hundredths of a second."""
    return sum(map(int, status.read_text().rsplit(")", 1)[1].split()[11:13]))


@pytest.mark.ranks
def test_wrong_limits_are_reported_together(folder: Path) -> None:
    """
    A user's mistake gives no traceback, and one run reports all of them.
    """
    status, _, err, _ = finished(folder, "--stall-timeout", "-1", "--max-restarts", "-2")

    expected = "--stall-timeout: must be 0 or more, not -1\n--max-restarts: must be 0 or more, not -2\n"
    assert (2, expected) == (status, err)


def test_the_silent_rank_with_the_lowest_step_is_named() -> None:
    """
    A rank that waits may fall silent too, but it has completed as many steps or more.
    """
    heartbeats = Heartbeats(Limits(stall_s=10, start_s=60), [0, 1, 2], now_s=0)
    for now_s in range(1, 9):
        heartbeats.silent(now_s)
        heartbeats.add(0, step=7, now_s=now_s)
    heartbeats.add(1, step=6, now_s=5)
    heartbeats.add(2, step=7, now_s=4)
    silences = [heartbeats.silent(now_s) for now_s in range(9, 16)]

    assert [None] * 5 == silences[:5]
    assert [Silence(2, 7, 10), Silence(1, 6, 10)] == silences[5:]


def test_a_rank_that_has_ended_or_has_no_limit_is_not_late() -> None:
    """
    A rank may finish long before another has written its files.
    """
    heartbeats = Heartbeats(Limits(stall_s=3, start_s=0), [0, 1], now_s=0)
    heartbeats.add(0, step=1, now_s=1)
    heartbeats.remove(0)

    assert {None} == {heartbeats.silent(now_s) for now_s in range(2, 50)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"thunder-beat 12\n", (b"", 12)),
        (b"loading 50%\rthunder-beat 0\n", (b"loading 50%\r", 0)),
        (b"step 3/4\n", (b"step 3/4\n", None)),
        (b"a thunder-beat is no beat\n", (b"a thunder-beat is no beat\n", None)),
        (b"thunder-beat " + b"9" * 9000, (b"thunder-beat " + b"9" * 9000, None)),
    ],
)
def test_a_heartbeat_is_removed_from_a_ranks_output(line: bytes, expected: tuple[bytes, int | None]) -> None:
    """
    It comes from a thread, so it may follow the start of another line.
    """
    assert expected == split_heartbeat(line)


@pytest.mark.parametrize(
    ("hosts", "start_s", "expected"),
    [
        (["localhost", "127.0.0.1"], 1800.0, 120.0),
        (["localhost"], 60.0, 60.0),
        (["localhost", "localhost"], 0.0, 0.0),
        (["localhost", "mac5"], 1800.0, 1800.0),
    ],
)
def test_ranks_of_one_machine_may_be_silent_for_two_minutes(hosts: list[str], start_s: float, expected: float) -> None:
    """
    They send heartbeats except while they connect; who waits for a rank that a stranger has taken waits for nothing.
    """
    description = {"backend": "ring", "hosts": [{"ssh": host} for host in hosts]}
    job = restarts.Job(Path(), description, Path(), Command("m", (), ".", "python3"), Limits(600.0, start_s), 300.0)

    assert Limits(600.0, expected) == restarts._limits(job)


def test_a_flood_of_lines_waits_instead_of_taking_memory(tmp_path: Path) -> None:
    """
    A rank may print faster than a terminal shows.
    """
    events: Events = SimpleQueue()
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as child:
        rank = Rank(Placement(0, "localhost", {}, tmp_path / "log"), child)
        threading.Thread(target=rank_process._read_output, args=(rank, events), daemon=True).start()
        wait_for(lambda: events.qsize() > rank_process.MOST_EVENTS)
        time.sleep(0.2)
        child.kill()

    assert events.qsize() <= rank_process.MOST_EVENTS + 1
