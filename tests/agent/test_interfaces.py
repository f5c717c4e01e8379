"""Interfaces and RDMA devices, parsed from the output of the tools of Linux and macOS.

macOS: texts that we typed after users' posts, which each test names. There was no Mac to record one.
"""

import json
import sys
from typing import Any

import pytest

from thunder_train.agent import interfaces

PORTS = """\

Hardware Port: Ethernet
Device: en0
Ethernet Address: 02:00:00:00:00:01

Hardware Port: Thunderbolt 1
Device: en2
Ethernet Address: 02:00:00:00:00:02

Hardware Port: Thunderbolt 2
Device: en3
Ethernet Address: 02:00:00:00:00:03

Hardware Port: Thunderbolt Bridge
Device: bridge0
Ethernet Address: 02:00:00:00:00:04

Hardware Port: Thunderbolt Ethernet Slot 1
Device: en7
Ethernet Address: 02:00:00:00:00:05

Hardware Port: Wi-Fi
Device: en1
Ethernet Address: 02:00:00:00:00:06

VLAN Configurations
===================
"""
IFCONFIG = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
\toptions=1203<RXCSUM,TXCSUM,TXSTATUS,SW_TIMESTAMP>
\tinet 127.0.0.1 netmask 0xff000000
\tinet6 ::1 prefixlen 128
\tinet 127.0.5.1 netmask 0xff000000
gif0: flags=8010<POINTOPOINT,MULTICAST> mtu 1280
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 172.20.40.9 netmask 0xffffe000 broadcast 172.20.63.255
\tmedia: autoselect (1000baseT <full-duplex,flow-control>)
\tstatus: active
en1: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tether 02:00:00:00:00:06
\tinet6 fe80::1%en1 prefixlen 64 secured scopeid 0xb
\tinet 192.168.1.23 netmask 0xffffff00 broadcast 192.168.1.255
\tmedia: autoselect
\tstatus: active
bridge0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
        options=63<RXCSUM,TXCSUM,TSO4,TSO6>
        inet 10.0.5.1 netmask 0xfffffffc broadcast 10.0.5.3
        Configuration:
                id 0:0:0:0:0:0 priority 0 hellotime 0 fwddelay 0
        member: en2 flags=3<LEARNING,DISCOVER>
                ifmaxaddr 0 port 9 priority 0 path cost 0
        media: autoselect
        status: active
utun3: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
\tinet 100.64.5.7 --> 100.64.5.7 netmask 0xffffffff
utun5: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1280
\tinet 100.64.6.7 --> 100.64.6.7 netmask 0x20
utun6: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1500
\tinet6 fe80::2%utun6 prefixlen 64 scopeid 0x5
"""
BRIDGE_DOWN = """\
en2: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 192.168.0.1 netmask 0xfffffffc broadcast 192.168.0.3
\tmedia: autoselect <full-duplex>
\tstatus: active
en3: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 192.168.0.5 netmask 0xfffffffc broadcast 192.168.0.7
\tmedia: autoselect <full-duplex>
\tstatus: inactive
bridge0: flags=8822<BROADCAST,SMART,SIMPLEX,MULTICAST> mtu 1500
\tinet 10.0.5.1 netmask 0xfffffffc broadcast 10.0.5.3
\tmember: en2 flags=3<LEARNING,DISCOVER>
\t        ifmaxaddr 0 port 9 priority 0 path cost 0
\tstatus: active
"""
IBV_DEVICES = """\
    device          \t   node GUID
    ------          \t----------------
    rdma_en5        \t8396a9d9edbaac05
    rdma_en2        \t8096a9d9edbaac05
"""


def test_a_macs_thunderbolt_bridge_differs_from_its_wifi() -> None:
    """
    A hostfile with the Wi-Fi address trains, at a third of the speed. Forms: mlx#1903 (a bridge, indented by spaces),
    tun2socks#44 (two addresses, a VPN of IPv6 alone), glpi-agent#673 (a mask of 19 bits), tailscale#1296 (a mask that
    is none and names no network: left out); macOS ends many lines with a space.
    """
    assert [
        {"name": "lo0", "kind": "loopback", "addresses": ["127.0.0.1/8", "127.0.5.1/8"]},
        {"name": "en0", "kind": "Ethernet", "addresses": ["172.20.40.9/19"]},
        {"name": "en1", "kind": "Wi-Fi", "addresses": ["192.168.1.23/24"]},
        {"name": "bridge0", "kind": "Thunderbolt Bridge", "addresses": ["10.0.5.1/30"]},
        {"name": "utun3", "kind": "tunnel", "addresses": ["100.64.5.7/32"]},
    ] == interfaces.from_ifconfig(IFCONFIG.replace("\n", " \n"), interfaces.hardware_ports(PORTS))


def test_cables_have_addresses_of_their_own_when_the_bridge_is_down() -> None:
    """
    `mlx.distributed_config --auto-setup` leaves a Mac like this. A pulled cable and a bridge that is down keep their
    addresses. We found no post that shows it.
    """
    assert [{"name": "en2", "kind": "Thunderbolt 1", "addresses": ["192.168.0.1/30"]}] == interfaces.from_ifconfig(
        BRIDGE_DOWN, interfaces.hardware_ports(PORTS)
    )


def test_addresses_of_linux_interfaces_that_are_up_are_read() -> None:
    """
    The same table from `ip -json address`; IPv6 is left out, because MLX's ring is IPv4.
    """
    rows = [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [_address("inet", "127.0.0.1", 8)]},
        {
            "ifname": "eth0",
            "flags": ["UP"],
            "addr_info": [_address("inet6", "fe80::1", 64), _address("inet", "10.1.0.2", 24)],
        },
        {"ifname": "thunderbolt0", "flags": ["UP"], "addr_info": [_address("inet", "10.0.5.2", 30)]},
        {"ifname": "wg0", "flags": ["POINTOPOINT", "UP"], "addr_info": [_address("inet", "10.8.0.2", 24)]},
        {"ifname": "eth1", "flags": ["BROADCAST"], "addr_info": [_address("inet", "10.2.0.2", 24)]},
        {"ifname": "eth2", "flags": ["UP"], "addr_info": []},
    ]

    assert [
        {"name": "lo", "kind": "loopback", "addresses": ["127.0.0.1/8"]},
        {"name": "eth0", "kind": "", "addresses": ["10.1.0.2/24"]},
        {"name": "thunderbolt0", "kind": "Thunderbolt", "addresses": ["10.0.5.2/30"]},
        {"name": "wg0", "kind": "tunnel", "addresses": ["10.8.0.2/24"]},
    ] == interfaces.from_ip(json.dumps(rows))


def _address(family: str, local: str, prefixlen: int) -> dict[str, Any]:
    return {"family": family, "local": local, "prefixlen": prefixlen}


def test_rdma_devices_are_listed_by_name() -> None:
    """
    Their names change when a Mac starts, so each preflight compares them with the matrix. Form: MLX's manual.
    """
    assert ["rdma_en2", "rdma_en5"] == interfaces.from_ibv_devices(IBV_DEVICES)


def test_a_mac_whose_rdma_is_off_has_an_empty_list() -> None:
    """
    Thunderbolt 4, and a Mac whose rdma_ctl was never enabled, print the titles alone: omlx#3037.
    """
    assert [] == interfaces.from_ibv_devices("".join(IBV_DEVICES.splitlines(keepends=True)[:2]))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's ip")
def test_this_machine_has_a_loopback() -> None:
    """
    The real command, not only a typed text. It may be missing in a small container.
    """
    rows = interfaces.interfaces()

    assert not rows or "127.0.0.1/8" in [each for one in rows for each in one["addresses"]]


def test_a_missing_command_has_no_output() -> None:
    """
    No tool is required: links can be measured without it.
    """
    assert "" == interfaces.output_of("no-such-command-of-ours")


def test_bytes_that_are_not_utf8_are_read() -> None:
    """
    `ps` lists the commands of everyone on the host.
    """
    assert "\ufffd" == interfaces.output_of(sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\xe9')")
