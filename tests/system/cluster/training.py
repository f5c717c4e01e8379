"""A tiny training on the hosts of a lab, started as launch.sh does it."""

import json
import re
import shutil
import subprocess
import sys
import time

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import Lab
from tests.system.cluster.machine import PROJECT_FOLDER, Machine

RUN, ADAPTER = "runs/smoke", "runs/smoke/adapter/adapters.safetensors"
LONG = (
    "--num-iters",
    "60",
    "--save-every",
    "10",
    "--eval-every",
    "60",
    "--log-every",
    "1",
    "--learning-rate",
    "1e-3",
)
"""A training of some seconds, long enough to break something during it."""
ENDLESS = (*LONG, "--num-iters", "50000", "--save-every", "50000")
"""A training that only an interruption ends."""
WORKER = "-m thunder_train.worker"
"""Part of every rank's command line."""


def give(it: Lab, project: Copy, ranks: list[Machine] | None = None) -> None:
    """Copy model, rows and hostfile to every machine, as sync would. ranks: their machines, or all hosts."""
    hosts = [{"ssh": each.name, "ips": [each.address], "rdma": []} for each in (ranks or it.hosts)]
    for machine in it.machines:
        shutil.copytree(project.path / "data", machine.project / "data", dirs_exist_ok=True)
        shutil.copytree(project.path / "runs/models", machine.project / "runs/models", dirs_exist_ok=True)
        (machine.project / RUN).mkdir(exist_ok=True)
        (machine.project / RUN / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": hosts}))
    shutil.copy(project.path / RUN / "launch.sh", it.head.project / RUN)


def launch(it: Lab, *flags: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start launch.sh on head; both outputs are pipes."""
    remote = ["--hostfile", f"{RUN}/hosts.json", "--folder", PROJECT_FOLDER, "--python", ".venv/bin/python"]
    return it.head.start(["bash", f"{RUN}/launch.sh", *remote, *flags], env)


def finished(process: "subprocess.Popen[str]", within_s: float = 120) -> tuple[int, str, str, float]:
    """(exit status, stdout, stderr, seconds from now) of a launch."""
    start_s = time.monotonic()
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err, time.monotonic() - start_s


def local(project: Copy, *flags: str) -> bytes:
    """The adapter that two local ranks train with the same flags."""
    argv = ["bash", f"{RUN}/launch.sh", *flags, "--adapter-path", "local/adapter", "--checkpoint-path", "local/kept"]
    env = {"THUNDER_PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    subprocess.run(argv, cwd=project.path, env=env, check=True, capture_output=True)
    weights = (project.path / "local/adapter/adapters.safetensors").read_bytes()
    shutil.rmtree(project.path / "local")
    return weights


def adapter(machine: Machine) -> bytes:
    """The adapter that rank 0 wrote on its host."""
    return (machine.project / ADAPTER).read_bytes()


def reached(it: Lab, step: int) -> None:
    """Wait until rank 0's log on head has this step."""
    log = it.head.project / RUN / "logs/rank-0.log"
    wait_for(lambda: log.exists() and f"step {step}/" in log.read_text())


def steps(text: str) -> list[int]:
    """The training steps in a log."""
    return [int(number) for number in re.findall(r"^step (\d+)/\d+ .*train", text, re.MULTILINE)]


def workers(it: Lab) -> list[int]:
    """Ranks that still run, on any host."""
    return [pid for machine in it.machines for pid in machine.pids(WORKER)]
