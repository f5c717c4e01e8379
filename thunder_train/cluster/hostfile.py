"""Hosts: the hostfile, and the one place that speaks ssh.

Writes hostfile.json exactly as `mlx.launch --hostfile` reads it. Remote hosts have not been tried on Macs yet.
"""

import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.project import Cluster, is_local
from thunder_train.core import ssh

ANSWER_WITHIN_S = 30


@dataclass(frozen=True)
class Answer:
    """What a command on a host gave. status: its exit status, 255 when ssh itself failed."""

    status: int
    output: str
    error: str


def argv_on(host: str, argv: list[str], env: dict[str, str], folder: str) -> list[str]:
    """The command that runs argv on a host: argv itself here, an ssh command line elsewhere.

    env and folder hold on the remote side; every value is quoted, for a hostile one must stay a value.
    """
    if is_local(host):
        return argv
    variables = [f"{name}={value}" for name, value in sorted(env.items())]
    remote = f"cd {shlex.quote(folder)} && exec env {shlex.join([*variables, *argv])}"
    return ssh.argv(host, remote)


def on(host: str, argv: list[str], folder: str) -> Answer:
    """Run a command on a host and wait for what it says, half a minute at most."""
    try:
        done = subprocess.run(
            argv_on(host, argv, {}, folder), capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(255, "", f"no answer within {ANSWER_WITHIN_S} s")
    except FileNotFoundError as error:
        return Answer(255, "", f"{error.filename} is not installed here")
    return Answer(done.returncode, done.stdout, done.stderr.strip())


def address_problems(cluster: Cluster) -> list[ThunderError]:
    """Ranks without an address on the training link that their backend needs: a new cluster's are asked for later."""
    hint = f"run `./doit hosts:{cluster.name}` and put its table into thunder.toml"
    is_mpi, machines = cluster.backend == "mpi", {"" if is_local(host.ssh) else host.ssh for host in cluster.hosts}
    if len(cluster.hosts) == 1 or (is_mpi and len(machines) == 1):
        return []
    return [
        ThunderError(
            f"{cluster.backend} needs an address", f"thunder.toml: clusters.{cluster.name}.hosts[{number}].ips", hint
        )
        for number, host in enumerate(cluster.hosts)
        if not host.ips and (number == 0 or is_mpi or cluster.backend == "ring")
    ]


def hostfile(cluster: Cluster) -> dict[str, Any]:
    """What mlx.launch --hostfile reads. An rdma slot of "" is a host's own and becomes null.

    Raises ThunderError for each address that lacks.
    """
    raise_all(address_problems(cluster))
    hosts = [
        {"ssh": host.ssh, "ips": list(host.ips), "rdma": [device or None for device in host.rdma]}
        for host in cluster.hosts
    ]
    return {"backend": cluster.backend, "envs": list(cluster.envs), "hosts": hosts}
