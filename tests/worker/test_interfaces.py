"""Interfaces and RDMA devices as the tools of Linux and macOS print them.

macOS: after outputs that its users and MLX's documentation published; no Mac was at hand.
"""

import json
import sys

import pytest

from thunder_train.worker import interfaces

IFCONFIG = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
\toptions=1203<RXCSUM,TXCSUM,TXSTATUS,SW_TIMESTAMP>
\tinet 127.0.0.1 netmask 0xff000000
\tinet6 ::1 prefixlen 128
gif0: flags=8010<POINTOPOINT,MULTICAST> mtu 1280
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\toptions=6460<TSO4,TSO6,CHANNEL_IO,PARTIAL_CSUM,ZEROINVERT_CSUM>
\tether 3c:06:30:00:00:01
\tinet6 fe80::1c4f:a8b2:11d7:9a02%en0 prefixlen 64 secured scopeid 0xb
\tinet 192.168.1.23 netmask 0xffffff00 broadcast 192.168.1.255
\tmedia: autoselect
\tstatus: active
en5: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tinet 10.9.9.9 netmask 0xffffff00 broadcast 10.9.9.255
\tmedia: none
\tstatus: inactive
bridge0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\toptions=63<RXCSUM,TXCSUM,TSO4,TSO6>
\tether 36:18:c8:00:00:02
\tinet 10.0.5.1 netmask 0xfffffffc broadcast 10.0.5.3
\tConfiguration:
\t\tid 0:0:0:0:0:0 priority 0 hellotime 0 fwddelay 0
\tmember: en2 flags=3<LEARNING,DISCOVER>
\t        ifmaxaddr 0 port 9 priority 0 path cost 0
\tmedia: <unknown type>
\tstatus: active
utun3: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
\tinet 100.64.0.7 --> 100.64.0.7 netmask 0xffffffff
"""
PORTS = """\

Hardware Port: Ethernet Adapter (en4)
Device: en4
Ethernet Address: 3c:06:30:00:00:03

Hardware Port: Thunderbolt Bridge
Device: bridge0
Ethernet Address: 36:18:c8:00:00:02

Hardware Port: Wi-Fi
Device: en0
Ethernet Address: 3c:06:30:00:00:01

VLAN Configurations
===================
"""
IBV_DEVICES = """\
    device          \t   node GUID
    ------          \t----------------
    rdma_en5        \t8396a9d9edbaac05
    rdma_en2        \t8096a9d9edbaac05
"""


def test_a_mac_tells_its_thunderbolt_bridge_from_its_wifi():
    """
    A hostfile with the Wi-Fi address trains, at a third of the speed: users of others found out after hours.
    """
    assert [
        {"name": "lo0", "kind": "loopback", "addresses": ["127.0.0.1/8"]},
        {"name": "en0", "kind": "Wi-Fi", "addresses": ["192.168.1.23/24"]},
        {"name": "bridge0", "kind": "Thunderbolt Bridge", "addresses": ["10.0.5.1/30"]},
        {"name": "utun3", "kind": "", "addresses": ["100.64.0.7/32"]},
    ] == interfaces.from_ifconfig(IFCONFIG, interfaces.hardware_ports(PORTS))


def test_linux_tells_addresses_of_what_is_up():
    """
    The same table from `ip -json address`; IPv6 is left out, for MLX's ring is IPv4.
    """
    told = [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [_address("inet", "127.0.0.1", 8)]},
        {
            "ifname": "eth0",
            "flags": ["UP"],
            "addr_info": [_address("inet6", "fe80::1", 64), _address("inet", "10.1.0.2", 24)],
        },
        {"ifname": "thunderbolt0", "flags": ["UP"], "addr_info": [_address("inet", "10.0.5.2", 30)]},
        {"ifname": "eth1", "flags": ["BROADCAST"], "addr_info": [_address("inet", "10.2.0.2", 24)]},
        {"ifname": "eth2", "flags": ["UP"], "addr_info": []},
    ]

    assert [
        {"name": "lo", "kind": "loopback", "addresses": ["127.0.0.1/8"]},
        {"name": "eth0", "kind": "", "addresses": ["10.1.0.2/24"]},
        {"name": "thunderbolt0", "kind": "Thunderbolt", "addresses": ["10.0.5.2/30"]},
    ] == interfaces.from_ip(json.dumps(told))


def _address(family, local, prefixlen):
    return {"family": family, "local": local, "prefixlen": prefixlen}


def test_rdma_devices_are_listed_by_name():
    """
    Their names change when a Mac starts, so the hostfile's matrix is compared with them each time.
    """
    assert ["rdma_en2", "rdma_en5"] == interfaces.from_ibv_devices(IBV_DEVICES)


def test_a_mac_whose_rdma_is_off_has_an_empty_list():
    """
    Thunderbolt 4 and a Mac whose rdma_ctl was never enabled print the titles alone.
    """
    assert [] == interfaces.from_ibv_devices("".join(IBV_DEVICES.splitlines(keepends=True)[:2]))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's ip")
def test_this_machine_tells_its_loopback():
    """
    The real command, not only its record. It may be missing in a small container.
    """
    found = interfaces.interfaces()

    assert not found or "127.0.0.1/8" in [each for one in found for each in one["addresses"]]


def test_a_command_that_is_not_there_says_nothing():
    """
    No tool is required: an address can still be tried.
    """
    assert "" == interfaces.said("no-such-command-of-ours")
