"""Sync and fetch over a real sshd and a network with faults."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import VENV, Lab
from tests.system.cluster.machine import HOME, LAN, PROJECT_FOLDER, Machine

HOST = '[[clusters.lab.hosts]]\nssh = "{}"\nips = ["{}"]\n'
RECIPE = 'cluster = "lab"\nmodel = "nano"\ndataset = "agp-nko-corrections"\n[train]\nnum_iters = 4\n'
SYNC = """
import sys
from pathlib import Path
from thunder_train import ThunderError
from thunder_train.cluster import fetch, sync
from thunder_train.config.load import load
recipe = load(Path()).recipes["lab"]
try:
    exec(sys.argv[1])
except ThunderError as error:
    sys.exit(str(error))
"""
TREE = (
    "data/agp-nko-corrections/train.jsonl",
    "thunder_train/cluster/sync.py",
    "runs/models/nano/files/model.safetensors",
)


def on_head(it: Lab, code: str) -> tuple[int, str, float]:
    """(exit status, output, seconds) of Python code on head that may use sync, fetch and the recipe."""
    start_s = time.monotonic()
    done = it.head.run([".venv/bin/python", "-c", SYNC, code])
    return done.returncode, done.stdout + done.stderr, time.monotonic() - start_s


def sync(it: Lab) -> tuple[int, str, float]:
    """A sync of the recipe."""
    return on_head(it, "print(*sync.lines(sync.sync(recipe, Path())), sep='\\n')")


@pytest.fixture
def it(two: Lab, built: Copy) -> Iterator[Lab]:
    """A lab whose head has model and rows, and whose hosts have nothing."""
    hosts = "".join(HOST.format(host.name, host.address) for host in two.hosts)
    head = two.head.project
    with (head / "thunder.toml").open("a") as file:
        file.write(f'[clusters.lab]\nfolder = "{PROJECT_FOLDER}"\n{hosts}')
    (head / "recipes/lab.toml").write_text(RECIPE)
    for folder in ("data/agp-nko-corrections", "runs/models"):
        shutil.copytree(built.path / folder, head / folder, dirs_exist_ok=True)
    for host in two.hosts:
        shutil.rmtree(host.project.parent)
    return two


def names_in(host: Machine) -> set[str]:
    """The names in a host's home and in its temporary folder."""
    return {path.name for path in [*host.home.iterdir(), *(host.folder / "tmp").iterdir()]}


def test_empty_hosts_are_filled_and_nothing_is_outside_of_the_folder(it: Lab) -> None:
    """
    After one sync two bare machines with ssh hold all that a training needs. The second sync copies nothing.
    """
    before = [names_in(host) for host in it.hosts]
    status, output, _ = sync(it)
    assert 0 == status, output

    again, idle, seconds = sync(it)

    print(f"nothing to do, two hosts: {seconds:.2f} s")
    assert (0, ["nothing to do"] * 2) == (again, [line.split(": ")[1].split(",")[0] for line in idle.splitlines()])
    for host, names in zip(it.hosts, before, strict=True):
        for name in TREE:
            assert (it.head.project / name).read_bytes() == (host.project / name).read_bytes()
        assert {"projects"} == names_in(host) - names


@pytest.mark.slow
def test_a_training_on_synced_hosts_comes_home(it: Lab, built: Copy) -> None:
    """
    Rank 0 runs on a host: after the fetch head has the bytes of two local ranks, and the hosts have no rest of the run.
    """
    assert 0 == sync(it)[0]
    for host in it.hosts:
        (host.project / ".venv").symlink_to(VENV)
    hosts = [{"ssh": host.name, "ips": [host.address], "rdma": []} for host in it.hosts]
    (it.head.project / "runs/smoke").mkdir()
    (it.head.project / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": hosts}))
    for host in it.hosts:
        shutil.copy(it.head.project / "hosts.json", host.project)
    shutil.copy(built.path / "runs/smoke/launch.sh", it.head.project / "runs/smoke")
    run, kept = ".thunder/staging/train-lab-1/runs/lab", ".thunder/partial/abc"
    flags = ["--hostfile", "hosts.json", "--folder", PROJECT_FOLDER, "--python", ".venv/bin/python"]
    flags += ["--adapter-path", f"{run}/adapter", "--checkpoint-path", kept]
    done = it.head.run(["bash", "runs/smoke/launch.sh", *flags])
    assert 0 == done.returncode, done.stderr

    home = f"fetch.checkpoints(recipe, Path(), {kept!r}); fetch.outputs(recipe, Path(), {run!r})"
    status, output, _ = on_head(
        it, f"{home}; fetch.remove_folders(recipe, Path(), ['.thunder/staging/train-lab-1', {kept!r}])"
    )

    assert 0 == status, output
    for name in ("adapter/adapters.safetensors", "adapter/done.json", "last/adapters.safetensors"):
        assert (built.path / "runs/smoke" / name).read_bytes() == (it.head.project / run / name).read_bytes()
    assert ["0000002.safetensors", "0000004.safetensors"] == sorted(
        path.name for path in (it.head.project / kept).iterdir()
    )
    for host in it.hosts:
        assert [False, False] == [(host.project / path).exists() for path in (run, kept)]


@pytest.mark.slow
def test_a_transfer_that_is_cut_off_names_the_host_and_continues(it: Lab) -> None:
    """
    A cable is pulled during the transfer: reported after about half a minute; no partial file where anything reads.
    """
    big = it.head.project / "templates/big.j2"
    big.write_bytes(bytes(range(256)) * (8 << 12))  # 8 MiB
    it.head.tc("qdisc", "add", "dev", LAN, "root", "tbf", "rate", "8mbit", "burst", "64kb", "latency", "400ms")
    code = "sync.sync(recipe, Path())"
    start_s = time.monotonic()
    transfer = it.head.start([".venv/bin/python", "-c", SYNC, code])
    incoming = it.hosts[1].project / ".thunder/incoming/lab"
    wait_for(lambda: any(path.stat().st_size > 1 << 20 for path in incoming.glob("*")))
    it.hosts[1].link_down(LAN)
    _, err = transfer.communicate(timeout=90)
    print(f"cut off: reported after {time.monotonic() - start_s:.0f} s: {err}")

    assert 1 == transfer.returncode
    assert err.startswith("host host2: the connection was lost: ")
    assert err.endswith(
        "; check that it is on the network, then run the command again: it continues where it stopped\n"
    )
    assert not (it.hosts[1].project / "templates").exists()
    assert big.read_bytes() == (it.hosts[0].project / "templates/big.j2").read_bytes()
    it.hosts[1].link_up(LAN)
    it.head.tc("qdisc", "del", "dev", LAN, "root")
    status, output, _ = sync(it)
    assert 0 == status, output
    assert big.read_bytes() == (it.hosts[1].project / "templates/big.j2").read_bytes()


def test_a_full_disk_names_the_host(it: Lab) -> None:
    """
    The other host is synced, and the full one is not changed.
    """
    it.hosts[1].run(["mkdir", "-p", PROJECT_FOLDER], cwd=str(HOME))
    it.hosts[1].run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", PROJECT_FOLDER], cwd=str(HOME))

    status, output, _ = sync(it)

    assert 1 == status
    assert re.match("host host2: has 0 MiB free, and [0-9]+ MiB would be sent; free space there", output), output
    assert (it.hosts[0].project / "thunder_train/cluster/sync.py").exists()


def test_a_host_needs_no_rsync(it: Lab) -> None:
    """
    A bare Debian has none, and Apple's reads options in its own way.
    """
    for machine in (it.head, it.hosts[1]):
        machine.run(["mount", "--bind", "/dev/null", "/usr/bin/rsync"], cwd="/")

    status, output, _ = sync(it)

    assert 0 == status, output
    assert (it.hosts[1].project / "thunder_train/cluster/sync.py").exists()


def test_a_killed_sync_leaves_no_process_on_a_host(it: Lab) -> None:
    """
    kill -9 of the build, in the middle of a transfer: nothing of it can say goodbye.
    """
    (it.head.project / "templates/big.j2").write_bytes(bytes(range(256)) * (8 << 12))  # 8 MiB
    it.head.tc("qdisc", "add", "dev", LAN, "root", "tbf", "rate", "8mbit", "burst", "64kb", "latency", "400ms")
    transfer = it.head.start([".venv/bin/python", "-c", SYNC, "sync.sync(recipe, Path())"])
    incoming = it.hosts[1].project / ".thunder/incoming/lab"
    wait_for(lambda: any(path.stat().st_size > 1 << 20 for path in incoming.glob("*")))
    assert it.hosts[1].pids("readline()")
    os.kill(transfer.pid, signal.SIGKILL)

    wait_for(lambda: not any(host.pids("readline()") for host in it.hosts))
    wait_for(lambda: not it.head.pids("ssh -T"))
