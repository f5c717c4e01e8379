"""The hostfile of a cluster, and the addresses that it needs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.fake_hosts import refusal
from thunder_train.cluster import hostfile
from thunder_train.config.project import Cluster, Host


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
    `./doit hosts:NAME` asks the hosts for them, so they cannot be needed before. jaccl's ranks all connect to rank 0.
    """
    new = replace(macs(), hosts=(Host("mac4", (), ()), Host("mac5", (), ())))
    where = ["thunder.toml: clusters.macs.hosts[0].ips", "thunder.toml: clusters.macs.hosts[1].ips"]
    hint = "run `./doit hosts:macs` and put its table into thunder.toml"

    assert [f"{each}: ring needs an address; {hint}" for each in where] == refusal(hostfile.hostfile, new)
    jaccl, mpi = replace(new, backend="jaccl"), replace(new, backend="mpi")
    assert [f"{where[0]}: jaccl needs an address; {hint}"] == refusal(hostfile.hostfile, jaccl)
    assert [f"{each}: mpi needs an address; {hint}" for each in where] == refusal(hostfile.hostfile, mpi)
    alone = Host("mac4", (), ())
    alone_clusters = (
        replace(mpi, hosts=(alone, alone)),
        *(replace(each, hosts=(alone,)) for each in (new, jaccl, mpi)),
    )
    assert [[]] * 4 == [hostfile.address_problems(each) for each in alone_clusters], "ranks of one machine need none"


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
