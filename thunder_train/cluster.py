"""Hosts: the hostfile, the preflight, and the one place that speaks ssh.

Writes hostfile.json exactly as `mlx.launch --hostfile` reads it, and preflight.json: what each rank said of itself.
Remote hosts have not been tried on Macs yet.
"""

import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, files, raise_all
from thunder_train.config import Cluster, is_local

SMOKE = "thunder-smoke "
"""Begins the line in which worker/smoke.py tells what a rank saw."""
ASK = (
    "import importlib.metadata as m, json, platform;"
    "print(json.dumps({'python': platform.python_version(), 'mlx': m.version('mlx'), 'mlx_lm': m.version('mlx-lm')}))"
)
ANSWER_WITHIN_S = 30
SMOKE_WITHIN_S = 120


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
    options = ["BatchMode=yes", "ConnectTimeout=10", "ForwardAgent=no", "ServerAliveInterval=10"]
    return ["ssh", *(part for option in options for part in ("-o", option)), "--", host, remote]


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


def hostfile(cluster: Cluster) -> dict[str, Any]:
    """What mlx.launch --hostfile reads. An rdma slot of "" is a host's own and becomes null."""
    hosts = [
        {"ssh": host.ssh, "ips": list(host.ips), "rdma": [device or None for device in host.rdma]}
        for host in cluster.hosts
    ]
    return {"backend": cluster.backend, "envs": list(cluster.envs), "hosts": hosts}


def preflight(cluster: Cluster, logs: Path) -> dict[str, Any]:
    """What every host and rank said of itself; ThunderError with every problem when a training could not run.

    Remote hosts are asked first, at once; the all-sum over all ranks follows when each of them is ready.
    """
    remote = sorted({host.ssh for host in cluster.hosts if not is_local(host.ssh)})
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = dict(zip(remote, pool.map(lambda host: _ask(cluster, host), remote), strict=True))
    here = json.loads(on("localhost", [sys.executable, "-c", ASK], ".").output)
    raise_all([problem for host in remote for problem in host_problems(host, answers[host], here, cluster)])
    return {"schema": "thunder.preflight/1", "backend": cluster.backend, "ranks": _smoke(cluster, logs)}


def host_problems(host: str, answer: Answer, here: dict[str, str], cluster: Cluster) -> list[ThunderError]:
    """Why a remote host is not ready, from its answer to ASK. here: the same facts of this machine."""
    where = f"host {host}"
    if answer.status == 255:
        what = f"ssh cannot reach it: {answer.error or 'no message'}"
        return [ThunderError(what, where, f"make `ssh {host} true` work without a password")]
    if answer.status:
        what = f"cannot run {cluster.python} in {cluster.folder}: {answer.error or 'no message'}"
        return [ThunderError(what, where, f"copy the project to {cluster.folder} there and run ./doit once")]
    try:
        there = json.loads(answer.output)
    except ValueError:
        return [ThunderError(f"answered {answer.output[:80]!r}", where, "keep its login scripts silent")]
    return [
        ThunderError(f"has {name} {there.get(name)}, and this machine {version}", where, "run ./doit there once")
        for name, version in sorted(here.items())
        if there.get(name) != version
    ]


def _ask(cluster: Cluster, host: str) -> Answer:
    return on(host, [cluster.python, "-c", ASK], cluster.folder)


def _smoke(cluster: Cluster, logs: Path) -> list[dict[str, Any]]:
    """Every rank's own word on the ring: its size, and whether all-sums were right."""
    files.write_json(logs / "hostfile.json", hostfile(cluster))
    argv = [sys.executable, "-m", "thunder_train.launch", "--hostfile", f"{logs}/hostfile.json", "--log-dir", str(logs)]
    argv += ["--module", "thunder_train.worker.smoke", "--start-timeout", str(SMOKE_WITHIN_S)]
    if cluster.is_remote:
        argv += ["--folder", cluster.folder, "--python", cluster.python]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        what = f"the all-sum over {len(cluster.hosts)} ranks failed: {done.stderr.strip()}"
        raise ThunderError(what, where=f"cluster {cluster.name!r}", mend="check the addresses in thunder.toml")
    ranks = []
    for rank, host in enumerate(cluster.hosts):
        lines = (logs / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        told = [json.loads(line.removeprefix(SMOKE)) for line in lines if line.startswith(SMOKE)]
        if not told:
            raise ThunderError(
                "said nothing of the all-sum", f"rank {rank} ({host.ssh})", f"read {logs}/rank-{rank}.log"
            )
        ranks.append({"host": host.ssh, **told[-1]})
    return ranks
