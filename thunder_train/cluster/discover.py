"""Discovery: asks the hosts of a cluster for their addresses and writes its table anew, to paste into thunder.toml."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import client
from thunder_train.config.project import Cluster
from thunder_train.config.toml_io import as_toml

Facts = dict[str, Any]
CABLE = re.compile(r"Thunderbolt( Bridge| \d+)?")
"""Kinds of a Thunderbolt cable between hosts; "Thunderbolt Ethernet Slot 1" is a dock's Ethernet."""
SELF_ASSIGNED = "169.254."
"""They change with each cable and start, and a Mac sends all of them over one interface, often Wi-Fi."""


def discover(cluster: Cluster) -> str:
    """The cluster as a TOML table with the addresses its hosts tell, each host's interfaces as comments.

    The hosts need a Python, not the project. Raises ThunderError naming every host that does not answer.
    """
    names = list(dict.fromkeys(client.machine(host.ssh) for host in cluster.hosts))
    with client.opened(names, cluster) as sessions:
        question = {"ask": "facts", "folder": cluster.folder, "python": cluster.python, "paths": {}}
        answers = client.together(sessions, lambda each: each.ask(**question))
    raise_all([answer for answer in answers.values() if isinstance(answer, ThunderError)])
    return as_table(cluster, answers)


def as_table(cluster: Cluster, facts: Mapping[str, Facts]) -> str:
    """TOML of [clusters.NAME]. facts: by host, this machine as localhost."""
    chosen = training_addresses(cluster, facts)
    hosts = []
    for host in cluster.hosts:
        found: Facts = {"ssh": host.ssh, "ips": [chosen[client.machine(host.ssh)]] if chosen else list(host.ips)}
        found |= {"rdma": list(host.rdma)} if host.rdma else {}
        hosts.append(found | ({"weight": host.weight} if host.weight != 1 else {}))
    table: dict[str, Any] = {"backend": cluster.backend, "folder": cluster.folder, "python": cluster.python}
    if cluster.envs:
        table["envs"] = list(cluster.envs)
    told = "".join(f"# {line}\n" for host in facts for line in described(host, facts[host]))
    if not chosen:
        told += "# No network holds an address of every host: join them by a cable, or give addresses by hand.\n"
    text = as_toml({"clusters": {cluster.name: {**table, "hosts": hosts}}}, f"clusters.{cluster.name}")
    return told + text.replace(",]\n", " ]\n").strip() + "\n"


def training_addresses(cluster: Cluster, facts: Mapping[str, Facts]) -> dict[str, str]:
    """{host: address} in the best network that all hosts share; empty when there is none.

    Thunderbolt comes first, then the addresses [clusters] has, then whatever ssh does not go over; Wi-Fi last.
    An address that two hosts have joins nothing: virtual machines and proxies give each Mac the same one.
    """
    networks: dict[str, dict[str, tuple[str, int]]] = {}
    for host, told in facts.items():
        known = {address for each in cluster.hosts if client.machine(each.ssh) == host for address in each.ips}
        for interface in told["interfaces"]:
            for address in interface["addresses"]:
                own = address.partition("/")[0]
                worth = _worth(own, interface, known, told)
                if worth:
                    network = str(ipaddress.ip_network(address, strict=False))
                    networks.setdefault(network, {}).setdefault(host, (own, worth))
    shared = {
        name: each for name, each in networks.items() if len({address for address, _ in each.values()}) == len(facts)
    }
    if not shared:
        return {}
    best = max(sorted(shared), key=lambda name: min(worth for _, worth in shared[name].values()))
    return {host: address for host, (address, _) in shared[best].items()}


def _worth(address: str, interface: Facts, known: set[str], told: Facts) -> int:
    """How well an address suits a training, 0: not at all."""
    if interface["kind"] == "loopback" or address.startswith(SELF_ASSIGNED):
        return 0
    if CABLE.fullmatch(interface["kind"]):
        return 5
    if interface["kind"] == "Wi-Fi":
        return 1
    if address in known:
        return 4
    if interface["kind"] == "tunnel":
        return 0
    return 2 if address in told["ssh_address"] else 3


def described(host: str, told: Facts) -> list[str]:
    """A host's interfaces and RDMA devices, a line each."""
    lines = []
    for interface in told["interfaces"]:
        if interface["kind"] != "loopback":
            kind = f" ({interface['kind']})" if interface["kind"] else ""
            over_ssh = any(each.partition("/")[0] in told["ssh_address"] for each in interface["addresses"])
            ssh = ", ssh goes over it" if over_ssh else ""
            is_changing = all(each.startswith(SELF_ASSIGNED) for each in interface["addresses"])
            hint = ", self-assigned: give it a fixed address to train over it" if is_changing else ""
            lines.append(f"{host}: {interface['name']}{kind}: {', '.join(interface['addresses'])}{ssh}{hint}")
    if told["rdma"]:
        devices = ", ".join(told["rdma"])
        lines.append(f"{host}: RDMA {devices}; which cable each is on, `mlx.distributed_config` tells")
    return lines or [f"{host}: tells no address"]
