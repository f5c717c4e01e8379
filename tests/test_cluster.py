"""Hostfile, ssh command lines and preflight. ssh itself is played by a script; real hosts come with their own tests."""

import json
import os
import shlex
from pathlib import Path

import pytest

from thunder_train import ThunderError, cluster
from thunder_train.cluster import Answer
from thunder_train.config import Cluster, Host

HERE = {"python": "3.11.7", "mlx": "0.32.4", "mlx_lm": "0.32.2"}
HOSTILE = "a b; $(touch pwned) 'x'"


def macs(backend: str = "ring") -> Cluster:
    """Two remote hosts."""
    hosts = (Host("mac4", ("10.0.5.1",), ("", "rdma_en5")), Host("mac5", ("10.0.5.2",), ("rdma_en5", "")))
    return Cluster("macs", backend, hosts, ("A=1",), "projects/thunder train", ".venv/bin/python")


def test_the_hostfile_is_what_mlx_launch_reads() -> None:
    """
    A host's own slot of the RDMA matrix is null; TOML has no null, so recipes write "".
    """
    assert {
        "backend": "jaccl",
        "envs": ["A=1"],
        "hosts": [
            {"ssh": "mac4", "ips": ["10.0.5.1"], "rdma": [None, "rdma_en5"]},
            {"ssh": "mac5", "ips": ["10.0.5.2"], "rdma": ["rdma_en5", None]},
        ],
    } == cluster.hostfile(macs("jaccl"))


@pytest.mark.mlx
def test_mlx_reads_the_hostfile_too(tmp_path: Path) -> None:
    """
    `mlx.launch --hostfile` must work on it, so MLX's own reader is asked.
    """
    from mlx._distributed_utils.common import Hostfile

    (tmp_path / "hostfile.json").write_text(json.dumps(cluster.hostfile(macs("jaccl"))))
    read = Hostfile.from_file(str(tmp_path / "hostfile.json"))

    assert ["mac4", "mac5"] == [host.ssh_hostname for host in read.hosts]
    assert "jaccl" == read.backend


def test_a_local_command_is_itself() -> None:
    """
    No ssh to this machine.
    """
    assert ["true"] == cluster.argv_on("127.0.0.1", ["true"], {"A": "1"}, "x")


def test_every_value_of_a_remote_command_is_quoted() -> None:
    """
    No shell string is ever built from config without quoting.
    """
    argv = cluster.argv_on("mac4", ["python", HOSTILE], {"A": HOSTILE}, HOSTILE)

    assert ["--", "mac4"] == argv[-3:-1]
    assert ["cd", HOSTILE, "&&", "exec", "env", f"A={HOSTILE}", "python", HOSTILE] == shlex.split(argv[-1])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(0, json.dumps(HERE), ""), []),
        (
            Answer(255, "", "ssh: connect to host mac4 port 22: Connection refused"),
            [
                "host mac4: ssh cannot reach it: ssh: connect to host mac4 port 22: Connection refused; "
                "make `ssh mac4 true` work without a password"
            ],
        ),
        (
            Answer(127, "", "env: '.venv/bin/python': No such file or directory"),
            [
                "host mac4: cannot run .venv/bin/python in projects/thunder train: env: '.venv/bin/python': No such "
                "file or directory; copy the project to projects/thunder train there and run ./doit once"
            ],
        ),
        (Answer(0, "Welcome!\n{}", ""), ["host mac4: answered 'Welcome!\\n{}'; keep its login scripts silent"]),
        (
            Answer(0, json.dumps({**HERE, "mlx": "0.31.1", "python": "3.9.6"}), ""),
            [
                "host mac4: has mlx 0.31.1, and this machine 0.32.4; run ./doit there once",
                "host mac4: has python 3.9.6, and this machine 3.11.7; run ./doit there once",
            ],
        ),
    ],
)
def test_a_host_that_is_not_ready_says_why(answer: Answer, expected: list[str]) -> None:
    """
    The first users lost evenings to hosts with other versions.
    """
    assert expected == [str(problem) for problem in cluster.host_problems("mac4", answer, HERE, macs())]


def play_ssh(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script named ssh first on PATH."""
    (folder / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_every_host_is_asked_and_every_problem_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Mending one host at a time would cost a try per host.
    """
    play_ssh(tmp_path, "echo no route >&2; exit 255", monkeypatch)

    with pytest.raises(ThunderError) as caught:
        cluster.preflight(macs(), tmp_path / "logs")

    assert [
        "host mac4: ssh cannot reach it: no route; make `ssh mac4 true` work without a password",
        "host mac5: ssh cannot reach it: no route; make `ssh mac5 true` work without a password",
    ] == str(caught.value).splitlines()


def test_a_host_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A dead cable must not hang the build.
    """
    play_ssh(tmp_path, "exec sleep 60", monkeypatch)
    monkeypatch.setattr(cluster, "ANSWER_WITHIN_S", 0.2)

    assert Answer(255, "", "no answer within 0.2 s") == cluster.on("mac4", ["true"], "x")


@pytest.mark.ranks
def test_local_ranks_tell_their_size_and_their_sum(tmp_path: Path) -> None:
    """
    The seed's ring smoke: size=2 from each rank, and the all-sum checked against known values.
    """
    host = Host("127.0.0.1", ("127.0.0.1",), ())
    found = cluster.preflight(Cluster("local", "ring", (host, host), (), "", ""), tmp_path)

    assert [(0, 2, True), (1, 2, True)] == [(rank["rank"], rank["size"], rank["all_sum"]) for rank in found["ranks"]]
