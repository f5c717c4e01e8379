"""A rank that ends itself, without any launcher."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import python

HEAD = "import os, time\nfrom thunder_train.worker.watchdog import Watchdog\n"
NO_SIGNAL_S = 20


def run(tmp_path: Path, body: str, **env: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a few lines of Python."""
    (tmp_path / "few.py").write_text(HEAD + body)
    done = python("few", [], tmp_path, PYTHONPATH=os.pathsep.join([str(PROJECT), str(tmp_path)]), **env)
    return done.returncode, done.stdout, done.stderr


def test_a_rank_that_finishes_no_step_ends_itself_with_one_line(tmp_path: Path) -> None:
    """
    No traceback: the line names rank, step and seconds.
    """
    body = "with Watchdog(1, 9) as dog:\n    dog.beat(1)\n    dog.beat(7)\n    time.sleep(60)\n"

    expected = "rank 3: no step ended for 1 s after step 7; its watchdog ended it\n"
    assert (70, "", expected) == run(tmp_path, body, MLX_RANK="3")


def test_a_start_that_takes_too_long_ends_too(tmp_path: Path) -> None:
    """
    Loading a model takes longer than a step, so it has a limit of its own.
    """
    body = "with Watchdog(0.1, 1):\n    time.sleep(60)\n"

    assert (70, "", "rank 0: no step ended for 1 s since the start; its watchdog ended it\n") == run(tmp_path, body)


def test_a_rank_that_finishes_steps_goes_on_and_so_does_one_without_limits(tmp_path: Path) -> None:
    """
    Each beat restarts the clock; outside the context there is none.
    """
    body = (
        "with Watchdog(0.5, 0) as dog:\n    time.sleep(1)\n    for step in range(1, 6):\n"
        "        dog.beat(step)\n        time.sleep(0.2)\ntime.sleep(1)\n"
    )

    assert (0, "", "") == run(tmp_path, body)


def test_beats_are_for_the_launcher_alone(tmp_path: Path) -> None:
    """
    In a worker started by hand or by mlx.launch they would stay in the output.
    """
    body = "with Watchdog(0, 0) as dog:\n    dog.beat(1)\n    dog.beat(2)\n    time.sleep(1.3)\n"

    assert (0, "", "") == run(tmp_path, body)
    expected = (0, "thunder-beat 0\nthunder-beat 1\nthunder-beat 2\n", "")
    assert expected == run(tmp_path, body, THUNDER_BEATS="1")


@pytest.mark.ranks
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_peer_is_stopped_in_training_ends_itself_though_mlx_blocks(tmp_path: Path, rank: int) -> None:
    """
    It must work without our launcher: mlx.launch has no timeout at all.
    """
    other = 1 - rank
    ranks = [probe(tmp_path, number, "--fault", "stop", "--rank", str(other)) for number in (0, 1)]
    _, err = ranks[rank].communicate(timeout=30)
    ranks[other].send_signal(signal.SIGKILL)
    ranks[other].communicate(timeout=30)

    expected = f"rank {rank}: no step ended for 4 s after step 4, while waiting for the other ranks; "
    assert (70, expected + "its watchdog ended it\n") == (ranks[rank].returncode, err)


@pytest.mark.ranks
def test_a_rank_that_nobody_joins_ends_itself(tmp_path: Path) -> None:
    """
    mx.distributed.init waits for ever and lets no other thread run, so a signal must end it.
    """
    start_s = time.monotonic()
    alone = probe(tmp_path, 0, "--start-timeout", "1")
    _, err = alone.communicate(timeout=NO_SIGNAL_S)

    expected = "rank 0: no step ended for 4 s since the start, while waiting for the other ranks; "
    assert (70, expected + "its watchdog ended it\n") == (alone.returncode, err)
    assert time.monotonic() - start_s < NO_SIGNAL_S


def probe(folder: Path, rank: int, *flags: str) -> "subprocess.Popen[str]":
    """A rank of two, started by hand."""
    from thunder_train.core import files
    from thunder_train.launch.backends import FIRST_PORT, ring_addresses

    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    if not (folder / "hosts.json").exists():
        files.write_json(folder / "hosts.json", {"backend": "ring", "envs": [], "hosts": [host, host]})
        files.write_json(folder / "addresses.json", ring_addresses([host, host], FIRST_PORT))
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "MLX_RANK": str(rank), "MLX_HOSTFILE": "addresses.json"}
    argv = [
        sys.executable,
        "-m",
        "tests.helpers.fault_probe",
        "--hostfile",
        "hosts.json",
        "--stall-timeout",
        "1",
        *flags,
    ]
    return subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
