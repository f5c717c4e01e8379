"""What each rank's environment must hold for MLX's backend to find the others. Pure but for picking free local ports.

MLX reads these from files; THUNDER_FILE_<NAME> carries a file's content, and the worker writes the file itself.
"""

import ipaddress
import json
import re
import socket
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config import fields
from thunder_train.config.project import is_local

FIRST_PORT = 32323
NCCL_PORT = 12345
PORTS_PER_ATTEMPT, TURNS = 100, 100
"""Fixed ports move by so many at a restart, for a stopped rank on another machine may still hold the old ones; after
so many turns they come back. The ring's move down: higher ones are given to outgoing connections."""
HINT = "run `./doit hostfile`, or mend [clusters] in thunder.toml"

Host = dict[str, Any]


def environments(hostfile: Any, where: str, attempt: int = 1) -> list[dict[str, str]]:
    """One environment per rank, for the hostfile's backend; other ports at each attempt.

    Raises ThunderError with every problem of the hostfile.
    """
    raise_all(problems(hostfile, where))
    hosts = hostfile["hosts"]
    shared = dict(pair.split("=", 1) for pair in hostfile["envs"])
    if len(hosts) > 1:
        shared |= _shared(hostfile["backend"], hosts, (attempt - 1) % TURNS * PORTS_PER_ATTEMPT)
    return [{**shared, "MLX_RANK": str(rank), **_own(hostfile["backend"], hosts, rank)} for rank in range(len(hosts))]


def problems(hostfile: Any, where: str) -> list[ThunderError]:
    """Everything for which the ranks of this hostfile could not start."""
    if not _is_hostfile(hostfile):
        return [ThunderError('must be {"backend", "envs", "hosts": [{"ssh", "ips", "rdma"}]}', where=where, hint=HINT)]
    backend, hosts = hostfile["backend"], hostfile["hosts"]
    if backend not in ("ring", "jaccl", "jaccl-ring", "mpi", "nccl"):
        hint = "use ring, jaccl, jaccl-ring, mpi or nccl"
        return [ThunderError(f"backend {backend!r} is not known", where=f"{where}: backend", hint=hint)]
    found = [
        ThunderError(
            f"{host['ssh']!r} is no name for ssh", f"{where}: hosts[{rank}].ssh", fields.FORMS[fields.SSH_NAME]
        )
        for rank, host in enumerate(hosts)
        if not is_local(host["ssh"]) and not re.match(fields.SSH_NAME, host["ssh"])
    ]
    if len(hosts) == 1:
        return found
    if backend == "mpi":
        return found + _mpi_problems(hosts, where)
    found += [
        ThunderError("has no address on the training link", where=f"{where}: hosts[{rank}].ips", hint=HINT)
        for rank, host in enumerate(hosts)
        if not host["ips"] and (backend == "ring" or rank == 0)
    ]
    return found + (_cable_problems(hosts, where, backend == "jaccl-ring") if backend.startswith("jaccl") else [])


def _mpi_problems(hosts: list[Host], where: str) -> list[ThunderError]:
    """Addresses by which Open MPI would not find another machine; ranks of one machine need none."""
    machines = ["" if is_local(host["ssh"]) else host["ssh"] for host in hosts]
    if len(set(machines)) == 1:
        return []
    found: list[ThunderError] = []
    owners: dict[str, str] = {}
    for rank, (machine, ips) in enumerate(zip(machines, (host["ips"] for host in hosts), strict=True)):
        bad = [] if ips else ["has no address on the training link"]
        for ip in ips:
            if not _is_linked(ip):
                bad.append(f"{ip!r} is no IPv4 address that another host could reach")
            elif owners.setdefault(ip, machine) != machine:
                bad.append(f"{ip!r} is another host's too")
        found += [ThunderError(what, f"{where}: hosts[{rank}].ips", HINT) for what in bad]
    return found


def _is_linked(ip: Any) -> bool:
    try:
        return isinstance(ip, str) and not ipaddress.IPv4Address(ip).is_loopback
    except ValueError:
        return False


def _is_hostfile(hostfile: Any) -> bool:
    return (
        isinstance(hostfile, dict)
        and isinstance(hostfile.get("backend"), str)
        and isinstance(hostfile.get("envs"), list)
        and all(isinstance(pair, str) and re.match(fields.VARIABLE, pair) for pair in hostfile["envs"])
        and isinstance(hostfile.get("hosts"), list)
        and bool(hostfile["hosts"])
        and all(_is_host(host) for host in hostfile["hosts"])
    )


def _is_host(host: Any) -> bool:
    return (
        isinstance(host, dict)
        and isinstance(host.get("ssh"), str)
        and isinstance(host.get("ips"), list)
        and isinstance(host.get("rdma"), list)
    )


def _cable_problems(hosts: list[Host], where: str, is_ring: bool) -> list[ThunderError]:
    """Missing RDMA devices: jaccl needs one for every other host, jaccl-ring for the two neighbours."""
    found, size = [], len(hosts)
    for rank, host in enumerate(hosts):
        place = f"{where}: hosts[{rank}].rdma"
        if len(host["rdma"]) != size:
            found.append(ThunderError(f"must list {size} devices, its own slot null", where=place))
            continue
        if host["rdma"][rank] is not None:
            found.append(ThunderError(f"slot {rank} is this host's own and must be null", where=place))
        others = {(rank - 1) % size, (rank + 1) % size} if is_ring else set(range(size))
        missing = sorted(other for other in others - {rank} if not host["rdma"][other])
        if missing:
            names = ", ".join(hosts[other]["ssh"] for other in missing)
            found.append(ThunderError(f"names no device towards {names}", where=place, hint="read `ibv_devices` there"))
    return found


def _shared(backend: str, hosts: list[Host], port_shift: int) -> dict[str, str]:
    if backend == "mpi":
        return {}  # mpirun tells each rank of the others: mpi.py
    if backend == "ring":
        return {"THUNDER_FILE_MLX_HOSTFILE": json.dumps(ring_addresses(hosts, FIRST_PORT - port_shift))}
    if backend == "nccl":
        size = str(len(hosts))
        return {"NCCL_HOST_IP": hosts[0]["ips"][0], "NCCL_PORT": str(NCCL_PORT + port_shift), "MLX_WORLD_SIZE": size}
    return {
        "THUNDER_FILE_MLX_IBV_DEVICES": json.dumps([host["rdma"] for host in hosts]),
        "MLX_JACCL_COORDINATOR": f"{hosts[0]['ips'][0]}:{FIRST_PORT - port_shift}",
        **({"MLX_JACCL_RING": "1"} if backend == "jaccl-ring" else {}),
    }


def _own(backend: str, hosts: list[Host], rank: int) -> dict[str, str]:
    if backend != "nccl":
        return {}
    earlier = sum(host["ssh"] == hosts[rank]["ssh"] for host in hosts[:rank])
    return {"CUDA_VISIBLE_DEVICES": str(earlier)}


def ring_addresses(hosts: list[Host], first_port: int) -> list[list[str]]:
    """`ip:port` of every link of every rank: free ports on this machine, first_port and up on others."""
    addresses: list[list[str]] = []
    held: list[socket.socket] = []
    number = first_port
    try:
        for host in hosts:
            links = []
            for ip in host["ips"]:
                port = _free_port(ip, held) if is_local(host["ssh"]) else number
                links.append(f"{ip}:{port}")
                number += 1
            addresses.append(links)
    finally:
        for each in held:
            each.close()
    return addresses


def _free_port(ip: str, held: list[socket.socket]) -> int:
    """A port that nobody listens on; its socket is added to held, so that the next call gives another one."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.append(holder)
    try:
        holder.bind((ip, 0))
    except OSError as error:
        hint = "correct ips in [clusters]"
        raise ThunderError(
            f"{ip} is no address of this machine: {error.strerror}", where="hostfile", hint=hint
        ) from error
    return int(holder.getsockname()[1])
