"""What preflight says of Macs, from their answers. Untested on a Mac."""

from dataclasses import replace
from typing import Any

import pytest

from thunder_train.cluster import mac_hosts
from thunder_train.config.project import Cluster, Host

MAC: dict[str, Any] = {
    "macos": "26.2",
    "chip": "Apple M4 Pro",
    "sleep_minutes": 0,
    "is_on_battery": False,
    "is_lid_closed": False,
    "bridges": {"bridge0": ["en2"]},
    "thunderbolt_gbit": 120,
    "rdma_ports": {"rdma_en2": "PORT_DOWN", "rdma_en5": "PORT_ACTIVE"},
    "working_set_bytes": None,
}
"""A Mac about which nothing is to be said."""
JACCL = Cluster("macs", "jaccl", (Host("mac4", ("10.0.5.1",), ("", "rdma_en5")),), (), "thunder", ".venv/bin/python")


def facts(rdma: list[str] | None = None, **changed: object) -> dict[str, Any]:
    """Facts of a Mac with changed properties."""
    devices = ["rdma_en2", "rdma_en5"] if rdma is None else rdma
    return {"platform": "darwin-arm64", "mac": {**MAC, **changed}, "rdma": devices, "usable_memory_bytes": 16 << 30}


def test_a_mac_that_is_as_it_should_be_gets_no_warning() -> None:
    """
    Nor does a Linux machine.
    """
    assert [] == mac_hosts.warnings("mac4", facts())
    assert [] == mac_hosts.warnings("linux", {"mac": None})
    assert [] == mac_hosts.problems("mac4", facts(), JACCL)


def test_every_reason_why_a_mac_may_fall_asleep_has_its_cure() -> None:
    """
    A training over night ends with it, and as a silent host.
    """
    asleep = facts(is_on_battery=True, is_lid_closed=True, sleep_minutes=10)

    assert [
        "host mac4: runs on battery, where macOS may sleep in spite of caffeinate; connect its power adapter",
        "host mac4: its lid is closed; it sleeps unless a display and power are connected; "
        "open the lid, and let the display sleep",
        "host mac4: sleeps after 10 idle minutes, and does not answer then; "
        "`ssh -t mac4 sudo pmset -c sleep 0`; while it trains, caffeinate keeps it awake",
    ] == list(map(str, mac_hosts.warnings("mac4", asleep)))
    assert 2 == len(mac_hosts.warnings("localhost", asleep))  # its user is there, and caffeinate runs with the launcher


def test_several_cables_in_one_bridge_are_named_and_refused_for_jaccl() -> None:
    """
    Three Macs in a ring of bridges send a broadcast around it for ever; one cable in the bridge is Apple's default.
    """
    bridged = facts(bridges={"bridge0": ["en2", "en3"], "bridge1": []})

    (warning,) = mac_hosts.warnings("mac4", bridged)
    assert "host mac4: bridge0 joins en2, en3: in a ring of Macs its packets circle without end" in str(warning)
    assert [
        "host mac4: bridge0 joins en2, en3, which jaccl cannot use in a bridge; take the ports out of the bridge "
        "(System Settings > Network > Thunderbolt Bridge) and give each cable a subnet of its own; "
        'or use backend = "ring"'
    ] == list(map(str, mac_hosts.problems("mac4", bridged, JACCL)))
    assert [] == mac_hosts.problems("mac4", bridged, replace(JACCL, backend="ring"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"thunderbolt_gbit": 40}, "its Thunderbolt ports run at 40 Gbit/s at most, and RDMA needs Thunderbolt 5; "),
        ({"macos": "26.1"}, "has macOS 26.1, and RDMA needs 26.2; update it; "),
        ({"macos": "15.7.2"}, "has macOS 15.7.2, and RDMA needs 26.2; update it; "),
        ({"macos": "unknown"}, "has no RDMA device; RDMA needs Thunderbolt 5, macOS 26.2 and "),
        ({}, "has no RDMA device; RDMA needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; "),
    ],
)
def test_a_mac_without_rdma_says_why(changed: dict[str, object], expected: str) -> None:
    """
    Who has Thunderbolt 4 need not start into Recovery to find out.
    """
    (problem,) = mac_hosts.problems("mac4", facts([], **changed), JACCL)

    assert str(problem).startswith(f"host mac4: {expected}")
    assert str(problem).endswith('use backend = "ring"')


def test_a_port_must_be_active_and_not_only_have_a_name() -> None:
    """
    A device exists without a cable, and while RDMA is off at the other end; jaccl then waits or crashes.
    """
    down = facts(rdma_ports={"rdma_en2": "PORT_ACTIVE", "rdma_en5": "PORT_DOWN"})

    assert [
        "host mac4: rdma_en5 is PORT_DOWN; check the cable, a Thunderbolt 5 one, and `rdma_ctl status` at its other "
        'end; or use backend = "ring"'
    ] == list(map(str, mac_hosts.problems("mac4", down, JACCL)))
    assert [] == mac_hosts.problems("mac4", facts(rdma_ports={}), JACCL)  # no ibv_devinfo: nothing is known


def test_memory_is_what_metal_recommends_or_two_thirds() -> None:
    """
    10.67 GiB of 16.
    """
    assert 11453246122 == mac_hosts.usable_memory(facts(working_set_bytes=11453246122))
    assert 10.67 == round(mac_hosts.usable_memory(facts()) / (1 << 30), 2)
    assert 16 << 30 == mac_hosts.usable_memory({**facts(), "mac": None})


def test_the_table_names_system_and_chip() -> None:
    """
    A host with an old macOS is seen before it fails.
    """
    assert "macOS 26.2, Apple M4 Pro" == mac_hosts.system(facts())
    assert "macOS 26.2" == mac_hosts.system(facts(chip=""))
    assert "linux-x86_64" == mac_hosts.system({"platform": "linux-x86_64", "mac": None})
