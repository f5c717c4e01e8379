"""What a Mac says of itself: system, chip, sleep, Thunderbolt ports, RDMA, and the memory that its GPU may use.

Sent to hosts that may have neither the project nor its environment: standard library and Python 3.9 only. The parsers
are tested on texts typed after users' posts, and untested on a Mac.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from typing import Any

from thunder_train.agent.interfaces import output_of

WORKING_SET = (
    "import mlx.core as mx; info = getattr(mx, 'device_info', None) or mx.metal.device_info; "
    "print(info()['max_recommended_working_set_size'])"
)
"""Prints the bytes that Metal recommends as the most that a process uses."""


def state(python: str) -> dict[str, Any] | None:
    """This Mac; None on another system. python: the interpreter with mlx, if there is one. Untested on a Mac.

    macos, chip: as "26.2" and "Apple M4 Pro". sleep_minutes: of idleness until it sleeps, 0 for never, None if unknown.
    bridges: the active members of each bridge. thunderbolt_gbit: speed of the fastest port, None without one.
    rdma_ports: state of each RDMA device. working_set_bytes: as Metal recommends, None if mlx cannot be asked.
    """
    if sys.platform != "darwin":
        return None
    working_set = output_of(python, "-I", "-c", WORKING_SET).strip()
    return {
        "macos": platform.mac_ver()[0] or "unknown",
        "chip": output_of("sysctl", "-n", "machdep.cpu.brand_string").strip()[:100],
        "sleep_minutes": sleep_minutes(output_of("pmset", "-g")),
        "is_on_battery": "Battery Power" in output_of("pmset", "-g", "batt").partition("\n")[0],
        "is_lid_closed": '"AppleClamshellState" = Yes'
        in output_of("ioreg", "-r", "-k", "AppleClamshellState", "-d", "4"),
        "bridges": bridges(output_of("ifconfig")),
        "thunderbolt_gbit": thunderbolt_gbit(output_of("system_profiler", "SPThunderboltDataType", "-json")),
        "rdma_ports": rdma_ports(output_of("ibv_devinfo")),
        "working_set_bytes": int(working_set) if working_set.isdecimal() else None,
    }


def sleep_minutes(output: str) -> int | None:
    """Minutes of idleness until sleep, in the output of `pmset -g`: 0 for never, None if it names none."""
    if re.search(r"^\s*SleepDisabled\s+1\b", output, re.MULTILINE):
        return 0
    match = re.search(r"^\s*sleep\s+(\d{1,9})\b", output, re.MULTILINE)
    return int(match[1]) if match else None


def bridges(output: str) -> dict[str, list[str]]:
    """{bridge: its members that have a cable} in the output of `ifconfig`."""
    blocks = {
        block.partition(":")[0]: block
        for block in re.split(r"\n(?=\S)", output.strip())
        if re.match(r"\S+: flags=", block)
    }
    active = {name for name, block in blocks.items() if "status: active" in block}
    return {
        name: sorted(active & set(re.findall(r"^\s+member: (\S+) flags", block, re.MULTILINE)))
        for name, block in sorted(blocks.items())
        if name.startswith("bridge")
    }


def thunderbolt_gbit(output: str) -> int | None:
    """Gbit/s of the fastest port in the JSON of `system_profiler SPThunderboltDataType`: 40 for Thunderbolt 3 and 4, 80
    or 120 for Thunderbolt 5; None without a port.
    """
    try:
        ports = json.loads(output)["SPThunderboltDataType"]
        speeds = [
            re.search(r"(\d{1,4}) Gb/s", str(value.get("current_speed_key", "")))
            for port in ports
            for key, value in port.items()
            if key.startswith("receptacle_") and isinstance(value, dict)
        ]
    except (AttributeError, KeyError, TypeError, ValueError):  # ValueError: no JSON
        return None
    return max((int(speed[1]) for speed in speeds if speed), default=None)


def rdma_ports(output: str) -> dict[str, str]:
    """{"rdma_en2": "PORT_ACTIVE"} in the output of `ibv_devinfo`; a device of several ports counts by its best."""
    states: dict[str, str] = {}
    for block in re.split(r"^hca_id:", output, flags=re.MULTILINE)[1:]:
        ports = re.findall(r"^\s+state:\s+(\w{1,40})", block, re.MULTILINE)
        if name := block.strip().partition("\n")[0].strip():
            states[name] = "PORT_ACTIVE" if "PORT_ACTIVE" in ports else (ports or ["unknown"])[0]
    return states
