"""What each rank is told about the others."""

import argparse
import json

import pytest

from thunder_train import ThunderError
from thunder_train.launch.backends import environments

HINT = "run `./doit hostfile`, or mend [clusters] in thunder.toml"


def host(ssh="127.0.0.1", ips=("127.0.0.1",), rdma=()):
    return {"ssh": ssh, "ips": list(ips), "rdma": list(rdma)}


def hostfile(backend, *hosts, envs=()):
    return {"backend": backend, "envs": list(envs), "hosts": list(hosts)}


def refusal(description):
    with pytest.raises(ThunderError) as caught:
        environments(description, where="hosts.json")
    return str(caught.value).split("\n")


def test_local_ring_ranks_get_ports_of_their_own():
    """
    Two trainings on one machine must not meet on a fixed port.
    """
    first, second = environments(hostfile("ring", host(), host()), where="hosts.json")
    links = json.loads(first["THUNDER_FILE_MLX_HOSTFILE"])

    assert ("0", "1") == (first["MLX_RANK"], second["MLX_RANK"])
    assert first["THUNDER_FILE_MLX_HOSTFILE"] == second["THUNDER_FILE_MLX_HOSTFILE"]
    assert 2 == len({link for [link] in links})
    assert all(link.startswith("127.0.0.1:") for [link] in links)


def test_remote_ring_ranks_get_mlx_ports_for_every_address():
    """
    Nobody can look for a free port on another machine, so the ports are those of mlx.launch.
    """
    macs = [host("mac4", ["10.0.5.1", "10.0.6.1"]), host("mac5", ["10.0.5.2"])]
    first, _ = environments(hostfile("ring", *macs), where="hosts.json")

    expected = [["10.0.5.1:32323", "10.0.6.1:32324"], ["10.0.5.2:32325"]]
    assert expected == json.loads(first["THUNDER_FILE_MLX_HOSTFILE"])


def test_a_restart_has_other_fixed_ports():
    """
    A rank that is stopped on another machine may still hold those of the first attempt.
    """
    macs = [host("mac4", ["10.0.5.1"]), host("mac5", ["10.0.5.2"])]
    cabled = [host("mac4", ["10.0.5.1"], [None, "rdma_en5"]), host("mac5", [], ["rdma_en3", None])]
    ring = environments(hostfile("ring", *macs), "hosts.json", attempt=2)[0]
    jaccl = environments(hostfile("jaccl", *cabled), "hosts.json", attempt=3)[0]

    assert '[["10.0.5.1:32223"], ["10.0.5.2:32224"]]' == ring["THUNDER_FILE_MLX_HOSTFILE"]
    assert "10.0.5.1:32123" == jaccl["MLX_JACCL_COORDINATOR"]


def test_jaccl_ranks_get_the_matrix_and_the_coordinator():
    """
    RDMA devices differ per pair; rank 0 is where they meet.
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


def test_nccl_ranks_on_one_machine_get_a_gpu_each():
    """
    CUDA_VISIBLE_DEVICES counts the ranks of that machine, not of the cluster.
    """
    machines = [host("a", ["10.0.0.1"]), host("a", ["10.0.0.1"]), host("b", ["10.0.0.2"])]
    ranks = environments(hostfile("nccl", *machines), where="hosts.json")

    assert ["0", "1", "0"] == [rank["CUDA_VISIBLE_DEVICES"] for rank in ranks]
    expected = {"NCCL_HOST_IP": "10.0.0.1", "NCCL_PORT": "12345", "MLX_WORLD_SIZE": "3"}
    assert expected == {name: ranks[2][name] for name in expected}


def test_a_single_host_needs_no_addresses():
    """
    One rank has nobody to find.
    """
    assert [{"MLX_RANK": "0"}] == environments(hostfile("ring", host(ips=())), where="hosts.json")


def test_mpi_ranks_of_one_machine_need_no_address():
    """
    They share its memory.
    """
    for name in ("127.0.0.1", "mac5"):
        found = environments(hostfile("mpi", host(name, ips=()), host(name, ips=())), "hosts.json")

        assert [{"MLX_RANK": "0"}, {"MLX_RANK": "1"}] == found


def test_mpi_needs_addresses_that_tell_machines_apart():
    """
    Open MPI knows them by nothing else; IPv6 and loopback lead it to no other host.
    """
    macs = [host("mac4", ()), host("mac5", ["10.0.5.2", "::1"]), host(), host("mac6", ["10.0.5.2"]), host("-o", ["a"])]

    expected = [
        "hosts.json: hosts[4].ssh: '-o' is no name for ssh; use the name of the host in ~/.ssh/config, or user@host",
        f"hosts.json: hosts[0].ips: has no address on the training link; {HINT}",
        f"hosts.json: hosts[1].ips: '::1' is no IPv4 address that another host could reach; {HINT}",
        f"hosts.json: hosts[2].ips: '127.0.0.1' is no IPv4 address that another host could reach; {HINT}",
        f"hosts.json: hosts[3].ips: '10.0.5.2' is another host's too; {HINT}",
        f"hosts.json: hosts[4].ips: 'a' is no IPv4 address that another host could reach; {HINT}",
    ]
    assert expected == refusal(hostfile("mpi", *macs))


def test_every_missing_cable_is_named():
    """
    jaccl itself would die in C++ with an error number.
    """
    macs = [host("mac4", ["10.0.5.1"], [None, None]), host("mac5", [], ["rdma_en3", "rdma_en4"])]

    expected = [
        "hosts.json: hosts[0].rdma: names no device towards mac5; read `ibv_devices` there",
        "hosts.json: hosts[1].rdma: slot 1 is this host's own and must be null",
    ]
    assert expected == refusal(hostfile("jaccl", *macs))


def test_what_is_no_hostfile_is_refused():
    """
    A hand-written file is checked before any process starts.
    """
    assert [f'hosts.json: must be {{"backend", "envs", "hosts": [{{"ssh", "ips", "rdma"}}]}}; {HINT}'] == refusal([])
    assert [f"hosts.json: hosts[1].ips: has no address on the training link; {HINT}"] == refusal(
        hostfile("ring", host(), host(ips=()))
    )


def test_an_address_of_another_machine_is_refused_before_anything_starts():
    """
    The ring would fail in C++ on one rank and leave the other waiting for ever.
    """
    local = host(ips=["192.0.2.1"])

    expected = (
        "hostfile: 192.0.2.1 is no address of this machine: Cannot assign requested address; correct ips in [clusters]"
    )
    assert [expected] == refusal(hostfile("ring", local, local))


def mlx_launch(monkeypatch, folder, description):
    """Each rank's environment, files by their content, as mlx.launch itself makes it of a hostfile; starts nothing."""
    from mlx._distributed_utils import launch
    from mlx._distributed_utils.common import Hostfile

    (folder / "hosts.json").write_text(json.dumps(description))
    read = Hostfile.from_file(folder / "hosts.json")
    made = []
    monkeypatch.setattr(launch, "_launch_with_io", lambda _, arguments, verbose: made.extend(arguments))
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
        for (rank, _ssh, _python, _folder, files, env, _command), _ in made
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
def test_every_rank_is_told_what_mlx_launch_would_tell_it(monkeypatch, tmp_path, description):
    """
    MLX may change what its backends read; its own launcher, as installed, is the measure. Nothing here needs a Mac.
    """
    assert mlx_launch(monkeypatch, tmp_path, description) == environments(description, where="hosts.json")
