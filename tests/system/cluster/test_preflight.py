"""The preflight on hosts of a lab: what it measures, and how it reports every fault before a training starts."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import VENV, Lab
from tests.system.cluster.machine import HOME, LINK, PROJECT_FOLDER, Machine, in_net

PREFLIGHT = """
import json, sys
from pathlib import Path
from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.build.key import STATS
from thunder_train.cluster import preflight
from thunder_train.config import load
from thunder_train.launch import fit
recipe = load.load(Path(), STATS).recipes["far"]
flags = json.loads(sys.argv[1])
client.ANSWER_WITHIN_S = flags.pop("within_s", 30)
if not flags.pop("has_memory", False):  # computing it takes two seconds of two cores in each of these tests
    fit.rank_peaks = lambda *_: [1_000_000] * len(recipe.cluster.hosts)
try:
    report = preflight.preflight(recipe, Path("runs/far/logs/check"), **flags)
except ThunderError as error:
    sys.exit(str(error))
Path("report.json").write_text(json.dumps(report))
"""
CLOCK = "import time; true = time.time; time.time = lambda: true() + 75\n"
MEMORY = """
from pathlib import Path
true = Path.read_text
Path.read_text = lambda path, *a, **k: "MemAvailable: 1000 kB" if str(path) == "/proc/meminfo" else true(path, *a, **k)
"""
DISCOVER = """
from pathlib import Path
from thunder_train.build.key import STATS
from thunder_train.cluster import discover
from thunder_train.config import load
print(discover.discover(load.load(Path(), STATS).recipes["far"].cluster), end="")
"""
PROGRAM = "exec(json.loads"
"""Part of the command line of what a preflight starts on a host."""
SYNC = "run `./doit sync:far`"
RENDERED: dict[str, dict[str, bytes]] = {}
"""{table of a cluster: files of runs/far}"""


def furnish(
    it: Lab, project: Copy, folder: str = PROJECT_FOLDER, ips: Callable[[Machine], str] = lambda m: m.address
) -> None:
    """The recipe `far` on head, with a rank on each host, and the files that sync would bring to the hosts."""
    head = it.head.project
    table = f'\n[clusters.far]\nbackend = "ring"\nfolder = {json.dumps(folder)}\n'
    for host in it.hosts:
        table += f'\n[[clusters.far.hosts]]\nssh = "{host.name}"\nips = ["{ips(host)}"]\n'
    with (head / "thunder.toml").open("a") as file:
        file.write(table)
    text = (head / "recipes/smoke.toml").read_text().replace('cluster = "local"', 'cluster = "far"')
    (head / "recipes/far.toml").write_text(text)
    for part in ("data", "runs/models"):
        shutil.copytree(project.path / part, head / part, dirs_exist_ok=True)
    render(it, table)
    for host in it.hosts:
        bring(it, host, host.home / folder)


def render(it: Lab, table: str) -> None:
    """Scripts and hostfile of `far` on head, by doit: once for each table of a cluster, because that takes seconds."""
    run = it.head.project / "runs/far"
    if table in RENDERED:
        run.mkdir(parents=True)
        for name, content in RENDERED[table].items():
            (run / name).write_bytes(content)
        return
    done = it.head.run([".venv/bin/python", "-m", "thunder_train.cli", "scripts:far", "hostfile:far"])
    assert 0 == done.returncode, done.stdout + done.stderr
    RENDERED[table] = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def bring(it: Lab, host: Machine, target: Path) -> None:
    """Copy to a host what sync would bring."""
    ignored = shutil.ignore_patterns(".venv", ".thunder")
    shutil.copytree(it.head.project, target, dirs_exist_ok=True, ignore=ignored)
    if not (target / ".venv").is_symlink():
        (target / ".venv").symlink_to((host.project / ".venv").readlink())


@pytest.fixture
def far(two: Lab, smoke: Copy) -> Lab:
    """Two hosts that are ready."""
    furnish(two, smoke)
    return two


def run_preflight(it: Lab, **flags: Any) -> tuple[int, list[str], list[str]]:
    """Exit status, lines of the tables and problems of a preflight on head."""
    done = it.head.run([".venv/bin/python", "-c", PREFLIGHT, json.dumps(flags)])
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def problems(it: Lab, **flags: Any) -> list[str]:
    """The lines of a preflight that fails."""
    status, _, lines = run_preflight(it, **flags)
    assert 1 == status
    return lines


def test_two_ready_hosts_are_measured(far: Lab) -> None:
    """
    The seed's "Mac4 -> Mac5 0.52 ms", in both directions over the training link; no process stays on the hosts.
    """
    status, table, errors = run_preflight(far)
    report = json.loads((far.head.project / "report.json").read_text())

    assert (0, []) == (status, errors)
    assert ["host1", "host2"] == [host["host"] for host in report["hosts"]]
    assert [("host1", "host2", "10.77.0.3", LINK), ("host2", "host1", "10.77.0.2", LINK)] == [
        (row["from"], row["to"], row["address"], row["interface"]) for row in report["links"]
    ]
    assert all(0 < row["latency_ms"] < 100 and row["bytes_per_second"] > 1e6 for row in report["links"])
    assert [("host1", 0, 2, True), ("host2", 1, 2, True)] == [
        (rank["host"], rank["rank"], rank["size"], rank["all_sum"]) for rank in report["ranks"]
    ]
    assert ["host1  ready", "host2  ready"] == [line[:12].rstrip() for line in table[1:3]]
    assert [[], []] == [host.pids("python") for host in far.hosts]


def test_before_a_sync_missing_files_are_notes(far: Lab) -> None:
    """
    Otherwise a first training could never reach its sync. The ranks start only when nothing is missing.
    """
    shutil.rmtree(far.hosts[0].project)
    (far.hosts[1].project / "data/agp-nko-corrections/train.jsonl").write_text("changed\n")
    expected = [
        f"host host1: no project there: {PROJECT_FOLDER} is missing; {SYNC}",
        f"host host2: data/agp-nko-corrections/train.jsonl: not the same as here; {SYNC}",
    ]
    status, table, errors = run_preflight(far, is_synced=False)

    assert (0, []) == (status, errors)
    assert [*expected, "the all-reduce test is skipped until a sync has brought them"] == table[-3:]
    assert expected == problems(far)


def test_another_version_and_other_code_name_the_host(far: Lab) -> None:
    """
    Two versions of MLX on one ring hang or add wrongly, without a message.
    """
    first, second = (host.project for host in far.hosts)
    python = first / ".venv/bin/python"
    (first / ".venv").unlink()
    (first / ".venv/mlx-0.1.dist-info").mkdir(parents=True)
    (first / ".venv/mlx-0.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: mlx\nVersion: 0.1\n")
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH="${{0%/bin/python}}" exec {VENV}/bin/python "$@"\n')
    python.chmod(0o755)
    (second / "thunder_train/worker/train/loop.py").write_text("import this\n")
    lines = problems(far)

    assert lines[0].startswith("host host1: has mlx 0.1, and this machine ")
    assert [f"host host2: thunder_train/worker/train/loop.py: other code than here; {SYNC}"] == lines[1:]


def test_an_address_on_another_network_is_no_training_link(two: Lab, smoke: Copy) -> None:
    """
    The message lists the addresses that the host has.
    """
    furnish(two, smoke, ips=lambda host: "10.99.0.1" if host.name == "host1" else host.address)

    assert [
        "host host1: 10.99.0.1 is not an address of host1; it has 192.168.77.2 (lan0), 10.77.0.2 (link0); "
        "correct ips in [clusters] of thunder.toml, or set the address there",
    ] == problems(two)


def test_a_cut_cable_is_seen_while_ssh_still_works(far: Lab) -> None:
    """
    ssh goes over another network, as with Wi-Fi and a Thunderbolt cable.
    """
    far.hosts[1].link_down(LINK)

    start_s = time.monotonic()
    lines = problems(far)
    assert time.monotonic() - start_s < 15
    assert ["host host1: cannot reach host2 at 10.77.0.3: ", "host host2: cannot reach host1 at 10.77.0.2: "] == [
        line[: line.index(": ", 30) + 2] for line in lines
    ]
    assert lines[0].endswith("; check the cable, ips in [clusters], and the firewall of host2")


def test_a_link_that_works_one_way_is_reported_by_direction(far: Lab) -> None:
    """
    A firewall drops incoming packets: ring ranks would wait for each other.
    """
    far.hosts[1].iptables("-A", "INPUT", "-i", LINK, "-p", "tcp", "--syn", "-j", "DROP")

    assert [
        "host host1: cannot reach host2 at 10.77.0.3: no answer within 3 s; "
        "check the cable, ips in [clusters], and the firewall of host2"
    ] == problems(far)


def test_traffic_that_leaves_by_another_interface_is_reported(far: Lab) -> None:
    """
    With a wrong route the training would use the slow network, and only its speed would show it.
    """
    first, second = far.hosts
    in_net(first.pid, "ip", "route", "add", "10.77.0.3/32", "via", second.lan, "src", first.lan)

    assert [
        "host host1: reaches host2 at 10.77.0.3 from 192.168.77.2, which is not on that training link; "
        "correct ips in [clusters]: both ends of a cable need addresses of one network"
    ] == problems(far)


def test_a_slow_link_shows_in_the_table(far: Lab) -> None:
    """
    1 Mbit/s: measured in two seconds each way, where 16 MB would take two minutes.
    """
    for host in far.hosts:
        host.tc("qdisc", "add", "dev", LINK, "root", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "400ms")
    (far.hosts[0].home / ".bashrc").write_text("export MLX_METAL_FAST_SYNCH=1\n")  # fails before the all-reduce test
    start_s = time.monotonic()
    _, table, lines = run_preflight(far)

    assert time.monotonic() - start_s < 20
    assert [
        "host host1: MLX_METAL_FAST_SYNCH=1 is set: the GPU can hang until a restart; "
        "remove it from the shell's start files there"
    ] == lines
    speeds = [line.split()[-2:] for line in table if " -> " in line]
    assert [("kB/s", True), ("kB/s", True)] == [(unit, 50 < float(speed) < 300) for speed, unit in speeds]


def test_a_link_that_loses_packets_is_still_measured(far: Lab) -> None:
    """
    One in twenty: slow, but not unreachable.
    """
    rule = "-A INPUT -i link0 -m statistic --mode random --probability 0.05 -j DROP"
    far.hosts[0].iptables(*rule.split())

    assert 0 == run_preflight(far)[0]


def test_a_changed_host_key_stops_it(far: Lab) -> None:
    """
    Another machine may answer at that address.
    """
    known = far.head.home / ".ssh/known_hosts"
    first, second = known.read_text().splitlines()
    known.write_text(f"{first}\n{second.split()[0]} {' '.join(first.split()[1:])}\n")
    lines = problems(far)

    assert 1 == len(lines)
    assert lines[0].startswith("host host2: ssh cannot reach it: ")
    assert lines[0].endswith("; find out why its key changed; if rightly, `ssh-keygen -R host2`, then `ssh host2`")


def test_a_frozen_host_is_given_up(far: Lab) -> None:
    """
    A hung file system: the kernel answers, and no process.
    """
    far.hosts[1].stop()
    start_s = time.monotonic()
    lines = problems(far, within_s=3)
    far.hosts[1].cont()

    assert time.monotonic() - start_s < 15
    assert ["host host2: ssh cannot reach it: no answer within 3 s; make `ssh host2 true` work without a password"] == (
        lines
    )


def test_a_worker_of_an_earlier_run_is_found_and_the_hint_ends_it(far: Lab) -> None:
    """
    It holds memory and ports. The command in the hint ends it.
    """
    (far.hosts[0].project / "thunder_train/worker/stuck.py").write_text("import time\ntime.sleep(600)\n")
    far.hosts[0].start([".venv/bin/python", "-m", "thunder_train.worker.stuck"])
    wait_for(lambda: bool(far.hosts[0].pids("worker.stuck")))
    lines = problems(far)

    assert 1 == len(lines)
    assert lines[0].startswith(
        "host host1: workers of an earlier run still run there: "
        ".venv/bin/python -m thunder_train.worker.stuck (process "
    )
    hint = lines[0][lines[0].index("`") + 1 : -1]
    assert 0 == far.head.run(shlex.split(hint)).returncode
    assert 0 == run_preflight(far)[0]


def test_a_wrong_clock_and_too_little_memory_are_reported(far: Lab) -> None:
    """
    Logs of two clocks cannot be compared. The needed memory is that of `doit fit` for this recipe.
    """
    for host, code in zip(far.hosts, (CLOCK, MEMORY), strict=True):
        (host.home / "fake").mkdir()
        (host.home / "fake/sitecustomize.py").write_text(code)
        (host.home / ".bashrc").write_text("export PYTHONPATH=~/fake\n")

    clock, memory = problems(far, has_memory=True)
    hint = "end other programs there, or see `./doit fit:far`"
    assert (
        "host host1: its clock is 75 s ahead of this machine's; set it: `sudo sntp -sS time.apple.com` on a Mac"
        == clock
    )
    assert re.fullmatch(rf"host host2: has 1.02 MB of memory, and its ranks need about [0-9.]+ MB; {hint}", memory)


def test_a_full_disk_is_seen_before_the_training(far: Lab) -> None:
    """
    Otherwise the first checkpoint would fail.
    """
    first = far.hosts[0]
    subprocess.run(
        [
            "nsenter",
            "-t",
            str(first.pid),
            "-m",
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "size=50m",
            "tmpfs",
            str(HOME / PROJECT_FOLDER),
        ],
        check=True,
    )
    inside = Path(f"/proc/{first.pid}/root{HOME}", PROJECT_FOLDER)  # only processes of the host see its mount
    bring(far, first, inside)
    lines = problems(far)

    assert 1 == len(lines)
    assert lines[0].startswith("host host1: has ")
    assert lines[0].endswith(" MB of free disk, and needs 100 MB; free space there")


def test_a_folder_with_a_hostile_name_is_a_folder(two: Lab, smoke: Copy) -> None:
    """
    No shell string is ever built from config without quoting.
    """
    furnish(two, smoke, folder="a b; $(touch pwned) 'x'")

    assert 0 == run_preflight(two)[0]
    assert [] == [path for host in two.hosts for path in host.home.rglob("pwned")]


def test_four_hosts_are_measured_in_all_directions(four: Lab, smoke: Copy) -> None:
    """
    Twelve links; four of them carry the ring.
    """
    furnish(four, smoke)
    assert 0 == run_preflight(four)[0]
    report = json.loads((four.head.project / "report.json").read_text())

    assert (12, 4) == (len(report["links"]), sum(row["is_needed"] for row in report["links"]))
    assert [4] * 4 == [rank["size"] for rank in report["ranks"]]


@pytest.mark.parametrize("during", [PROGRAM, "allreduce_check"], ids=["questions", "ranks"])
def test_a_killed_preflight_leaves_nothing_on_the_hosts(far: Lab, during: str) -> None:
    """
    The program there ends with its connection, and so do the ranks, which the launcher follows.
    """
    for host in far.hosts:
        host.tc("qdisc", "add", "dev", LINK, "root", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "400ms")
    process = far.head.start([".venv/bin/python", "-c", PREFLIGHT, "{}"])
    wait_for(lambda: all(host.pids(during) for host in far.hosts), seconds=60)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    left = (PROGRAM, "thunder_train")
    wait_for(lambda: not any(machine.pids(text) for machine in far.machines for text in left), seconds=15)


def test_ctrl_c_does_not_wait_for_a_host_that_never_answers(far: Lab) -> None:
    """
    Half a minute is too long to wait after Ctrl-C.
    """
    far.hosts[1].stop()
    process = far.head.start([".venv/bin/python", "-c", PREFLIGHT, "{}"])
    wait_for(lambda: bool(far.hosts[0].pids(PROGRAM)))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    start_s = time.monotonic()
    _, err = process.communicate()
    far.hosts[1].cont()

    assert time.monotonic() - start_s < 4
    assert err.endswith("KeyboardInterrupt\n")


def test_this_machine_may_be_one_of_the_hosts(two: Lab, smoke: Copy) -> None:
    """
    Rank 0 on head: no ssh to it, and the same figures.
    """
    furnish(two, smoke)
    table = two.head.project / "thunder.toml"
    text = table.read_text().replace('ssh = "host1"', 'ssh = "localhost"')
    table.write_text(text.replace(f'"{two.hosts[0].address}"', f'"{two.head.address}"'))
    two.head.run([".venv/bin/python", "-m", "thunder_train.cli", "scripts:far", "hostfile:far"])
    bring(two, two.hosts[1], two.hosts[1].project)
    status, _, errors = run_preflight(two)
    report = json.loads((two.head.project / "report.json").read_text())

    assert (0, []) == (status, errors)
    assert ["localhost", "host2"] == [host["host"] for host in report["hosts"]]
    assert [("localhost", "host2"), ("host2", "localhost")] == [(row["from"], row["to"]) for row in report["links"]]


def test_hosts_are_discovered_without_the_project(far: Lab) -> None:
    """
    The addresses of the training link, because ssh uses the other network. The hosts need only a Python.
    """
    for host in far.hosts:
        shutil.rmtree(host.project)
    done = far.head.run([".venv/bin/python", "-c", DISCOVER])

    assert (
        "# host1: lan0: 192.168.77.2/24, ssh goes over it\n"
        "# host1: link0: 10.77.0.2/24\n"
        "# host2: lan0: 192.168.77.3/24, ssh goes over it\n"
        "# host2: link0: 10.77.0.3/24\n"
        "[clusters.far]\n"
    ) == done.stdout[: done.stdout.find("backend")], done.stderr
    assert 'ssh = "host2"\nips = [ "10.77.0.3" ]\n' in done.stdout
