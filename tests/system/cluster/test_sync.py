"""Sync and mirror over a real sshd and real cables."""

import json
import re
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import VENV, Lab
from tests.system.cluster.machine import HOME, LAN, LINK, PROJECT_FOLDER, Machine

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
    """(exit status, what it said, seconds) of Python on head that knows sync, mirror and the recipe."""
    began = time.monotonic()
    done = it.head.run([".venv/bin/python", "-c", SYNC, code])
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


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


def seen(host: Machine) -> set[str]:
    """What lies in a host's home and in its temporary folder."""
    return {path.name for path in [*host.home.iterdir(), *(host.folder / "tmp").iterdir()]}


def test_empty_hosts_are_filled_and_nothing_lies_outside_of_the_folder(it: Lab) -> None:
    """
    Two bare machines with ssh: one sync, and they hold all that a training needs. The second one costs under 2 s.
    """
    before = [seen(host) for host in it.hosts]
    status, said, _ = sync(it)
    assert 0 == status, said

    again, idle, seconds = sync(it)

    print(f"nothing to do, two hosts: {seconds:.2f} s")
    assert (0, ["nothing to do"] * 2) == (again, [line.split(": ")[1].split(",")[0] for line in idle.splitlines()])
    assert 2.0 > seconds
    for host, names in zip(it.hosts, before, strict=True):
        for name in TREE:
            assert (it.head.project / name).read_bytes() == (host.project / name).read_bytes()
        assert {"projects"} == seen(host) - names


def test_a_training_on_synced_hosts_comes_home(it: Lab, built: Copy) -> None:
    """
    Rank 0 is far away: after the mirror head holds what two local ranks made, to the bit, and the hosts no rest of it.
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

    home = f"fetch.checkpoints(recipe, Path(), {kept!r}); fetch.mirror(recipe, Path(), {run!r})"
    status, said, _ = on_head(it, f"{home}; fetch.forget(recipe, Path(), ['.thunder/staging/train-lab-1', {kept!r}])")

    assert 0 == status, said
    for name in ("adapter/adapters.safetensors", "adapter/done.json", "last/adapters.safetensors"):
        assert (built.path / "runs/smoke" / name).read_bytes() == (it.head.project / run / name).read_bytes()
    assert ["0000002.safetensors", "0000004.safetensors"] == sorted(
        path.name for path in (it.head.project / kept).iterdir()
    )
    for host in it.hosts:
        assert [False, False] == [(host.project / path).exists() for path in (run, kept)]


BIG, RELAYED = (
    "templates/big.j2",
    "sync.relay.LEAST_BYTES = 2 << 20; print(*sync.lines(sync.sync(recipe, Path())), sep='\\n')",
)
SLOW = ["root", "tbf", "rate", "16mbit", "burst", "64kb", "latency", "400ms"]


@pytest.mark.parametrize(
    ("slow", "told"),
    [
        (LAN, "host2: N files, N MiB, the large ones from host1, N s"),
        (LINK, "host2: N files, N MiB, N s"),
        ("", "host2: N files, N MiB, N s"),
    ],
)
def test_a_large_file_goes_the_faster_way(it: Lab, slow: str, told: str) -> None:
    """
    Over a slow Wi-Fi it comes once, and the cables do the rest; over a slow or cut cable ssh brings it, as ever.
    """
    big = it.head.project / BIG
    big.write_bytes(bytes(range(256)) * (4 << 12))  # 4 MiB
    for machine in it.machines:
        if slow:
            machine.tc("qdisc", "add", "dev", slow, *SLOW)
    if not slow:
        it.hosts[0].link_down(LINK)
    status, said, seconds = on_head(it, RELAYED)

    print(f"figure: 4 MiB to two hosts, slow: {slow or 'none, link cut'}: {seconds:.1f} s\n{said}")
    assert 0 == status, said
    lines = [re.sub(r"\b[0-9.]+\b", "N", line) for line in said.splitlines()]
    failed = [] if slow else ["host1 -> host2: no answer within N s; sending from here"]
    assert ["host1: N files, N MiB, N s", told, *failed] == lines
    for host in it.hosts:
        assert big.read_bytes() == (host.project / BIG).read_bytes()
        assert [] == host.pids("exec(json.loads")


def test_a_new_host_gets_it_from_one_that_has_it_and_from_this_machine_if_that_is_one(it: Lab) -> None:
    """
    A third Mac beside two, and a project on the first Mac, which ssh reaches the others from by Wi-Fi alone.
    """
    assert 0 == sync(it)[0]
    table = it.head.project / "thunder.toml"
    table.write_text(
        table.read_text().replace('ssh = "host1"\nips = ["10.77.0.2"]', 'ssh = "localhost"\nips = ["10.77.0.1"]')
    )
    (it.head.project / BIG).write_bytes(bytes(range(256)) * (4 << 12))
    it.head.tc("qdisc", "add", "dev", LAN, *SLOW)
    status, said, _ = on_head(it, RELAYED)

    assert 0 == status, said
    assert re.fullmatch("host2: 2 files, 4.0 MiB, the large ones from localhost, [0-9.]+ s", said.strip()), said
    assert (it.head.project / BIG).read_bytes() == (it.hosts[1].project / BIG).read_bytes()


@pytest.mark.slow
def test_a_transfer_that_is_cut_off_names_the_host_and_goes_on(it: Lab) -> None:
    """
    A cable is pulled in mid-transfer: told within half a minute and a little; no half file where anything reads.
    """
    big = it.head.project / "templates/big.j2"
    big.write_bytes(bytes(range(256)) * (8 << 12))  # 8 MiB
    it.head.tc("qdisc", "add", "dev", LAN, "root", "tbf", "rate", "8mbit", "burst", "64kb", "latency", "400ms")
    code = "sync.sync(recipe, Path())"
    began = time.monotonic()
    transfer = it.head.start([".venv/bin/python", "-c", SYNC, code])
    incoming = it.hosts[1].project / ".thunder/incoming/lab/templates"
    wait_for(lambda: any(path.stat().st_size > 1 << 20 for path in incoming.glob(".big*")))
    it.hosts[1].link_down(LAN)
    _, err = transfer.communicate(timeout=90)
    print(f"cut off: told after {time.monotonic() - began:.0f} s: {err}")

    assert 1 == transfer.returncode
    assert err.startswith("host host2: was lost: ")
    assert err.endswith("; see that it is on the network, and run it again: it goes on where it stopped\n")
    assert not (it.hosts[1].project / "templates").exists()
    assert big.read_bytes() == (it.hosts[0].project / "templates/big.j2").read_bytes()
    it.hosts[1].link_up(LAN)
    it.head.tc("qdisc", "del", "dev", LAN, "root")
    status, said, _ = sync(it)
    assert 0 == status, said
    assert big.read_bytes() == (it.hosts[1].project / "templates/big.j2").read_bytes()


def test_a_full_disk_names_the_host(it: Lab) -> None:
    """
    The other host is synced all the same, and the full one is as it was.
    """
    it.hosts[1].run(["mkdir", "-p", PROJECT_FOLDER], cwd=str(HOME))
    it.hosts[1].run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", PROJECT_FOLDER], cwd=str(HOME))

    status, said, _ = sync(it)

    assert 1 == status
    assert re.match("host host2: has 0 MiB free, and [0-9]+ MiB are to come; free space there", said), said
    assert (it.hosts[0].project / "thunder_train/cluster/sync.py").exists()


def test_a_host_without_rsync_says_what_to_install(it: Lab) -> None:
    """
    A bare Debian has none.
    """
    it.hosts[1].run(["mount", "--bind", "/dev/null", "/usr/bin/rsync"], cwd="/")

    status, said, _ = sync(it)

    assert 1 == status
    assert said.strip().endswith("install rsync there: apt-get install rsync, or brew install rsync"), said
