"""A cluster -> hostfile.json, exactly as `mlx.launch --hostfile` reads it."""

from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.project import Cluster
from thunder_train.core.hostfiles import cables
from thunder_train.launch.backends import is_every_address


def hostfile(cluster: Cluster) -> dict[str, Any]:
    """The JSON of a hostfile. A host's own rdma slot, "" in TOML, becomes null.

    Raises ThunderError for each missing address.
    """
    raise_all(address_problems(cluster))
    hosts = [
        {"ssh": host.ssh, "ips": list(host.ips), "rdma": [_cables(device) for device in host.rdma]}
        for host in cluster.hosts
    ]
    return {"backend": cluster.backend, "envs": list(cluster.envs), "hosts": hosts}


def _cables(devices: str) -> str | list[str] | None:
    """A slot of the RDMA matrix: null for the host itself, a device, or several."""
    names = cables(devices)
    return names[0] if len(names) == 1 else names or None


def address_problems(cluster: Cluster) -> list[ThunderError]:
    """Ranks without the address on the training link that their backend needs.

    Loading a project does not check this: `doit hosts:NAME` asks a new cluster's hosts for their addresses.
    """
    hint = f"run `./doit hosts:{cluster.name}` and put its table into thunder.toml"
    place = f"thunder.toml: clusters.{cluster.name}.hosts"
    is_mpi = cluster.backend == "mpi"
    if len(cluster.hosts) == 1 or (is_mpi and len(cluster.machines) == 1):
        return []
    return [
        ThunderError(f"{cluster.backend} needs an address", f"{place}[{number}].ips", hint)
        for number, host in enumerate(cluster.hosts)
        if not host.ips and (number == 0 or is_mpi or cluster.backend == "ring")
    ] + [
        ThunderError(f"{ip} would let a rank listen on every network", f"{place}[{number}].ips", hint)
        for number, host in enumerate(cluster.hosts)
        for ip in host.ips
        if is_every_address(ip)
    ]
