"""Asks the hosts of a cluster for their addresses and writes its table anew, to paste into thunder.toml."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from thunder_train.agent import client
from thunder_train.config.project import Cluster, Host
from thunder_train.config.toml_io import as_toml
from thunder_train.core.text import printable

Facts = dict[str, Any]
"""A host's answer to the question `facts` of agent/main.py."""
CABLE = re.compile(r"Thunderbolt( Bridge| \d+)?")
"""Kinds of a Thunderbolt cable between hosts; "Thunderbolt Ethernet Slot 1" is a dock's Ethernet."""
SELF_ASSIGNED = "169.254."
"""Such addresses change with each cable and start, and a Mac sends all of them over one interface, often Wi-Fi."""


def discover(cluster: Cluster) -> str:
    """The cluster as a TOML table with its hosts' addresses, and each host's interfaces as comments.

    The hosts need a Python, not the project. Raises ThunderError naming every host that does not answer.
    """
    question: dict[str, Any] = {"folder": cluster.folder, "python": cluster.python, "paths": {}}
    with client.opened(cluster.machines, cluster) as sessions:
        facts = client.everywhere(sessions, lambda session: session.ask(ask="facts", **question))
    return as_table(cluster, facts)


def as_table(cluster: Cluster, facts: Mapping[str, Facts]) -> str:
    """TOML of [clusters.NAME], comments first. facts: by machine."""
    chosen = training_addresses(cluster, facts)
    table: dict[str, Any] = {"backend": cluster.backend, "folder": cluster.folder, "python": cluster.python}
    if cluster.envs:
        table["envs"] = list(cluster.envs)
    table["hosts"] = [_host_table(host, chosen) for host in cluster.hosts]
    comments = "".join(f"# {printable(line)}\n" for machine in facts for line in described(machine, facts[machine]))
    if not chosen:
        comments += "# No network holds an address of every host: join them by a cable, or give addresses by hand.\n"
    text = as_toml({"clusters": {cluster.name: table}}, f"clusters.{cluster.name}")
    return comments + text.replace(",]\n", " ]\n").strip() + "\n"


def _host_table(host: Host, chosen: dict[str, str]) -> dict[str, Any]:
    table: dict[str, Any] = {"ssh": host.ssh, "ips": [chosen[host.machine]] if chosen else list(host.ips)}
    if host.rdma:
        table["rdma"] = list(host.rdma)
    if host.weight != 1:
        table["weight"] = host.weight
    return table


def training_addresses(cluster: Cluster, facts: Mapping[str, Facts]) -> dict[str, str]:
    """{machine: address} in the best network that all machines share; empty when there is none.

    Best is Thunderbolt, then the addresses in [clusters], then networks that ssh does not use; Wi-Fi is last. A network
    in which two machines have the same address is none: virtual machines and proxies give each Mac the same one.
    """
    networks: dict[str, dict[str, tuple[str, int]]] = {}
    for machine, answer in facts.items():
        listed = {address for host in cluster.hosts if host.machine == machine for address in host.ips}
        for interface in answer["interfaces"]:
            for with_prefix in interface["addresses"]:
                address = with_prefix.partition("/")[0]
                rank = _preference(address, interface, listed, answer)
                if rank:
                    network = str(ipaddress.ip_network(with_prefix, strict=False))
                    networks.setdefault(network, {}).setdefault(machine, (address, rank))
    shared = {
        name: members
        for name, members in networks.items()
        if len({address for address, _ in members.values()}) == len(facts)
    }
    if not shared:
        return {}
    best = max(sorted(shared), key=lambda name: min(rank for _, rank in shared[name].values()))
    return {machine: address for machine, (address, _) in shared[best].items()}


def _preference(address: str, interface: Facts, listed: set[str], facts: Facts) -> int:
    """How well an address suits a training: 5 best, 0 not at all. listed: the machine's addresses in [clusters]."""
    if interface["kind"] == "loopback" or address.startswith(SELF_ASSIGNED):
        return 0
    if CABLE.fullmatch(interface["kind"]):
        return 5
    if interface["kind"] == "Wi-Fi":
        return 1
    if address in listed:
        return 4
    if interface["kind"] == "tunnel":
        return 0
    return 2 if address in facts["ssh_address"] else 3


def described(machine: str, facts: Facts) -> list[str]:
    """A machine's interfaces and RDMA devices, a line each."""
    lines = []
    for interface in facts["interfaces"]:
        if interface["kind"] != "loopback":
            kind = f" ({interface['kind']})" if interface["kind"] else ""
            is_for_ssh = any(each.partition("/")[0] in facts["ssh_address"] for each in interface["addresses"])
            ssh = ", ssh goes over it" if is_for_ssh else ""
            is_self_assigned = all(each.startswith(SELF_ASSIGNED) for each in interface["addresses"])
            hint = ", self-assigned: give it a fixed address to train over it" if is_self_assigned else ""
            lines.append(f"{machine}: {interface['name']}{kind}: {', '.join(interface['addresses'])}{ssh}{hint}")
    if facts["rdma"]:
        devices = ", ".join(facts["rdma"])
        lines.append(f"{machine}: RDMA {devices}; `mlx.distributed_config` shows which cable each is on")
    return lines or [f"{machine}: has no address"]
