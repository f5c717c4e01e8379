"""The environment variables that connect the ranks."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.recipes import smoke
from thunder_train import ThunderError
from thunder_train.cluster import hostfile as hostfiles
from thunder_train.config.fields import FORMS, SSH_NAME
from thunder_train.launch.backends import environments

HINT = "run `./doit hostfile`, or correct [clusters] in thunder.toml"


def host(
    ssh: str = "127.0.0.1", ips: Sequence[str] = ("127.0.0.1",), rdma: Sequence[str | None] = ()
) -> dict[str, Any]:
    """A host of a hostfile."""
    return {"ssh": ssh, "ips": list(ips), "rdma": list(rdma)}


def hostfile(backend: str, *hosts: dict[str, Any], envs: Sequence[str] = ()) -> dict[str, Any]:
    """A hostfile."""
    return {"backend": backend, "envs": list(envs), "hosts": list(hosts)}


def refusal(description: Any) -> list[str]:
    """The errors for a hostfile."""
    with pytest.raises(ThunderError) as caught:
        environments(description, where="hosts.json")
    return str(caught.value).split("\n")


def test_local_ring_ranks_get_different_ports() -> None:
    """
    Two trainings on one machine must not meet on a fixed port.
    """
    first, second = environments(hostfile("ring", host(), host()), where="hosts.json")
    links = json.loads(first["THUNDER_FILE_MLX_HOSTFILE"])

    assert ("0", "1") == (first["MLX_RANK"], second["MLX_RANK"])
    assert first["THUNDER_FILE_MLX_HOSTFILE"] == second["THUNDER_FILE_MLX_HOSTFILE"]
    assert 2 == len({link for [link] in links})
    assert all(link.startswith("127.0.0.1:") for [link] in links)


def test_remote_ring_ranks_get_mlx_ports_for_every_address() -> None:
    """
    A free port of another machine cannot be known here, so the ports are those of mlx.launch.
    """
    macs = [host("mac4", ["10.0.5.1", "10.0.6.1"]), host("mac5", ["10.0.5.2"])]
    first, _ = environments(hostfile("ring", *macs), where="hosts.json")

    expected = [["10.0.5.1:32323", "10.0.6.1:32324"], ["10.0.5.2:32325"]]
    assert expected == json.loads(first["THUNDER_FILE_MLX_HOSTFILE"])


def test_a_restart_has_other_fixed_ports() -> None:
    """
    A rank that is stopped on another machine may still hold those of the first attempt.
    """
    macs = [host("mac4", ["10.0.5.1"]), host("mac5", ["10.0.5.2"])]
    cabled = [host("mac4", ["10.0.5.1"], [None, "rdma_en5"]), host("mac5", [], ["rdma_en3", None])]
    ring = environments(hostfile("ring", *macs), "hosts.json", attempt=2)[0]
    jaccl = environments(hostfile("jaccl", *cabled), "hosts.json", attempt=3)[0]

    assert '[["10.0.5.1:32223"], ["10.0.5.2:32224"]]' == ring["THUNDER_FILE_MLX_HOSTFILE"]
    assert "10.0.5.1:32123" == jaccl["MLX_JACCL_COORDINATOR"]


def test_jaccl_ranks_get_the_matrix_and_the_coordinator() -> None:
    """
    RDMA devices differ per pair of hosts; rank 0 is the coordinator.
    """
    macs = [host("mac4", ["10.0.5.1"], [None, "rdma_en5"]), host("mac5", [], ["rdma_en3", None])]
    expected = {
        "MLX_RANK": "1",
        "MLX_JACCL_COORDINATOR": "10.0.5.1:32323",
        "THUNDER_FILE_MLX_IBV_DEVICES": '[[null, "rdma_en5"], ["rdma_en3", null]]',
        "A": "b=c",
    }

    assert expected == environments(hostfile("jaccl", *macs, envs=["A=b=c"]), where="hosts.json")[1]
    assert {**expected, "MLX_JACCL_RING": "1"} == environments(
        hostfile("jaccl-ring", *macs, envs=["A=b=c"]), where="hosts.json"
    )[1]


def test_nccl_ranks_on_one_machine_get_a_gpu_each() -> None:
    """
    CUDA_VISIBLE_DEVICES counts the ranks of that machine, not of the cluster.
    """
    machines = [host("a", ["10.0.0.1"]), host("a", ["10.0.0.1"]), host("b", ["10.0.0.2"])]
    ranks = environments(hostfile("nccl", *machines), where="hosts.json")

    assert ["0", "1", "0"] == [rank["CUDA_VISIBLE_DEVICES"] for rank in ranks]
    expected = {"NCCL_HOST_IP": "10.0.0.1", "NCCL_PORT": "12345", "MLX_WORLD_SIZE": "3"}
    assert expected == {name: ranks[2][name] for name in expected}


def test_a_single_host_needs_no_addresses() -> None:
    """
    A single rank has no other to connect to.
    """
    assert [{"MLX_RANK": "0"}] == environments(hostfile("ring", host(ips=())), where="hosts.json")


def test_mpi_ranks_of_one_machine_need_no_address() -> None:
    """
    They share its memory.
    """
    for name in ("127.0.0.1", "mac5"):
        variables = environments(hostfile("mpi", host(name, ips=()), host(name, ips=())), "hosts.json")

        assert [{"MLX_RANK": "0"}, {"MLX_RANK": "1"}] == variables


def test_mpi_needs_addresses_that_tell_machines_apart() -> None:
    """
    Open MPI knows them only by address; IPv6 and loopback addresses lead to no other host.
    """
    macs = [host("mac4", ()), host("mac5", ["10.0.5.2", "::1"]), host(), host("mac6", ["10.0.5.2"]), host("-o", ["a"])]

    expected = [
        f"hosts.json: hosts[4].ssh: '-o' is not a host name for ssh; {FORMS[SSH_NAME]}",
        f"hosts.json: hosts[0].ips: has no address on the training link; {HINT}",
        f"hosts.json: hosts[1].ips: '::1' is not an IPv4 address that another host can reach; {HINT}",
        f"hosts.json: hosts[2].ips: '127.0.0.1' is not an IPv4 address that another host can reach; {HINT}",
        f"hosts.json: hosts[3].ips: '10.0.5.2' is also the address of another host; {HINT}",
        f"hosts.json: hosts[4].ips: 'a' is not an IPv4 address that another host can reach; {HINT}",
    ]
    assert expected == refusal(hostfile("mpi", *macs))


def test_every_missing_cable_is_named() -> None:
    """
    jaccl itself would die in C++ with an error number.
    """
    macs = [host("mac4", ["10.0.5.1"], [None, None]), host("mac5", [], ["rdma_en3", "rdma_en4"])]

    expected = [
        "hosts.json: hosts[0].rdma: has no device for mac5; run `ibv_devices` there",
        "hosts.json: hosts[1].rdma: slot 1 stands for this host itself and must be null",
    ]
    assert expected == refusal(hostfile("jaccl", *macs))


def test_an_invalid_hostfile_is_refused() -> None:
    """
    A hand-written file is checked before any process starts.
    """
    assert [f'hosts.json: must be {{"backend", "envs", "hosts": [{{"ssh", "ips", "rdma"}}]}}; {HINT}'] == refusal([])
    assert [f"hosts.json: hosts[1].ips: has no address on the training link; {HINT}"] == refusal(
        hostfile("ring", host(), host(ips=()))
    )


def test_an_address_of_another_machine_is_refused_before_anything_starts() -> None:
    """
    The ring would fail in C++ on one rank and leave the other waiting forever.
    """
    local = host(ips=["192.0.2.1"])

    what = "192.0.2.1 is not an address of this machine: Cannot assign requested address"
    expected = f"hostfile: {what}; correct ips in [clusters]"
    assert [expected] == refusal(hostfile("ring", local, local))


def mlx_launch(monkeypatch: pytest.MonkeyPatch, folder: Path, description: dict[str, Any]) -> list[dict[str, str]]:
    """Each rank's environment, files as their content, as mlx.launch builds it from a hostfile; starts nothing."""
    from mlx._distributed_utils import launch
    from mlx._distributed_utils.common import Hostfile

    (folder / "hosts.json").write_text(json.dumps(description))
    read = Hostfile.from_file(folder / "hosts.json")
    arguments_of_ranks: list[Any] = []
    monkeypatch.setattr(launch, "_launch_with_io", lambda _, arguments, verbose: arguments_of_ranks.extend(arguments))
    flags = argparse.Namespace(
        backend=read.backend, env=list(read.envs), cwd=None, python=None, verbose=False, starting_port=32323,
        connections_per_ip=1, nccl_port=12345, repeat_hosts=2,
    )  # fmt: skip
    start = {"ring": launch.launch_ring, "nccl": launch.launch_nccl}.get(read.backend, launch.launch_jaccl)
    start(argparse.ArgumentParser(), read.hosts, flags, ["true"])
    return [
        {
            "MLX_RANK": str(rank),
            **dict(pair.split("=", 1) for pair in env),
            **{f"THUNDER_FILE_{name}": content for name, content in files.items()},
        }
        for (rank, _ssh, _python, _folder, files, env, _command), _ in arguments_of_ranks
    ]


@pytest.mark.mlx
@pytest.mark.parametrize(
    "description",
    [
        hostfile("ring", host("mac4", ["10.0.5.1", "10.0.6.1"]), host("mac5", ["10.0.5.2"]), envs=["A=b=c"]),
        hostfile(
            "jaccl", host("mac4", ["10.0.5.1"], [None, "rdma_en5"]), host("mac5", [], ["rdma_en3", None]), envs=["A=b"]
        ),
        hostfile(
            "jaccl-ring",
            host("a", ["10.0.5.1"], [None, "rdma_en5", None, "rdma_en4"]),
            host("b", [], ["rdma_en5", None, "rdma_en4", None]),
            host("c", [], [None, "rdma_en5", None, "rdma_en4"]),
            host("d", [], ["rdma_en5", None, "rdma_en4", None]),
        ),
        hostfile("nccl", *[host(name, ["10.0.0.1"]) for name in "aabb"]),
    ],
    ids=lambda description: description["backend"],
)
def test_every_rank_gets_the_environment_of_mlx_launch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, description: dict[str, Any]
) -> None:
    """
    MLX may change what its backends read, so the installed launcher is the reference. None of this needs a Mac.
    """
    assert mlx_launch(monkeypatch, tmp_path, description) == environments(description, where="hosts.json")


@pytest.mark.parametrize("ip", ["0.0.0.0", "0", "0.0", "::", "0:0:0:0:0:0:0:0"])  # noqa: S104
def test_no_rank_listens_on_every_network(ip: str) -> None:
    """
    MLX's ring takes whoever connects first for the neighbour.
    """
    what = f"{ip!r} would let a rank listen on every network; give the address on the training link"
    assert [f"hosts.json: hosts[1].ips: {what}"] == refusal(hostfile("ring", host(ips=["127.0.0.1"]), host(ips=[ip])))


def test_ranks_of_a_local_cluster_listen_on_this_machine_alone(tmp_path: Path) -> None:
    """
    `ranks = 2` names no address, and no other machine may reach the ranks.
    """
    description = hostfiles.hostfile(smoke(tmp_path).cluster)
    table = json.loads(environments(description, "hosts.json")[0]["THUNDER_FILE_MLX_HOSTFILE"])

    assert ["127.0.0.1", "127.0.0.1"] == [link.rpartition(":")[0] for links in table for link in links]
