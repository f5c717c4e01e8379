"""Checkpoints on every host: all ranks hold the same state, so any of them can begin again for all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import flags
from thunder_train.core import files
from thunder_train.worker.ranks import is_first_on_host

LONG = {"num_iters": 8, "save_every": 2, "eval_every": 4, "schedule": "cosine", "lora_dropout": 0.1}
LONG |= {"keep_checkpoints": 2}
MANY = {"keep_checkpoints": 9}


def hostfile(place: Path, *names: str) -> Path:
    """A ring of local ranks under these names."""
    hosts = [{"ssh": name, "ips": ["127.0.0.1"], "rdma": []} for name in names]
    files.write_json(place / "hosts.json", {"backend": "ring", "envs": [], "hosts": hosts})
    return place / "hosts.json"


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Path:
    """Two folders, one a rank, with model and rows each; by their names the ranks are on two hosts."""
    for rank in (0, 1):
        shutil.copytree(folder, tmp_path / f"rank-{rank}", ignore=shutil.ignore_patterns("hosts*", "logs"))
    hostfile(tmp_path, "127.0.0.1", "localhost")
    return tmp_path


def train(place: Path, **changed: object) -> "subprocess.CompletedProcess[str]":
    """A training of both ranks, each in its own folder."""
    command = ["--hostfile", "hosts.json", "--log-dir", "logs", "--module", "tests.helpers.own_folder"]
    arguments = flags(Path("run/adapter"), checkpoint_path="kept", **{**LONG, **changed})
    return subprocess.run(
        [sys.executable, "-m", "thunder_train.launch", *command, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def kept(place: Path, rank: int) -> list[str]:
    """Names of a rank's checkpoints."""
    return sorted(path.name for path in (place / f"rank-{rank}/kept").glob("*"))


def outcome(place: Path) -> tuple[bytes, Any, list[Any]]:
    """The adapter, done.json and every event without its times."""
    lines = (place / "rank-0/run/metrics.jsonl").read_text().splitlines()
    events = [(event["event"], event["step"], event.get("loss")) for event in map(json.loads, lines)]
    done = json.loads((place / "rank-0/run/adapter/done.json").read_text())
    return (place / "rank-0/run/adapter/adapters.safetensors").read_bytes(), done, events


def test_one_rank_of_each_host_keeps_files(tmp_path: Path) -> None:
    """
    Several ranks of one host share its folder.
    """
    hosts = hostfile(tmp_path, "mac4", "mac4", "mac5", "mac5")

    assert [True, False, True, False] == [is_first_on_host(hosts, rank) for rank in range(4)]
    assert is_first_on_host(None, 0)


@pytest.mark.ranks
@pytest.mark.parametrize("strategy", ["data", pytest.param("tensor", marks=pytest.mark.slow)])
def test_a_host_that_is_lost_with_its_disk_loses_nothing(place: Path, strategy: str) -> None:
    """
    The first rank's folder is emptied in mid-training: the other rank's checkpoint gives the same training,
    metrics included.
    """
    done = train(place, strategy=strategy, **MANY)
    assert 0 == done.returncode, done.stderr
    expected = outcome(place)
    steps = [f"{step:07d}.safetensors" for step in (2, 4, 6, 8)]
    assert [steps, steps] == [kept(place, rank) for rank in (0, 1)]
    shutil.rmtree(place / "rank-0/kept")
    shutil.rmtree(place / "rank-0/run")
    for name in steps[2:]:
        (place / "rank-1/kept" / name).unlink()

    done = train(place, strategy=strategy, **MANY)

    assert 0 == done.returncode, done.stderr
    assert "step 4/8  goes on from here\n" in done.stdout
    adapter, result, events = outcome(place)
    assert expected == (adapter, result, [event for event in events if event[0] != "resume"])


@pytest.mark.ranks
@pytest.mark.slow
def test_the_newest_checkpoint_of_any_rank_is_taken(place: Path) -> None:
    """
    A kill may come between two writes; the checkpoint of either rank is the whole state.
    """
    assert 0 == train(place).returncode
    assert ["0000006.safetensors", "0000008.safetensors"] == kept(place, 1)
    (place / "rank-0/kept/0000008.safetensors").unlink()

    assert "step 8/8  goes on from here\n" in train(place).stdout


@pytest.mark.ranks
@pytest.mark.slow
def test_a_checkpoint_of_another_training_names_its_rank(place: Path) -> None:
    """
    The checkpoint is on another machine, which its folder alone does not name.
    """
    assert 0 == train(place).returncode
    shutil.rmtree(place / "rank-0/kept")

    done = train(place, learning_rate=1e-4)

    assert 2 == done.returncode
    fact = "kept of rank 1: holds a checkpoint of another training: --learning-rate was 0.001, is 0.0001; "
    assert fact in (place / "logs/rank-0.log").read_text()
