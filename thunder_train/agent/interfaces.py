"""This machine's network interfaces and RDMA devices, parsed from the output of its own tools.

Sent to hosts that may have neither the project nor its environment: standard library and Python 3.9 only. The macOS
parsers are tested on texts typed after users' posts, and untested on a Mac.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

Interface = dict[str, Any]
"""name; kind: "loopback", "tunnel" (a VPN), a Mac's hardware port ("Thunderbolt Bridge", "Thunderbolt 2", "Wi-Fi"),
"Thunderbolt" or "Wi-Fi" on Linux, "" for any other; addresses: IPv4 as 10.0.5.1/24."""


def interfaces() -> list[Interface]:
    """Every interface that is up and has an IPv4 address."""
    if sys.platform == "darwin":
        return from_ifconfig(output_of("ifconfig"), hardware_ports(output_of("networksetup", "-listallhardwareports")))
    rows = from_ip(output_of("ip", "-json", "address"))
    for interface in rows:
        if Path("/sys/class/net", interface["name"], "wireless").exists():
            interface["kind"] = "Wi-Fi"
    return rows


def rdma_devices() -> list[str] | None:
    """Names of the RDMA devices; None without the command `ibv_devices`."""
    output = output_of("ibv_devices")
    return from_ibv_devices(output) if output else None


def from_ip(output: str) -> list[Interface]:
    """Interfaces in the output of `ip -json address` (Linux)."""
    rows = []
    for link in json.loads(output or "[]"):
        addresses = [
            f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", []) if one["family"] == "inet"
        ]
        flags = link.get("flags", [])
        if addresses and "UP" in flags:
            port = "Thunderbolt" if link["ifname"].startswith("thunderbolt") else ""
            rows.append({"name": link["ifname"], "kind": _kind(flags, port), "addresses": addresses})
    return rows


def from_ifconfig(output: str, ports: dict[str, str]) -> list[Interface]:
    """Interfaces in the output of `ifconfig` (macOS). ports: device -> hardware port.

    An interface without a cable keeps its address and its flag UP, hence the look at `status: inactive`.
    """
    rows = []
    for block in re.split(r"\n(?=\S)", output.strip()):
        head = re.match(r"(\S+?): flags=\w+<([^>]*)>", block)
        flags = head[2].split(",") if head else []
        if not head or "UP" not in flags or "status: inactive" in block:
            continue
        pairs = re.findall(r"^\s+inet (\S+) (?:--> \S+ )?netmask 0x([0-9a-f]{8})", block, re.MULTILINE)
        addresses = [f"{address}/{bin(int(mask, 16)).count('1')}" for address, mask in pairs]
        if addresses:
            rows.append({"name": head[1], "kind": _kind(flags, ports.get(head[1], "")), "addresses": addresses})
    return rows


def _kind(flags: list[str], port: str) -> str:
    if "LOOPBACK" in flags:
        return "loopback"
    return "tunnel" if "POINTOPOINT" in flags else port


def hardware_ports(output: str) -> dict[str, str]:
    """{"bridge0": "Thunderbolt Bridge", "en0": "Wi-Fi"} from `networksetup -listallhardwareports` (macOS)."""
    pairs = re.findall(r"^Hardware Port: (.+)\nDevice: (\S+)", output, re.MULTILINE)
    return {device: port for port, device in pairs}


def from_ibv_devices(output: str) -> list[str]:
    """Names in the output of `ibv_devices`: a title, a rule, then a device and its GUID per line."""
    rows = [line.split() for line in output.splitlines()]
    return sorted(row[0] for row in rows if len(row) >= 2 and re.fullmatch("[0-9a-f]{16}", row[1]))


def output_of(*argv: str) -> str:
    """What a command prints in the C locale; "" when it is missing, fails or takes longer than ten seconds."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # PATH is short over ssh
    env = {**os.environ, "PATH": path, "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout.decode("utf-8", "replace")  # `ps` lists command lines with any bytes
