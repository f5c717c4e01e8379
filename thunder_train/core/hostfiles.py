"""Reads hostfiles in every form that mlx.launch takes, and makes all of them the one that we write.

A plain list of hosts has no backend, which is ring then; `envs`, `ips` and `rdma` may be missing. A host without
addresses is known by its ssh name alone: an address itself, or a name that this machine looks up.
"""

import ipaddress
import socket
from pathlib import Path
from typing import Any

from thunder_train.core import files

RING = "ring"
HINT = "run `./doit hostfile`"


def read(path: Path) -> Any:
    """The hostfile as {"backend", "envs", "hosts": [{"ssh", "ips", "rdma"}]}, if it has a form that mlx.launch takes.

    Other content is returned as it is, for launch/backends.py to refuse. Raises ThunderError without such a file.
    """
    content: Any = files.read_json(path, hint=HINT)
    given = {"hosts": content} if isinstance(content, list) else content
    if not isinstance(given, dict) or not isinstance(given.get("hosts"), list):
        return content
    hosts = [{"ips": [], "rdma": [], **host} if isinstance(host, dict) else host for host in given["hosts"]]
    return {"envs": [], **given, "backend": given.get("backend") or RING, "hosts": hosts}


def cables(slot: str) -> list[str]:
    """The devices of a slot of the RDMA matrix in thunder.toml, one for each cable to the same host."""
    return [name for each in slot.split(",") if (name := each.strip())]


def with_addresses(description: Any) -> Any:
    """The hostfile with an address for each of several hosts that have none; a name that nobody knows stays without."""
    hosts = description.get("hosts") if isinstance(description, dict) else None
    if not isinstance(hosts, list) or len(hosts) < 2:
        return description
    return {**description, "hosts": [_with_address(host) for host in hosts]}


def _with_address(host: Any) -> Any:
    is_named = isinstance(host, dict) and isinstance(host.get("ssh"), str) and host.get("ips") == []
    address = _address(host["ssh"].rpartition("@")[2]) if is_named else ""
    return {**host, "ips": [address]} if address else host


def _address(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return socket.gethostbyname(name)
    except (OSError, UnicodeError):  # a name of ~/.ssh/config, for one
        return ""
