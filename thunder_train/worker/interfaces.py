"""This machine's network interfaces and RDMA devices, as its own tools print them.

Sent to hosts that may have neither the project nor its environment: standard library and Python 3.9 only.
The macOS parsers are tested on recorded output and untested on a Mac.
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
"""name; kind: "Thunderbolt Bridge", "Wi-Fi", "loopback", "" for any other; addresses: IPv4 as 10.0.5.1/24."""


def interfaces() -> list[Interface]:
    """Every interface that is up and has an IPv4 address."""
    if sys.platform == "darwin":
        return from_ifconfig(said("ifconfig"), hardware_ports(said("networksetup", "-listallhardwareports")))
    found = from_ip(said("ip", "-json", "address"))
    for interface in found:
        if Path("/sys/class/net", interface["name"], "wireless").exists():
            interface["kind"] = "Wi-Fi"
    return found


def rdma_devices() -> list[str] | None:
    """Names of the RDMA devices; None where there is no `ibv_devices` to ask."""
    output = said("ibv_devices")
    return from_ibv_devices(output) if output else None


def from_ip(output: str) -> list[Interface]:
    """`ip -json address` of Linux."""
    found = []
    for link in json.loads(output or "[]"):
        addresses = [
            f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", []) if one["family"] == "inet"
        ]
        if addresses and "UP" in link.get("flags", []):
            found.append({"name": link["ifname"], "kind": _linux_kind(link), "addresses": addresses})
    return found


def _linux_kind(link: dict[str, Any]) -> str:
    if "LOOPBACK" in link.get("flags", []):
        return "loopback"
    return "Thunderbolt" if link["ifname"].startswith("thunderbolt") else ""


def from_ifconfig(output: str, ports: dict[str, str]) -> list[Interface]:
    """`ifconfig` of macOS. ports: device -> hardware port. A cable that is not plugged in has no "status: active"."""
    found = []
    for block in re.split(r"\n(?=\S)", output.strip()):
        head = re.match(r"(\S+?): flags=\w+<([^>]*)>", block)
        if not head or "UP" not in head[2].split(",") or "status: inactive" in block:
            continue
        pairs = re.findall(r"^\s+inet (\S+) (?:--> \S+ )?netmask 0x([0-9a-f]{8})", block, re.MULTILINE)
        addresses = [f"{address}/{bin(int(mask, 16)).count('1')}" for address, mask in pairs]
        kind = "loopback" if "LOOPBACK" in head[2].split(",") else ports.get(head[1], "")
        if addresses:
            found.append({"name": head[1], "kind": kind, "addresses": addresses})
    return found


def hardware_ports(output: str) -> dict[str, str]:
    """`networksetup -listallhardwareports` of macOS: {"bridge0": "Thunderbolt Bridge", "en0": "Wi-Fi"}."""
    pairs = re.findall(r"^Hardware Port: (.+)\nDevice: (\S+)", output, re.MULTILINE)
    return {device: port for port, device in pairs}


def from_ibv_devices(output: str) -> list[str]:
    """`ibv_devices`: a title, a rule, then a device and its GUID per line."""
    rows = [line.split() for line in output.splitlines()]
    return sorted(row[0] for row in rows if len(row) >= 2 and re.fullmatch("[0-9a-f]{16}", row[1]))


def said(*argv: str) -> str:
    """What a command printed; "" when it is not there, fails or takes too long."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # ssh's own is often shorter
    env = {**os.environ, "PATH": path, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return "" if done.returncode else done.stdout
