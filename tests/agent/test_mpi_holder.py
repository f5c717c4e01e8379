"""Local ranks over Open MPI: the launcher's processes with the environments of those that mpirun starts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, wait_for
from tests.worker.conftest import flags
from thunder_train import ThunderError
from thunder_train.launch import mpi
from thunder_train.launch.rank_process import Command

needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI: apt-get install libopenmpi-dev")
pytestmark = [pytest.mark.cluster, needs_mpi]

ACT = """
import os, signal, sys, time
from pathlib import Path
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.bootstrap import enter
from thunder_train.worker.ranks import join

def main(words):
    ranks = join(Path("mpi.json"))
    files.write_text(f"pid-{ranks.rank}", str(os.getpid()))
    import mlx.core as mx
    assert ranks.sum(mx.ones(3)).tolist() == [2, 2, 2]
    print("joined", flush=True)
    if ranks.rank == 1 and words[0] == "mistake":
        raise ThunderError("not like that", where="rank 1")
    if ranks.rank == 1 and words[0] == "crash":
        raise RuntimeError("broken rank")
    if ranks.rank == 1 and words[0] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if ranks.rank == 1 and words[0] == "die-once" and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if words[0] == "wait":
        time.sleep(60)
    ranks.sum(mx.ones(3))

enter(main)
"""

HOST = {"ssh": "127.0.0.1", "ips": [], "rdma": []}
STARTED: list["subprocess.Popen[str]"] = []


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with the module `act` and mpi.json, two local mpi ranks."""
    (tmp_path / "act.py").write_text(ACT)
    for name in (tmp_path, folder):
        (name / "mpi.json").write_text(json.dumps({"backend": "mpi", "envs": [], "hosts": [HOST, HOST]}))
    yield tmp_path
    for process in STARTED:  # those of a test that failed
        process.kill()
    STARTED.clear()


def launch(cwd: Path, hosts: str, *words: str, **env: str) -> "subprocess.Popen[str]":
    """Start the launcher in cwd."""
    process = subprocess.Popen(
        [sys.executable, "-m", "thunder_train.launch", "--hostfile", hosts, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{cwd}", "OF_TEST": str(cwd), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


def act(place: Path, *words: str, **env: str) -> "subprocess.Popen[str]":
    """Start the launcher with two ranks of the module `act`."""
    return launch(place, "mpi.json", "--log-dir", "logs", "--module", "act", *words, **env)


def alive(place: Path) -> list[str]:
    """Command lines of processes with this test's folder in their environment."""
    commands = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(place).encode() in (process / "environ").read_bytes():
                commands.append((process / "cmdline").read_bytes().decode().replace("\0", " "))
        except OSError:
            continue
    return commands


def test_mpi_trains_the_adapter_that_the_ring_trains(folder: Path, place: Path) -> None:
    """
    Two ranks add the same two numbers over any backend, so the adapters have the same bytes.
    """
    for hosts in ("mpi", "hosts"):
        words = ["--log-dir", str(place / hosts / "logs"), *flags(place / hosts / "adapter")]
        process = launch(folder, f"{hosts}.json", *words)
        output = process.communicate(timeout=120)[0]
        assert 0 == process.returncode, output
    ours, rings = ((place / hosts / "adapter/adapters.safetensors").read_bytes() for hosts in ("mpi", "hosts"))

    assert 2 == json.loads((place / "mpi/adapter/done.json").read_text())["world_size"]
    assert ours == rings


def test_the_preflight_sums_are_right(place: Path) -> None:
    """
    Also those of the long message, in which each rank has other numbers.
    """
    process = launch(place, "mpi.json", "--log-dir", "logs", "--module", "thunder_train.worker.allreduce_check")
    output = process.communicate(timeout=60)[0]

    assert 0 == process.returncode, output
    assert '"all_sum": true' in output
    assert '"size": 2' in output


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("mistake", 2, "rank 1 (127.0.0.1): ended with exit status 2; last lines: joined | rank 1: not like that; "),
        ("crash", 1, "RuntimeError: broken rank"),
        ("die", 137, "rank 1 (127.0.0.1): ended by signal 9; "),
    ],
)
def test_a_failing_rank_ends_all_at_once(place: Path, how: str, status: int, message: str) -> None:
    """
    Otherwise it would wait in MPI_Finalize for the others, and they in an all-reduce for it.
    """
    begun = time.monotonic()
    process = act(place, how)
    output = process.communicate(timeout=30)[0]

    assert status == process.returncode, output
    assert message in output
    assert time.monotonic() - begun < 20
    wait_for(lambda: not alive(place))


def test_a_restart_gets_new_environments(place: Path) -> None:
    """
    Those of the first attempt belong to ranks that have ended.
    """
    process = act(place, "die-once", "--max-restarts", "1")
    output = process.communicate(timeout=60)[0]

    assert 0 == process.returncode, output
    assert "ended by signal 9" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_launcher(place: Path, number: signal.Signals) -> None:
    """
    Neither ranks nor mpirun nor its holders, whatever ends the launcher.
    """
    process = act(place, "wait")
    wait_for(lambda: (place / "pid-0").exists() and (place / "pid-1").exists())
    assert any("mpirun" in line for line in alive(place))
    process.send_signal(number)
    process.communicate(timeout=30)

    wait_for(lambda: not alive(place))


def test_a_broken_open_mpi_is_reported(place: Path) -> None:
    """
    mpirun's output on one line, with the exit status of a mistake: a restart would not help.
    """
    (place / "mpirun").write_text("#!/bin/sh\necho no slots\necho at all\nexit 1\n")
    (place / "mpirun").chmod(0o755)
    process = act(place, "wait", PATH=f"{place}:{os.environ['PATH']}")
    output = process.communicate(timeout=30)[0]

    assert (2, "mpirun: did not start 2 ranks: no slots | at all; check its installation\n") == (
        process.returncode,
        output,
    )


def test_without_open_mpi_the_user_learns_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Before anything starts.
    """
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ThunderError) as caught, mpi.places([HOST, HOST], Command("", (), ".", "python3")):
        pass

    hint = "install Open MPI (Debian: openmpi-bin, macOS: `brew install open-mpi`), or use backend ring"
    assert f"mpirun: is not installed here; {hint}" == str(caught.value)
