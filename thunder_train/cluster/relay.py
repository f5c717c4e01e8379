"""From host to host: what one host has is copied to the next over the training link, where ssh from here is slower.

A cluster on one Wi-Fi, or far from this desk, then gets a model of many gigabytes once, and hands it on by its cables.
"""

import secrets
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from thunder_train import ThunderError
from thunder_train.agent.client import HERE, Session, machine
from thunder_train.cluster.links import MEASURE_WITHIN_S
from thunder_train.config.project import Cluster

LEAST_BYTES = 64 << 20
"""Less than this has been sent from here before two ways could be measured."""
LARGE_BYTES = 1 << 20
"""Smaller files come from here in any case: on a link each would cost a connection."""
TRIAL_BYTES = (1 << 16, 1 << 22)
TRIAL_S = 0.2
"""The first trial that takes so long is enough to tell a rate."""
ASK_WITHIN_S, PATIENCE = 30.0, 4
"""A transfer may take so much longer than by the rate just measured; one that stands still ends itself much earlier."""

Sizes = Mapping[str, int]
"""Bytes of files by their paths in the project."""


@dataclass(frozen=True)
class File:
    """place: where the giver has it, absolute or from its home folder."""

    place: str
    sha256: str
    bytes: int


def large(sizes: Sizes) -> list[str]:
    """The files that are worth a link; none when they are few."""
    paths = [path for path, size in sizes.items() if size >= LARGE_BYTES]
    return paths if sum(sizes[path] for path in paths) >= LEAST_BYTES else []


def takers(cluster: Cluster, missing: Mapping[str, Sizes]) -> list[str]:
    """Hosts, in order of ranks, that lack so much that another one may have to give it; none where none could give.

    missing: what each host lacks that answered.
    """
    found = [host for host in _ranks(cluster) if large(missing.get(host, {}))]
    whole = [host for host in missing if host not in found]
    return found if len(found) > 1 or givers(cluster, whole) else []


def givers(cluster: Cluster, whole: Collection[str]) -> set[str]:
    """Who has an address on the training link, of hosts that have all files and of this machine, if it is a rank."""
    return {host for host in _ranks(cluster) if host in (HERE, *whole) and _address(cluster, host)}


def nearest(cluster: Cluster, target: str, machines: Collection[str]) -> str:
    """The one of some machines that is the fewest ranks away, round the ring; "" of none.

    Cables may join neighbours alone.
    """
    ranks = _ranks(cluster)

    def distance(name: str) -> int:
        steps = abs(ranks.index(name) - ranks.index(target))
        return min(steps, len(ranks) - steps)

    return min(sorted(machines, key=ranks.index), key=distance, default="")


def carry(cluster: Cluster, source: Session, target: Session, folder: str, files: Mapping[str, File]) -> bool:
    """Copy files from one host into a folder of another, if their link is faster than ssh from here; whether it did.

    files: by their names in that folder. What fails is told, and stops nothing: the same files can be sent from here.
    """
    address, key = _address(cluster, source.host), secrets.token_hex(32)
    try:
        port = _done(source.ask(ask="listen", address=address))["port"]
        link = _done(target.ask(MEASURE_WITHIN_S, ask="measure", address=address, port=port))["bytes_per_second"]
        if link <= _rate_from_here(target):
            return False
        places = {name: file.place for name, file in files.items()}
        port = _done(source.ask(ask="serve", address=address, key=key, files=places))["port"]
        hashes = {name: file.sha256 for name, file in files.items()}
        within_s = ASK_WITHIN_S + PATIENCE * sum(file.bytes for file in files.values()) / link
        question = {"address": address, "port": port, "key": key, "folder": folder, "hashes": hashes}
        _done(target.ask(within_s, ask="fetch", **question))
    except ThunderError as error:
        print(f"{source.host} -> {target.host}: {error}; sending from here", file=sys.stderr, flush=True)
        return False
    return True


def _done(answer: dict[str, int]) -> dict[str, int]:
    if "error" in answer:
        raise ThunderError(str(answer["error"]))
    return answer


def _rate_from_here(session: Session) -> float:
    """Bytes a second over ssh from this machine."""
    rate = 0.0
    for size in TRIAL_BYTES:
        began = time.perf_counter()
        session.ask(ask="weigh", words="x" * size)
        seconds = time.perf_counter() - began
        rate = size / seconds
        if seconds > TRIAL_S:
            break
    return rate


def _ranks(cluster: Cluster) -> list[str]:
    """The cluster's machines, each once, in order of ranks; this one as localhost."""
    return list(dict.fromkeys(machine(host.ssh) for host in cluster.hosts))


def _address(cluster: Cluster, name: str) -> str:
    """A machine's first address on the training link; "" when it has none."""
    return next((host.ips[0] for host in cluster.hosts if machine(host.ssh) == name and host.ips), "")
