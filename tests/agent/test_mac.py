"""What a Mac says of itself, from texts that we typed after users' posts: there was no Mac to record one."""

import json
import platform
import sys
from pathlib import Path

import pytest

from tests.helpers.mac_tools import tool
from thunder_train.agent import answers, mac

PMSET = """\
System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 networkoversleep     0
 disksleep            10
 sleep                1 (sleep prevented by powerd, caffeinate)
 hibernatemode        3
 ttyskeepawake        1
 displaysleep         10
 tcpkeepalive         1
 womp                 1
"""
BATTERY = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=1234567)	80%; discharging; 5:12 remaining present: true
"""
LID = """\
+-o IOPMrootDomain  <class IOPMrootDomain, id 0x100000114, registered, matched, active, busy 0 (0 ms), retain 32>
    {
      "AppleClamshellState" = Yes
      "AppleClamshellCausesSleep" = No
    }
"""
IFCONFIG = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
	inet 127.0.0.1 netmask 0xff000000
en2: flags=8963<UP,BROADCAST,SMART,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1500
	options=460<TSO4,TSO6,CHANNEL_IO>
	media: autoselect <full-duplex>
	status: active
en3: flags=8963<UP,BROADCAST,SMART,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1500
	media: autoselect <full-duplex>
	status: active
en4: flags=8963<UP,BROADCAST,SMART,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1500
	media: autoselect <full-duplex>
	status: inactive
en7: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	status: active
bridge0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
	options=63<RXCSUM,TXCSUM,TSO4,TSO6>
	Configuration:
		id 0:0:0:0:0:0 priority 0 hellotime 0 fwddelay 0
		ipfilter disabled flags 0x0
	member: en2 flags=3<LEARNING,DISCOVER>
		ifmaxaddr 0 port 9 priority 0 path cost 0
	member: en3 flags=3<LEARNING,DISCOVER>
		ifmaxaddr 0 port 10 priority 0 path cost 0
	member: en4 flags=3<LEARNING,DISCOVER>
		ifmaxaddr 0 port 11 priority 0 path cost 0
	inet 10.0.5.1 netmask 0xffffff00 broadcast 10.0.5.255
	status: active
"""
DEVICES = """\
hca_id:	rdma_en2
	transport:			Thunderbolt (100)
	node_guid:			d0b5:e9ab:23cf:ac05
	phys_port_cnt:			1
		port:	1
			state:			PORT_DOWN (1)
			link_layer:		Thunderbolt
hca_id: rdma_en5
	transport:			Thunderbolt (100)
		port:	1
			state:			PORT_ACTIVE (4)
			link_layer:		Thunderbolt
"""


def thunderbolt(*speeds: str) -> str:
    """What system_profiler says of ports with these speeds."""
    ports = [
        {
            "_name": f"thunderboltusb4_bus_{number}",
            "device_name_key": "MacBook Pro",
            "receptacle_1_tag": {
                "current_speed_key": speed,
                "receptacle_id_key": str(number),
                "receptacle_status_key": "receptacle_no_devices_connected",
            },
        }
        for number, speed in enumerate(speeds, 1)
    ]
    return json.dumps({"SPThunderboltDataType": ports})


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (PMSET, 1),
        (PMSET.replace("sleep                1", "sleep                0"), 0),
        (" SleepDisabled        1\n" + PMSET, 0),
        (" SleepDisabled        0\n" + PMSET, 1),
        ("", None),
    ],
)
def test_sleep_is_told_from_the_sleep_of_disk_and_display(output: str, expected: int | None) -> None:
    """
    Four settings end in the same word.
    """
    assert expected == mac.sleep_minutes(output)


def test_a_member_of_a_bridge_counts_when_it_has_a_cable() -> None:
    """
    macOS puts every Thunderbolt port into bridge0, most of them without a cable.
    """
    assert {"bridge0": ["en2", "en3"]} == mac.bridges(IFCONFIG)
    assert {} == mac.bridges("")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (thunderbolt("Up to 40 Gb/s", "Up to 40 Gb/s"), 40),
        (thunderbolt("Up to 120 Gb/s", "40 Gb/s"), 120),
        (thunderbolt(), None),
        ('{"SPThunderboltDataType": [{"receptacle_1_tag": "x"}]}', None),
        ('{"SPThunderboltDataType": ["x"]}', None),
        ("[]", None),
        ("", None),
    ],
)
def test_the_fastest_port_tells_the_generation(output: str, expected: int | None) -> None:
    """
    A Thunderbolt 5 port with an older device runs at 40.
    """
    assert expected == mac.thunderbolt_gbit(output)


def test_rdma_devices_have_a_state() -> None:
    """
    Each Thunderbolt 5 port is a device, with or without a cable.
    """
    assert {"rdma_en2": "PORT_DOWN", "rdma_en5": "PORT_ACTIVE"} == mac.rdma_ports(DEVICES)
    assert {} == mac.rdma_ports("No IB devices found\n")


def test_a_mac_answers_as_the_schema_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its tools are scripts that print the texts above; a tool that is missing leaves its part unknown.
    """
    texts = {"pmset": PMSET, "ioreg": LID, "ifconfig": IFCONFIG, "ibv_devinfo": DEVICES}
    texts |= {"system_profiler": thunderbolt("Up to 120 Gb/s"), "sysctl": "Apple M4 Pro\n", "python": "11453246122\n"}
    for name, text in {**texts, "batt": BATTERY}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    for name in texts:
        tool(
            tmp_path,
            name,
            f'[ "$2" = batt ] && exec cat "{tmp_path}/batt.txt"; cat "{tmp_path}/{name}.txt"',
            monkeypatch,
        )
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.2", ("", "", ""), "arm64"))
    state = mac.state("python")

    assert {
        "macos": "26.2",
        "chip": "Apple M4 Pro",
        "sleep_minutes": 1,
        "is_on_battery": True,
        "is_lid_closed": True,
        "bridges": {"bridge0": ["en2", "en3"]},
        "thunderbolt_gbit": 120,
        "rdma_ports": {"rdma_en2": "PORT_DOWN", "rdma_en5": "PORT_ACTIVE"},
        "working_set_bytes": 11453246122,
    } == answers.decoded(json.dumps(state).encode(), answers.Mac)

    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    bare = answers.decoded(json.dumps(mac.state("python")).encode(), answers.Mac)
    assert (None, False, {}, None) == tuple(
        bare[name] for name in ("sleep_minutes", "is_on_battery", "bridges", "working_set_bytes")
    )


def test_another_system_is_no_mac() -> None:
    """
    And none of its tools is started.
    """
    assert mac.state("python") is None or sys.platform == "darwin"
