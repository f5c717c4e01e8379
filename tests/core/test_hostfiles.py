"""Hostfiles as other programs write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from thunder_train.core import hostfiles
from thunder_train.launch import backends

OURS = {"backend": "ring", "envs": [], "hosts": [{"ssh": "a", "ips": ["10.0.0.1"], "rdma": []}]}


def read(folder: Path, content: Any) -> Any:
    """A hostfile with this content."""
    (folder / "hosts.json").write_text(json.dumps(content))
    return hostfiles.read(folder / "hosts.json")


@pytest.mark.parametrize(
    "content",
    [
        OURS,
        [{"ssh": "a", "ips": ["10.0.0.1"]}],
        {"hosts": [{"ssh": "a", "ips": ["10.0.0.1"], "rdma": []}]},
        {"backend": "", "envs": [], "hosts": [{"ssh": "a", "ips": ["10.0.0.1"]}]},
    ],
    ids=["ours", "a list", "without backend", "mlx.distributed_config's"],
)
def test_every_form_becomes_ours(tmp_path: Path, content: Any) -> None:
    """
    mlx.launch takes them all, and users have such files.
    """
    assert OURS == read(tmp_path, content)


def test_several_addresses_and_cables_stay(tmp_path: Path) -> None:
    """
    mlx.distributed_config writes one address for each Thunderbolt port, and a list of devices for each neighbour.
    """
    hosts = [
        {"ssh": "a", "ips": ["10.0.0.1", "10.0.1.1"], "rdma": [None, ["rdma_en2", "rdma_en3"]]},
        {"ssh": "b", "ips": ["10.0.0.2", "10.0.1.2"], "rdma": [["rdma_en2", "rdma_en3"], None]},
    ]
    description = read(tmp_path, {"backend": "jaccl-ring", "envs": ["A=1"], "hosts": hosts})

    assert (hosts, [], "jaccl-ring") == (
        description["hosts"],
        backends.problems(description, "hosts.json"),
        description["backend"],
    )
    ring = backends.environments({**description, "backend": "ring"}, "hosts.json")
    addresses = [["10.0.0.1:32323", "10.0.1.1:32324"], ["10.0.0.2:32325", "10.0.1.2:32326"]]
    assert addresses == json.loads(ring[0]["THUNDER_FILE_MLX_HOSTFILE"])


def test_hosts_without_addresses_are_looked_up(tmp_path: Path) -> None:
    """
    A name of ~/.ssh/config is none that a network knows: it keeps the error that asks for an address.
    """
    names = ["me@192.0.2.7", "localhost", "no-such-host.invalid"]
    description = hostfiles.with_addresses(read(tmp_path, [{"ssh": name} for name in names]))

    assert [["192.0.2.7"], ["127.0.0.1"], []] == [host["ips"] for host in description["hosts"]]
    problems = [str(each) for each in backends.problems(description, "hosts.json")]
    assert [True] == ["hosts.json: hosts[2].ips: has no address on the training link" in each for each in problems]


@pytest.mark.parametrize("content", [[1, 2], {"hosts": 3}, "hosts", {"hosts": [{"ips": []}]}, None])
def test_other_content_is_an_error_and_no_traceback(tmp_path: Path, content: Any) -> None:
    """
    A file that somebody edited may hold anything.
    """
    description = hostfiles.with_addresses(read(tmp_path, content))

    expected = 'hosts.json: must be {"backend", "envs", "hosts": [{"ssh", "ips", "rdma"}]}; '
    assert str(backends.problems(description, "hosts.json")[0]).startswith(expected)


def test_a_slot_of_the_matrix_may_name_several_cables() -> None:
    """
    Two Thunderbolt cables between two Macs; jaccl-ring uses both.
    """
    assert [[], ["rdma_en2"], ["rdma_en2", "rdma_en3"]] == [
        hostfiles.cables(slot) for slot in ("", "rdma_en2", "rdma_en2, rdma_en3")
    ]
