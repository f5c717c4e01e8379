"""The environment variables by which MLX's backends (ring, jaccl, nccl) connect the ranks of a hostfile.

Some of MLX's variables name a file. THUNDER_FILE_<NAME> carries its content, and the worker writes it to a temporary
file, so no file has to be on another machine.
"""

import ipaddress
import json
import re
import socket
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config import fields
from thunder_train.config.project import is_local, machine_name

BACKENDS = ("ring", "jaccl", "jaccl-ring", "mpi", "nccl")
FIRST_PORT = 32323
"""The first port of the ring on remote hosts, and the port of jaccl's coordinator, as in mlx.launch."""
NCCL_PORT = 12345
PORTS_PER_ATTEMPT, PORT_TURNS = 100, 100
"""Each attempt shifts the fixed ports, because a stopped rank on another machine may still hold the old ones; after
PORT_TURNS attempts they repeat. The ring's ports shift down: higher ones are given to outgoing connections."""
HINT = "run `./doit hostfile`, or correct [clusters] in thunder.toml"

Host = dict[str, Any]


def environments(hostfile: Any, where: str, attempt: int = 1) -> list[dict[str, str]]:
    """One dict of variables per rank. attempt shifts the fixed ports. where names the hostfile in errors.

    Raises ThunderError with every problem of the hostfile.
    """
    raise_all(problems(hostfile, where))
    hosts = hostfile["hosts"]
    shared = dict(pair.split("=", 1) for pair in hostfile["envs"])
    if len(hosts) > 1:
        shared |= _shared(hostfile["backend"], hosts, (attempt - 1) % PORT_TURNS * PORTS_PER_ATTEMPT)
    return [{**shared, "MLX_RANK": str(rank), **_gpu(hostfile["backend"], hosts, rank)} for rank in range(len(hosts))]


def problems(hostfile: Any, where: str) -> list[ThunderError]:
    """Every reason why the ranks of this hostfile could not connect."""
    if not _is_hostfile(hostfile):
        return [ThunderError('must be {"backend", "envs", "hosts": [{"ssh", "ips", "rdma"}]}', where=where, hint=HINT)]
    backend, hosts = hostfile["backend"], hostfile["hosts"]
    if backend not in BACKENDS:
        hint = f"use {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}"
        return [ThunderError(f"unknown backend {backend!r}", where=f"{where}: backend", hint=hint)]
    errors = [
        ThunderError(
            f"{host['ssh']!r} is not a host name for ssh", f"{where}: hosts[{rank}].ssh", fields.FORMS[fields.SSH_NAME]
        )
        for rank, host in enumerate(hosts)
        if not is_local(host["ssh"]) and not re.fullmatch(fields.SSH_NAME, host["ssh"])
    ]
    if len(hosts) == 1:
        return errors
    if backend == "mpi":
        return errors + _mpi_problems(hosts, where)
    errors += _listening_problems(hosts, where)
    errors += [
        ThunderError("has no address on the training link", where=f"{where}: hosts[{rank}].ips", hint=HINT)
        for rank, host in enumerate(hosts)
        if not host["ips"] and (backend == "ring" or rank == 0)
    ]
    return errors + (_cable_problems(hosts, where, backend == "jaccl-ring") if backend.startswith("jaccl") else [])


def _listening_problems(hosts: list[Host], where: str) -> list[ThunderError]:
    """Addresses on which strangers would reach a rank: whoever connects first is taken for the neighbour."""
    hint = "give the address on the training link"
    return [
        ThunderError(f"{ip!r} would let a rank listen on every network", f"{where}: hosts[{rank}].ips", hint)
        for rank, host in enumerate(hosts)
        for ip in host["ips"]
        if is_every_address(ip)
    ]


def is_every_address(ip: Any) -> bool:
    """Whether a program that listens on this address listens on every network of its machine."""
    try:
        return ipaddress.ip_address(ip).is_unspecified
    except ValueError:  # "0" is one too, to the system
        return isinstance(ip, str) and not ip.strip("0.")


def _mpi_problems(hosts: list[Host], where: str) -> list[ThunderError]:
    """Addresses by which Open MPI cannot tell machines apart; ranks on one machine need no address."""
    machines = [machine_name(host["ssh"]) for host in hosts]
    if len(set(machines)) == 1:
        return []
    errors: list[ThunderError] = []
    owners: dict[str, str] = {}
    for rank, (machine, ips) in enumerate(zip(machines, (host["ips"] for host in hosts), strict=True)):
        bad = [] if ips else ["has no address on the training link"]
        for ip in ips:
            if not _is_reachable(ip):
                bad.append(f"{ip!r} is not an IPv4 address that another host can reach")
            elif owners.setdefault(ip, machine) != machine:
                bad.append(f"{ip!r} is also the address of another host")
        errors += [ThunderError(what, f"{where}: hosts[{rank}].ips", HINT) for what in bad]
    return errors


def _is_reachable(ip: Any) -> bool:
    try:
        return isinstance(ip, str) and not ipaddress.IPv4Address(ip).is_loopback
    except ValueError:
        return False


def _is_hostfile(hostfile: Any) -> bool:
    return (
        isinstance(hostfile, dict)
        and isinstance(hostfile.get("backend"), str)
        and isinstance(hostfile.get("envs"), list)
        and all(isinstance(pair, str) and re.fullmatch(fields.VARIABLE, pair) for pair in hostfile["envs"])
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
    """Missing RDMA devices: jaccl needs one for every other host, jaccl-ring one for each of the two neighbours."""
    errors, size = [], len(hosts)
    for rank, host in enumerate(hosts):
        place = f"{where}: hosts[{rank}].rdma"
        if len(host["rdma"]) != size:
            errors.append(ThunderError(f"must list {size} devices, null for itself", where=place))
            continue
        if host["rdma"][rank] is not None:
            errors.append(ThunderError(f"slot {rank} stands for this host itself and must be null", where=place))
        others = {(rank - 1) % size, (rank + 1) % size} if is_ring else set(range(size))
        missing = sorted(other for other in others - {rank} if not host["rdma"][other])
        if missing:
            names = ", ".join(hosts[other]["ssh"] for other in missing)
            errors.append(ThunderError(f"has no device for {names}", where=place, hint="run `ibv_devices` there"))
    return errors


def _shared(backend: str, hosts: list[Host], port_shift: int) -> dict[str, str]:
    """Variables that all ranks share."""
    if backend == "mpi":
        return {}  # mpi.places adds the variables of Open MPI
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


def _gpu(backend: str, hosts: list[Host], rank: int) -> dict[str, str]:
    """nccl: a GPU for each rank of a machine."""
    if backend != "nccl":
        return {}
    earlier = sum(host["ssh"] == hosts[rank]["ssh"] for host in hosts[:rank])
    return {"CUDA_VISIBLE_DEVICES": str(earlier)}


def ring_addresses(hosts: list[Host], first_port: int) -> list[list[str]]:
    """`ip:port` of every link of every rank: free ports on this machine, first_port and up on other machines."""
    addresses: list[list[str]] = []
    sockets: list[socket.socket] = []
    fixed_port = first_port
    try:
        for host in hosts:
            links = []
            for ip in host["ips"]:
                port = _free_port(ip, sockets) if is_local(host["ssh"]) else fixed_port
                links.append(f"{ip}:{port}")
                fixed_port += 1
            addresses.append(links)
    finally:
        for each in sockets:
            each.close()
    return addresses


def _free_port(ip: str, sockets: list[socket.socket]) -> int:
    """A free port. Its socket is added to sockets and stays open, so that the next call returns another port."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sockets.append(holder)
    try:
        holder.bind((ip, 0))
    except OSError as error:
        hint = "correct ips in [clusters]"
        raise ThunderError(
            f"{ip} is not an address of this machine: {error.strerror}", where="hostfile", hint=hint
        ) from error
    return int(holder.getsockname()[1])
