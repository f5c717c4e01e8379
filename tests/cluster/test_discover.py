"""Discovery: which of the hosts' addresses make the best training link."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.agent.test_answers import FACTS as ANSWER
from tests.agent.test_client import play_ssh
from tests.helpers.fake_hosts import refusal
from thunder_train.cluster import discover
from thunder_train.config.project import Cluster, Host


def interface(name: str, kind: str, *addresses: str) -> dict[str, object]:
    return {"name": name, "kind": kind, "addresses": list(addresses)}


def facts_of(*interfaces: dict[str, object], ssh: str = "", rdma: tuple[str, ...] = ()) -> dict[str, object]:
    """Facts of a host, as far as discovery reads them."""
    loopback = interface("lo0", "loopback", "127.0.0.1/8")
    return {"interfaces": [loopback, *interfaces], "ssh_address": [ssh] if ssh else [], "rdma": list(rdma)}


def pair(*ips: str) -> Cluster:
    """mac4 and mac5, with the given addresses if any."""
    given: list[tuple[str, ...]] = [(ip,) for ip in ips] or [(), ()]
    two = tuple(Host(name, ip, ()) for name, ip in zip(("mac4", "mac5"), given, strict=True))
    return Cluster("macs", "ring", two, (), "thunder-train", ".venv/bin/python")


WIFI = [interface("en0", "Wi-Fi", f"192.168.1.{number}/24") for number in (4, 5)]
BRIDGE = [interface("bridge0", "Thunderbolt Bridge", f"10.0.5.{number}/24") for number in (1, 2)]
LAN = [interface("eth0", "", f"192.168.2.{number}/24") for number in (4, 5)]


def test_thunderbolt_is_chosen_and_the_table_is_toml() -> None:
    """
    What is printed can be pasted into thunder.toml as it is; the rest is comments.
    """
    facts = {
        "mac4": facts_of(WIFI[0], BRIDGE[0], ssh="192.168.1.4", rdma=("rdma_en2",)),
        "mac5": facts_of(WIFI[1], BRIDGE[1], ssh="192.168.1.5"),
    }
    text = discover.as_table(pair(), facts)

    assert (
        "# mac4: en0 (Wi-Fi): 192.168.1.4/24, ssh goes over it\n"
        "# mac4: bridge0 (Thunderbolt Bridge): 10.0.5.1/24\n"
        "# mac4: RDMA rdma_en2; `mlx.distributed_config` shows which cable each is on\n"
        "# mac5: en0 (Wi-Fi): 192.168.1.5/24, ssh goes over it\n"
        "# mac5: bridge0 (Thunderbolt Bridge): 10.0.5.2/24\n"
        "[clusters.macs]\n"
    ) == text[: text.index("backend")]
    assert {
        "backend": "ring",
        "folder": "thunder-train",
        "python": ".venv/bin/python",
        "hosts": [{"ssh": "mac4", "ips": ["10.0.5.1"]}, {"ssh": "mac5", "ips": ["10.0.5.2"]}],
    } == tomllib.loads(text)["clusters"]["macs"]


def test_the_old_tables_settings_are_in_the_new_one() -> None:
    """
    It replaces the old one: a forgotten weight would make a fast Mac wait.
    """
    hosts_before = (Host("mac4", ("10.0.5.1",), ("", "rdma_en2"), 2.0), Host("mac5", ("10.0.5.2",), ("rdma_en3", "")))
    before = Cluster("macs", "jaccl", hosts_before, ("A=1",), "thunder-train", ".venv/bin/python")
    text = discover.as_table(before, {"mac4": facts_of(BRIDGE[0]), "mac5": facts_of(BRIDGE[1])})

    assert {
        "backend": "jaccl",
        "envs": ["A=1"],
        "folder": "thunder-train",
        "python": ".venv/bin/python",
        "hosts": [
            {"ssh": "mac4", "ips": ["10.0.5.1"], "rdma": ["", "rdma_en2"], "weight": 2.0},
            {"ssh": "mac5", "ips": ["10.0.5.2"], "rdma": ["rdma_en3", ""]},
        ],
    } == tomllib.loads(text)["clusters"]["macs"]


def test_without_thunderbolt_the_given_addresses_stay() -> None:
    """
    A user chose them.
    """
    other = [interface("eth1", "", f"172.16.0.{number}/24") for number in (1, 2)]
    facts = {"mac4": facts_of(LAN[0], other[0]), "mac5": facts_of(LAN[1], other[1])}

    assert {"mac4": "192.168.2.4", "mac5": "192.168.2.5"} == discover.training_addresses(
        pair("192.168.2.4", "192.168.2.5"), facts
    )


def test_else_a_network_that_ssh_does_not_use() -> None:
    """
    Of two networks one is for people, and the other was built for a purpose.
    """
    other = [interface("eth1", "", f"192.168.9.{number}/24") for number in (1, 2)]
    facts = {
        "mac4": facts_of(LAN[0], other[0], WIFI[0], ssh="192.168.2.4"),
        "mac5": facts_of(LAN[1], other[1], WIFI[1], ssh="192.168.2.5"),
    }

    assert {"mac4": "192.168.9.1", "mac5": "192.168.9.2"} == discover.training_addresses(pair(), facts)


def test_a_network_of_one_host_alone_is_none() -> None:
    """
    A Thunderbolt cable may go to a disk, or to a third Mac.
    """
    facts = {"mac4": facts_of(WIFI[0], BRIDGE[0]), "mac5": facts_of(WIFI[1])}

    assert {"mac4": "192.168.1.4", "mac5": "192.168.1.5"} == discover.training_addresses(pair(), facts)


def test_a_cable_with_an_address_of_its_own_is_thunderbolt() -> None:
    """
    `mlx.distributed_config --auto-setup` takes the bridge down and gives each cable a network; port numbers may differ.
    """
    cables = [interface(f"en{number}", f"Thunderbolt {number}", f"192.168.0.{number}/30") for number in (1, 2)]
    facts = {"mac4": facts_of(LAN[0], cables[0]), "mac5": facts_of(LAN[1], cables[1])}

    assert {"mac4": "192.168.0.1", "mac5": "192.168.0.2"} == discover.training_addresses(pair(), facts)


def test_the_ethernet_of_a_thunderbolt_dock_is_ethernet() -> None:
    """
    macOS calls it "Thunderbolt Ethernet Slot 1": the given addresses stay.
    """
    dock = [interface("en7", "Thunderbolt Ethernet Slot 1", f"172.16.0.{number}/24") for number in (1, 2)]
    facts = {"mac4": facts_of(LAN[0], dock[0]), "mac5": facts_of(LAN[1], dock[1])}

    assert {"mac4": "192.168.2.4", "mac5": "192.168.2.5"} == discover.training_addresses(
        pair("192.168.2.4", "192.168.2.5"), facts
    )


def test_a_vpn_is_no_training_link() -> None:
    """
    Both hosts are in it, and ssh does not use it; yet its packets go over the ordinary network.
    """
    tunnels = [interface("utun4", "tunnel", f"10.8.0.{number}/24") for number in (2, 3)]
    facts = {
        "mac4": facts_of(tunnels[0], LAN[0], ssh="192.168.2.4"),
        "mac5": facts_of(tunnels[1], LAN[1], ssh="192.168.2.5"),
    }

    assert {"mac4": "192.168.2.4", "mac5": "192.168.2.5"} == discover.training_addresses(pair(), facts)


def test_an_address_that_both_hosts_have_joins_nothing() -> None:
    """
    Virtual machines give each Mac the same: Colima 192.168.106.1 on bridge100 (abiosoft/colima, issue 458).
    """
    bridge = interface("bridge100", "", "192.168.106.1/24")
    facts = {"mac4": facts_of(bridge, LAN[0], ssh="192.168.2.4"), "mac5": facts_of(bridge, LAN[1], ssh="192.168.2.5")}

    assert {"mac4": "192.168.2.4", "mac5": "192.168.2.5"} == discover.training_addresses(pair(), facts)


def test_hosts_that_share_no_network_keep_their_addresses() -> None:
    """
    With a new cable a Mac assigns itself 169.254.x.y, which changes and which it routes over its Wi-Fi.
    """
    bridge = [interface("bridge0", "Thunderbolt Bridge", f"169.254.1.{number}/16") for number in (1, 2)]
    text = discover.as_table(pair("10.0.5.1", "10.0.5.2"), {"mac4": facts_of(bridge[0]), "mac5": facts_of(bridge[1])})

    hint = "self-assigned: give it a fixed address to train over it"
    assert f"# mac4: bridge0 (Thunderbolt Bridge): 169.254.1.1/16, {hint}\n" in text
    assert "# No network holds an address of every host: join them by a cable, or give addresses by hand.\n" in text
    assert [["10.0.5.1"], ["10.0.5.2"]] == [host["ips"] for host in tomllib.loads(text)["clusters"]["macs"]["hosts"]]


def test_ranks_of_one_host_share_its_address() -> None:
    """
    One table per rank, as thunder.toml has it.
    """
    cluster = Cluster("macs", "ring", pair().hosts + pair().hosts[:1], ("A=1",), "thunder-train", ".venv/bin/python")
    table = tomllib.loads(discover.as_table(cluster, {"mac4": facts_of(BRIDGE[0]), "mac5": facts_of(BRIDGE[1])}))

    assert ["10.0.5.1", "10.0.5.2", "10.0.5.1"] == [host["ips"][0] for host in table["clusters"]["macs"]["hosts"]]
    assert ["A=1"] == table["clusters"]["macs"]["envs"]


def test_no_name_of_a_host_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The table is pasted into thunder.toml: a line that a host wrote would be part of a configuration.
    """
    evil = 'en0\n[clusters.macs.evil]\nfolder = "x"'
    fake = facts_of({"name": evil, "kind": evil, "addresses": ["10.0.5.1/24"]}, rdma=(evil,))
    table = tomllib.loads(discover.as_table(pair("10.0.5.1", "10.0.5.2"), {"mac4": fake, "mac5": facts_of(LAN[1])}))

    assert ["backend", "folder", "hosts", "python"] == sorted(table["clusters"]["macs"])
    assert ["macs"] == list(table["clusters"])


@pytest.mark.parametrize(
    "interface",
    [
        {"name": 'en0\n[clusters.evil]\nfolder = "x"', "kind": "", "addresses": ["10.0.5.1/24"]},
        {"name": "en0", "kind": "", "addresses": ['10.0.5.1"]\nenvs = ["LD_PRELOAD=/tmp/x"/24']},
        {"name": "en0", "kind": "", "addresses": ["not an address/24"]},
    ],
)
def test_a_host_that_names_its_interface_oddly_is_refused(
    interface: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nothing is printed then.
    """
    facts = {**ANSWER, "interfaces": [interface]}
    (tmp_path / "answer").write_text(f"thunder-answer {json.dumps(facts)}\n")
    play_ssh(tmp_path, f"cat {tmp_path}/answer; exec sleep 60", monkeypatch)

    lines = refusal(discover.discover, pair())

    assert ["mac4", "mac5"] == [line.split()[1].rstrip(":") for line in lines]
    assert all(
        f"host {host}: its answer to `facts` is not one: " in line
        for host, line in zip(("mac4", "mac5"), lines, strict=True)
    )
