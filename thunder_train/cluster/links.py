"""Measures the training link between each pair of hosts in both directions: reachable, interface, latency, bandwidth.

Each host listens on its own address of the link; others connect as MLX does. The network of ssh is never measured.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.agent.client import Session
from thunder_train.config.project import Cluster, is_local
from thunder_train.core import privacy

MEASURE_WITHIN_S = 15.0

Facts = dict[str, Any]
"""A host's answer to the question `facts` of agent/main.py."""


@dataclass(frozen=True)
class Link:
    """From one host to an address of another. is_needed: MLX's backend connects this way; others are only reported."""

    source: str
    target: str
    address: str
    is_needed: bool


def links_of(cluster: Cluster) -> list[Link]:
    """Every pair of machines in both directions, by the addresses of [clusters], in rank order."""
    is_needed: dict[tuple[str, str, str], bool] = {}
    for rank, source in enumerate(cluster.hosts):
        for other, target in enumerate(cluster.hosts):
            if source.machine != target.machine:
                # A ring's rank connects to the next one, MPI's to any; with other backends all connect to rank 0.
                next_rank = (rank + 1) % len(cluster.hosts) if cluster.backend == "ring" else 0
                for address in target.ips:
                    key = (source.machine, target.machine, address)
                    is_needed[key] = is_needed.get(key, False) or other == next_rank or cluster.backend == "mpi"
    return [Link(*key, needed) for key, needed in is_needed.items()]


def measure(
    cluster: Cluster, sessions: Mapping[str, Session], facts: Mapping[str, Facts]
) -> tuple[list[dict[str, Any]], list[ThunderError]]:
    """A row of preflight.json for each link between the hosts that answer, and every problem.

    One link after another: two measurements at once could share a cable.
    """
    asked = [link for link in links_of(cluster) if link.source in sessions and link.target in sessions]
    ports, problems = _listen(asked, sessions, facts)
    rows: list[dict[str, Any]] = []
    for link in asked:
        if link.address not in ports.get(link.target, {}):
            continue
        question: dict[str, Any] = {"address": link.address, "port": ports[link.target][link.address]}
        try:
            figures = sessions[link.source].ask(MEASURE_WITHIN_S, ask="measure", **question)
        except ThunderError as error:
            return rows, [*problems, error]
        rows.append(_row(link, figures, facts[link.source]))
        problems += list(_link_problems(link, figures, cluster, facts[link.source]))
    return rows, problems


def _listen(
    asked: list[Link], sessions: Mapping[str, Session], facts: Mapping[str, Facts]
) -> tuple[dict[str, dict[str, int]], list[ThunderError]]:
    """{host: {its address: port}} of the hosts that listen, and problems: addresses that are not the host's own."""
    addresses = {host: sorted({link.address for link in asked if link.target == host}) for host in sessions}

    def listen(session: Session) -> dict[str, dict[str, Any]]:
        return {address: session.ask(ask="listen", address=address) for address in addresses[session.host]}

    problems: list[ThunderError] = []
    answers = client.attempts(sessions, listen, problems)
    problems += [
        address_problem(host, address, facts[host])
        for host, answer in answers.items()
        for address, result in answer.items()
        if "error" in result
    ]
    ports = {
        host: {address: result["port"] for address, result in answer.items() if "port" in result}
        for host, answer in answers.items()
    }
    return ports, problems


def address_problem(host: str, address: str, facts: Facts) -> ThunderError:
    """An address of [clusters] that the host does not have."""
    pairs = [(each.partition("/")[0], _label(one)) for one in facts["interfaces"] for each in one["addresses"]]
    existing = [f"{each} ({label})" for each, label in pairs if not each.startswith("127.")]
    what = f"{address} is not an address of {host}; it has {', '.join(existing) or 'none'}"
    return ThunderError(what, f"host {host}", "correct ips in [clusters] of thunder.toml, or set the address there")


def _row(link: Link, figures: dict[str, Any], source: Facts) -> dict[str, Any]:
    """figures: the answer to `measure`. source: facts of the link's source."""
    interface = _interface_of(figures.get("source", ""), source)
    row = {"from": link.source, "to": link.target, "address": link.address, "is_needed": link.is_needed, **figures}
    return {**row, "interface": _label(interface) if interface else ""}


def _link_problems(link: Link, figures: dict[str, Any], cluster: Cluster, source: Facts) -> Iterator[ThunderError]:
    where = f"host {link.source}"
    if "error" in figures and link.is_needed:
        what = f"cannot reach {link.target} at {link.address}: {figures['error']}"
        hint = f"check the cable, ips in [clusters], and the firewall of {link.target}"
        if is_local(link.source) and (setting := privacy.hint(figures["error"])):
            hint = f"{hint}; {setting}"
        yield ThunderError(what, where, hint)
    elif link.is_needed and not is_over_link(figures["source"], link, cluster, source):
        what = f"reaches {link.target} at {link.address} from {figures['source']}, which is not on that training link"
        yield ThunderError(what, where, "correct ips in [clusters]: both ends of a cable need addresses of one network")


def is_over_link(own_address: str, link: Link, cluster: Cluster, source: Facts) -> bool:
    """Whether a connection from this address of the source went over the training link.

    True for an address of [clusters], and for another one when it is on a direct cable to the target.
    """
    listed = {address for host in cluster.hosts if host.machine == link.source for address in host.ips}
    if own_address in listed:
        return True
    network = _network(own_address, source)
    if network is None or not _is_in(network, link.address):
        return False  # through a router
    # Two interfaces in the network of the listed address: the system has chosen the other one.
    return not any(_is_in(network, address) for address in listed)


def _is_in(network: "ipaddress.IPv4Network | ipaddress.IPv6Network", address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:  # [clusters] may give a name
        return False


def _network(address: str, facts: Facts) -> "ipaddress.IPv4Network | ipaddress.IPv6Network | None":
    interface = _interface_of(address, facts)
    matches = [each for each in interface["addresses"] if each.startswith(f"{address}/")] if interface else []
    return ipaddress.ip_network(matches[0], strict=False) if matches else None


def _interface_of(address: str, facts: Facts) -> dict[str, Any] | None:
    matches = (one for one in facts["interfaces"] if any(each.startswith(f"{address}/") for each in one["addresses"]))
    return next(matches, None)


def _label(interface: dict[str, Any]) -> str:
    return f"{interface['name']}, {interface['kind']}" if interface["kind"] else str(interface["name"])
