"""Which links a cluster has, which of them its backend needs, and whether a connection went over one."""

from typing import Any

import pytest

from thunder_train.cluster.links import Link, _link_problems, address_problem, is_over_link, links_of
from thunder_train.config.project import Cluster, Host
from thunder_train.core import privacy

INTERFACES = [
    {"name": "lo0", "kind": "loopback", "addresses": ["127.0.0.1/8"]},
    {"name": "bridge0", "kind": "Thunderbolt Bridge", "addresses": ["10.0.5.1/24"]},
    {"name": "en0", "kind": "Wi-Fi", "addresses": ["192.168.1.4/24"]},
]
FACTS: dict[str, Any] = {"interfaces": INTERFACES}


def macs(backend: str = "ring", *hosts: Host) -> Cluster:
    """Two remote hosts, or others."""
    two = (Host("mac4", ("10.0.5.1",), ()), Host("mac5", ("10.0.5.2",), ()))
    return Cluster("macs", backend, hosts or two, (), "projects/thunder train", ".venv/bin/python")


def test_a_ring_needs_each_ranks_next_and_reports_the_others() -> None:
    """
    Where cables join neighbours only, a Mac that does not reach the others is not broken.
    """
    hosts = [Host(f"mac{number}", (f"10.0.5.{number}",), ()) for number in (1, 2, 3)]
    links = links_of(macs("ring", *hosts))

    assert 6 == len(links)
    assert [("mac1", "mac2"), ("mac2", "mac3"), ("mac3", "mac1")] == [
        (link.source, link.target) for link in links if link.is_needed
    ]


def test_other_backends_connect_to_rank_0() -> None:
    """
    jaccl's coordinator is there; its tensors go over RDMA.
    """
    hosts = [Host(f"mac{number}", (f"10.0.5.{number}",) if number == 1 else (), ()) for number in (1, 2, 3)]

    assert [Link("mac2", "mac1", "10.0.5.1", True), Link("mac3", "mac1", "10.0.5.1", True)] == links_of(
        macs("jaccl", *hosts)
    )


def test_mpi_needs_every_link() -> None:
    """
    Open MPI chooses which rank sends to which in an all-reduce.
    """
    hosts = [Host(f"mac{number}", (f"10.0.5.{number}",), ()) for number in (1, 2, 3)]

    assert [True] * 6 == [link.is_needed for link in links_of(macs("mpi", *hosts))]


def test_ranks_of_one_host_are_no_link() -> None:
    """
    Each other host is measured once, however many ranks it has.
    """
    one, other = Host("mac4", ("10.0.5.1",), ()), Host("mac5", ("10.0.5.2",), ())

    assert [("mac4", "10.0.5.2", True), ("mac5", "10.0.5.1", True)] == [
        (link.source, link.address, link.is_needed) for link in links_of(macs("ring", one, one, other))
    ]


def test_an_address_of_another_host_is_reported_with_the_right_ones() -> None:
    """
    Addresses on Thunderbolt change when a Mac starts or a cable moves.
    """
    assert (
        "host mac4: 10.0.5.9 is not an address of mac4; it has 10.0.5.1 (bridge0, Thunderbolt Bridge), "
        "192.168.1.4 (en0, Wi-Fi); correct ips in [clusters] of thunder.toml, or set the address there"
    ) == str(address_problem("mac4", "10.0.5.9", FACTS))


@pytest.mark.parametrize(
    ("source", "address", "expected"),
    [
        ("10.0.5.1", "10.0.5.2", True),  # from the address of [clusters]
        ("192.168.1.4", "10.0.5.2", False),  # by Wi-Fi and its router
        ("192.168.1.4", "192.168.1.9", True),  # a cable of its own, as in a ring of cables
        ("10.9.9.9", "10.0.5.2", False),  # an address of no interface
        ("192.168.1.4", "mac5.local", False),  # a name instead of an address
    ],
)
def test_a_connection_over_another_interface_is_detected(source: str, address: str, expected: bool) -> None:
    """
    It would train, at a third of the speed.
    """
    assert expected == is_over_link(source, Link("mac4", "mac5", address, True), macs(), FACTS)


def test_the_nearer_of_two_interfaces_in_one_network_is_the_wrong_one() -> None:
    """
    Wi-Fi and cable with addresses of the same network: the system takes either.
    """
    both = {**FACTS, "interfaces": [*INTERFACES, {"name": "en1", "kind": "Wi-Fi", "addresses": ["10.0.5.7/24"]}]}

    assert not is_over_link("10.0.5.7", Link("mac4", "mac5", "10.0.5.2", True), macs(), both)


@pytest.mark.parametrize(("source", "is_hinted"), [("localhost", True), ("mac4", False)])
def test_no_route_from_this_mac_may_be_a_permission(
    source: str, is_hinted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A host's program was started by sshd, which macOS exempts; a terminal here needs the permission. Untested on a Mac.
    """
    monkeypatch.setattr(privacy.hint, "__defaults__", (True,))
    link = Link(source, "mac5", "10.0.5.2", True)
    (problem,) = _link_problems(link, {"error": "No route to host"}, macs(), FACTS)
    hint = "check the cable, ips in [clusters], and the firewall of mac5"

    assert f"{hint}; {privacy.LOCAL_NETWORK}" * is_hinted + hint * (not is_hinted) == problem.hint
