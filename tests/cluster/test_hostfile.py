"""Hostfile and ssh command lines. ssh itself is played by a script; real hosts come with their own tests."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.fake_hosts import refusal
from thunder_train.cluster import hostfile
from thunder_train.cluster.hostfile import Answer
from thunder_train.config.project import Cluster, Host

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
    } == hostfile.hostfile(macs("jaccl"))


def test_a_cluster_without_addresses_is_read_and_its_hostfile_says_how_to_find_them() -> None:
    """
    `./doit hosts:NAME` asks the hosts for them, so they cannot be needed before. With jaccl all meet at rank 0.
    """
    new = replace(macs(), hosts=(Host("mac4", (), ()), Host("mac5", (), ())))
    where = ["thunder.toml: clusters.macs.hosts[0].ips", "thunder.toml: clusters.macs.hosts[1].ips"]
    hint = "run `./doit hosts:macs` and put its table into thunder.toml"

    assert [f"{each}: ring needs an address; {hint}" for each in where] == refusal(hostfile.hostfile, new)
    jaccl, mpi = replace(new, backend="jaccl"), replace(new, backend="mpi")
    assert [f"{where[0]}: jaccl needs an address; {hint}"] == refusal(hostfile.hostfile, jaccl)
    assert [f"{each}: mpi needs an address; {hint}" for each in where] == refusal(hostfile.hostfile, mpi)
    alone = Host("mac4", (), ())
    nobody = (replace(mpi, hosts=(alone, alone)), *(replace(each, hosts=(alone,)) for each in (new, jaccl, mpi)))
    assert [[]] * 4 == [hostfile.address_problems(each) for each in nobody], "ranks of one machine need none"


@pytest.mark.mlx
def test_mlx_reads_the_hostfile_too(tmp_path: Path) -> None:
    """
    `mlx.launch --hostfile` must work on it, so MLX's own reader is asked.
    """
    from mlx._distributed_utils.common import Hostfile

    (tmp_path / "hostfile.json").write_text(json.dumps(hostfile.hostfile(macs("jaccl"))))
    read = Hostfile.from_file(str(tmp_path / "hostfile.json"))

    assert ["mac4", "mac5"] == [host.ssh_hostname for host in read.hosts]
    assert "jaccl" == read.backend


def test_a_local_command_is_itself() -> None:
    """
    No ssh to this machine.
    """
    assert ["true"] == hostfile.argv_on("127.0.0.1", ["true"], {"A": "1"}, "x")


def test_every_value_of_a_remote_command_is_quoted() -> None:
    """
    No shell string is ever built from config without quoting.
    """
    argv = hostfile.argv_on("mac4", ["python", HOSTILE], {"A": HOSTILE}, HOSTILE)

    assert ["--", "mac4"] == argv[-3:-1]
    assert ["cd", HOSTILE, "&&", "exec", "env", f"A={HOSTILE}", "python", HOSTILE] == shlex.split(argv[-1])


def play_ssh(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script named ssh first on PATH."""
    (folder / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_host_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A dead cable must not hang the build.
    """
    play_ssh(tmp_path, "exec sleep 60", monkeypatch)
    monkeypatch.setattr(hostfile, "ANSWER_WITHIN_S", 0.2)

    assert Answer(255, "", "no answer within 0.2 s") == hostfile.on("mac4", ["true"], "x")
