"""The training link between each pair of hosts, both ways: reached, over which interface, how far and how wide.

Each address listens on itself alone; others connect as MLX does. What ssh goes over is never measured.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thunder_train import ThunderError
from thunder_train.agent.client import Session, machine, together
from thunder_train.config.project import Cluster

MEASURE_WITHIN_S = 15.0

Facts = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """From one host to an address of another. is_needed: MLX's backend connects so; the others are told, no more."""

    source: str
    target: str
    address: str
    is_needed: bool


def ways(cluster: Cluster) -> list[Way]:
    """Every pair of machines in both directions, by the addresses of [clusters]; in order of ranks."""
    found: dict[tuple[str, str, str], bool] = {}
    for rank, source in enumerate(cluster.hosts):
        for other, target in enumerate(cluster.hosts):
            if machine(source.ssh) != machine(target.ssh):
                # A ring's rank connects to the next one, MPI's to any; with other backends all come to rank 0.
                needed = other == ((rank + 1) % len(cluster.hosts) if cluster.backend == "ring" else 0)
                needed = needed or cluster.backend == "mpi"
                for address in target.ips:
                    key = (machine(source.ssh), machine(target.ssh), address)
                    found[key] = found.get(key, False) or needed
    return [Way(*key, is_needed) for key, is_needed in found.items()]


def measured(
    cluster: Cluster, sessions: Mapping[str, Session], facts: Mapping[str, Facts]
) -> tuple[list[dict[str, Any]], list[ThunderError]]:
    """A row for each way between the hosts that answer, as preflight.json keeps it, and every problem.

    One after another: two measurements at once would share a cable.
    """
    asked = [way for way in ways(cluster) if way.source in sessions and way.target in sessions]
    ports, problems = _listening(asked, sessions, facts)
    rows: list[dict[str, Any]] = []
    for way in asked:
        if way.address not in ports[way.target]:
            continue
        question = {"ask": "measure", "address": way.address, "port": ports[way.target][way.address]}
        try:
            told = sessions[way.source].ask(MEASURE_WITHIN_S, **question)
        except ThunderError as error:
            return rows, [*problems, error]
        rows.append(_row(way, told, facts[way.source]))
        problems += list(_way_problems(way, told, cluster, facts[way.source]))
    return rows, problems


def _listening(
    asked: list[Way], sessions: Mapping[str, Session], facts: Mapping[str, Facts]
) -> tuple[dict[str, dict[str, int]], list[ThunderError]]:
    """{host: {its address: port}} of those that listen, and the addresses that are not the host's."""
    addresses = {host: sorted({way.address for way in asked if way.target == host}) for host in sessions}

    def listen(session: Session) -> dict[str, dict[str, Any]]:
        return {address: session.ask(ask="listen", address=address) for address in addresses[session.host]}

    answers = together(sessions, listen)
    problems = [answer for answer in answers.values() if isinstance(answer, ThunderError)]
    told = {host: {} if isinstance(answer, ThunderError) else answer for host, answer in answers.items()}
    problems += [
        address_problem(host, address, facts[host])
        for host, each in told.items()
        for address, answer in each.items()
        if "error" in answer
    ]
    ports = {host: {address: a["port"] for address, a in each.items() if "port" in a} for host, each in told.items()}
    return ports, problems


def address_problem(host: str, address: str, facts: Facts) -> ThunderError:
    """An address of [clusters] that the host does not have."""
    own = [f"{each.partition('/')[0]} ({_interface(one)})" for one in facts["interfaces"] for each in one["addresses"]]
    own = [each for each in own if not each.startswith("127.")]
    what = f"{address} is no address of {host}; it has {', '.join(own) or 'none that it tells'}"
    return ThunderError(what, f"host {host}", "correct ips in [clusters] of thunder.toml, or set the address there")


def _row(way: Way, told: dict[str, Any], source: Facts) -> dict[str, Any]:
    interface = _interface_of(told.get("source", ""), source)
    row = {"from": way.source, "to": way.target, "address": way.address, "is_needed": way.is_needed, **told}
    return {**row, "interface": _interface(interface) if interface else ""}


def _way_problems(way: Way, told: dict[str, Any], cluster: Cluster, facts: Facts) -> Iterator[ThunderError]:
    where = f"host {way.source}"
    if "error" in told and way.is_needed:
        what = f"cannot reach {way.target} at {way.address}: {told['error']}"
        hint = f"check the cable, ips in [clusters], and the firewall of {way.target}"
        yield ThunderError(what, where, hint)
    elif way.is_needed and not is_training_link(told["source"], way, cluster, facts):
        what = f"reaches {way.target} at {way.address} from {told['source']}, which is no training link of it"
        yield ThunderError(what, where, "correct ips in [clusters]: both ends of a cable need addresses of one network")


def is_training_link(source: str, way: Way, cluster: Cluster, facts: Facts) -> bool:
    """Whether a connection from this own address went over the link: by an address of [clusters], or a direct cable."""
    own = {address for each in cluster.hosts if machine(each.ssh) == way.source for address in each.ips}
    if source in own:
        return True
    network = _network(source, facts)
    if network is None or ipaddress.ip_address(way.address) not in network:
        return False  # through a router
    return not any(ipaddress.ip_address(address) in network for address in own)  # else by another, nearer interface


def _network(address: str, facts: Facts) -> "ipaddress.IPv4Network | ipaddress.IPv6Network | None":
    interface = _interface_of(address, facts)
    known = [each for each in interface["addresses"] if each.startswith(f"{address}/")] if interface else []
    return ipaddress.ip_network(known[0], strict=False) if known else None


def _interface_of(address: str, facts: Facts) -> dict[str, Any] | None:
    found = (one for one in facts["interfaces"] if any(each.startswith(f"{address}/") for each in one["addresses"]))
    return next(found, None)


def _interface(interface: dict[str, Any]) -> str:
    return f"{interface['name']}, {interface['kind']}" if interface["kind"] else str(interface["name"])
