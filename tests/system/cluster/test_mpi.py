"""Ranks on several hosts that Open MPI joins, started over ssh as with every other backend."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import Lab
from tests.system.cluster.machine import LAN, LINK, PROJECT_FOLDER, Machine
from tests.system.cluster.training import (
    ADAPTER,
    ENDLESS,
    LONG,
    RUN,
    adapter,
    finished,
    give,
    launch,
    local,
    reached,
    workers,
)
from thunder_train.launch.mpi import HINT

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI: apt-get install openmpi-bin")

HOSTILE = "a b; $(touch pwned) 'x' \"y\" \\ `id`"
SHORT = (*LONG, "--num-iters", "20", "--save-every", "5", "--eval-every", "20")
SMOKE = "thunder-smoke "


def give_mpi(it: Lab, smoke: Copy, ranks: list[Machine] | None = None) -> None:
    """Copy what sync would bring, with backend mpi; head is listed as localhost."""
    give(it, smoke, ranks)
    for machine in it.machines:
        hosts = machine.project / RUN / "hosts.json"
        hosts.write_text(hosts.read_text().replace('"ring"', '"mpi"').replace('"head"', '"localhost"'))


def sums(it: Lab, folder: str = PROJECT_FOLDER) -> "subprocess.Popen[str]":
    """Start the all-reduce test of the preflight."""
    argv = [".venv/bin/python", "-m", "thunder_train.launch", "--hostfile", f"{RUN}/hosts.json", "--log-dir", "logs"]
    argv += ["--folder", folder, "--python", ".venv/bin/python", "--module", "thunder_train.worker.allreduce_check"]
    argv += ["--start-timeout", "60"]
    return it.head.start(argv)


def result(it: Lab, rank: int) -> dict[str, object]:
    """What a rank of the all-reduce test reported."""
    row: dict[str, object] = json.loads((it.head.project / f"logs/rank-{rank}.log").read_text().removeprefix(SMOKE))
    return row


def left(it: Lab) -> list[str]:
    """Processes of a launch that still run anywhere, and files of Open MPI."""
    programs = ("thunder_train", "mpirun", "orted", "program.py", "sys.stdin.readline", "ssh -T")
    commands = [
        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for machine in it.machines
        for program in programs
        for pid in machine.pids(program)
        if Path(f"/proc/{pid}").exists()
    ]
    folders = [path for machine in it.machines for path in (machine.folder / "tmp").glob("*")]
    return [*commands, *map(str, [*folders, *Path("/dev/shm").glob("vader_segment.host*")])]


def test_two_hosts_make_the_adapter_of_the_ring(two: Lab, smoke: Copy) -> None:
    """
    Two ranks add the same two numbers over any backend.
    """
    give_mpi(two, smoke)
    status, out, err, seconds = finished(launch(two))

    print(f"figure: two hosts over mpi, 4 steps: {seconds:.1f} s")
    assert (0, "") == (status, err), out
    assert (smoke.path / ADAPTER).read_bytes() == adapter(two.hosts[0])
    assert 2 == json.loads((two.hosts[0].project / RUN / "adapter/done.json").read_text())["world_size"]
    wait_for(lambda: [] == left(two))


def test_ranks_have_the_hostfiles_order_whatever_hosts_they_are_on(two: Lab, smoke: Copy) -> None:
    """
    Open MPI itself would number host by host. Here one host has ranks 0 and 2, and head is rank 1.
    """
    first, second = two.hosts
    give_mpi(two, smoke, [second, two.head, second, first])
    status, _, err, seconds = finished(sums(two))

    print(f"figure: an all-sum of four ranks on three machines: {seconds:.1f} s")
    assert (0, "") == (status, err)
    assert [(rank, 4, True) for rank in range(4)] == [
        (row["rank"], row["size"], row["all_sum"]) for row in (result(two, rank) for rank in range(4))
    ]


def test_open_mpi_talks_over_the_training_link_alone(two: Lab, smoke: Copy) -> None:
    """
    Tensors would be slow over Wi-Fi, and readable. A firewall between the hosts lets only ssh through.
    """
    give_mpi(two, smoke)
    for host in two.hosts:
        for chain, way, port in (("INPUT", "-i", "--dport"), ("OUTPUT", "-o", "--sport")):
            host.iptables("-A", chain, way, LAN, "-p", "tcp", port, "22", "-j", "ACCEPT")
            host.iptables("-A", chain, way, LAN, "-j", "DROP")
            host.iptables("-A", chain, way, LINK, "-j", "ACCEPT")
    status, _, err, _ = finished(sums(two))

    assert (0, "") == (status, err)
    for host in two.hosts:
        for chain in ("INPUT", "OUTPUT"):
            _, dropped, link = [line.split()[:2] for line in host.iptables("-nvxL", chain).splitlines()[2:]]
            assert ["0", "0"] == dropped
            assert 10_000_000 < int(link[1])  # three messages of 4 MB, and more for the bandwidth


@pytest.mark.slow
def test_a_killed_rank_costs_a_restart_and_no_bit(two: Lab, smoke: Copy) -> None:
    """
    MPI alone would end the training. A restart gets new processes from Open MPI.
    """
    give_mpi(two, smoke)
    process = launch(two, *SHORT, "--max-restarts", "1")
    reached(two, 6)
    two.hosts[1].kill("-m thunder_train.worker")
    status, out, err, seconds = finished(process)

    print(f"figure: kill -9 of a rank over mpi: done {seconds:.1f} s later")
    assert 0 == status, err
    assert err.startswith("rank 1 (host2): ended by signal 9; ")
    assert err.endswith("starting all ranks again, from the last checkpoint: restart 1 of 1\n")
    assert local(smoke, *SHORT) == adapter(two.hosts[0])
    assert "step 20/20" in out
    wait_for(lambda: [] == left(two))


@pytest.mark.parametrize("program", [pytest.param(name, marks=pytest.mark.slow) for name in ("orted ", "mpirun ")])
def test_the_end_of_open_mpi_ends_the_attempt(two: Lab, smoke: Copy, program: str) -> None:
    """
    The ranks end with it, with their own exit status; a restart has a new Open MPI.
    """
    give_mpi(two, smoke)
    process = launch(two, *ENDLESS)
    reached(two, 4)
    two.hosts[program == "orted "].kill(program)
    status, _, err, _ = finished(process)

    assert 195 == status
    assert "ended with exit status 195; " in err
    wait_for(lambda: [] == left(two))


def test_kill_9_of_the_launcher_leaves_nothing_on_any_host(two: Lab, smoke: Copy) -> None:
    """
    Neither ranks nor mpirun, its daemons, holders and folders: each of our programs ends with its stdin.
    """
    give_mpi(two, smoke)
    process = launch(two, *ENDLESS)
    reached(two, 5)
    assert 2 == len(workers(two))
    assert [1, 1] == [len(host.pids("program.py hold")) for host in two.hosts]
    process.kill()
    start_s = time.monotonic()
    wait_for(lambda: [] == left(two))

    print(f"figure: kill -9 of the launcher over mpi: {time.monotonic() - start_s:.1f} s")
    assert time.monotonic() - start_s < 10


def test_ctrl_c_ends_a_start_that_waits_for_a_link(two: Lab, smoke: Copy) -> None:
    """
    Before any rank runs there is nothing to save, and the user waits for the prompt.
    """
    give_mpi(two, smoke)
    two.hosts[1].link_down(LINK)
    process = launch(two)
    wait_for(lambda: [] != two.hosts[1].pids("orted "))
    process.send_signal(signal.SIGINT)
    status, _, err, seconds = finished(process)

    assert (130, "ended by SIGINT; no rank had started\n") == (status, err)
    assert seconds < 10
    wait_for(lambda: [] == left(two))


def test_nothing_of_a_configuration_reaches_a_shell_of_open_mpi(two: Lab, smoke: Copy) -> None:
    """
    It makes shell lines for ssh, and none holds a value of ours: folder and interpreter are sent separately.
    """
    give_mpi(two, smoke)
    for host in two.hosts:
        host.project.rename(host.home / "projects" / HOSTILE)
    status, _, err, _ = finished(sums(two, f"projects/{HOSTILE}"))

    assert (0, "") == (status, err)
    assert [] == [path for machine in two.machines for path in machine.folder.rglob("pwned")]


def test_a_host_without_open_mpi_is_named(two: Lab, smoke: Copy) -> None:
    """
    Before anything starts, and without a restart, which would fail too.
    """
    give_mpi(two, smoke)
    assert 0 == two.hosts[1].run(["mount", "--bind", "/dev/null", "/usr/bin/orted"]).returncode
    status, _, err, _ = finished(launch(two, "--max-restarts", "3"))

    assert (2, f"host host2: orted: is not installed there; {HINT}\n") == (status, err)


def test_a_host_that_ssh_does_not_reach_is_named(two: Lab, smoke: Copy) -> None:
    """
    With the exit status of ssh, after which a restart would wait for the host.
    """
    give_mpi(two, smoke)
    two.hosts[1].kill("sshd: ")
    status, _, err, _ = finished(launch(two))

    hint = "check that it is on, on this network, and lets you in: `ssh host2 true`; on a Mac turn on Remote Login"
    words = "ssh: connect to host 192.168.77.3 port 22: Connection refused"
    assert (255, f"host host2: ssh cannot reach it: {words}; {hint}\n") == (status, err)


@pytest.mark.slow
def test_a_link_that_comes_back_soon_costs_no_attempt(two: Lab, smoke: Copy) -> None:
    """
    After a fault of the link a restart may begin before the link is back.
    """
    give_mpi(two, smoke)
    two.hosts[1].link_down(LINK)
    process = launch(two)
    wait_for(lambda: [] != two.hosts[1].pids("orted "))
    time.sleep(8)
    two.hosts[1].link_up(LINK)
    status, _, err, seconds = finished(process)

    print(f"figure: a link that came back after 8 s: done {seconds:.1f} s later")
    assert (0, "") == (status, err)


@pytest.mark.slow
def test_a_link_that_stays_away_ends_the_attempt_in_time(two: Lab, smoke: Copy) -> None:
    """
    Open MPI has reported why by then.
    """
    give_mpi(two, smoke)
    two.hosts[1].link_down(LINK)
    status, _, err, seconds = finished(launch(two))

    print(f"figure: no link between the hosts: {seconds:.1f} s")
    assert 75 == status
    assert err.startswith("host host")
    assert "Open MPI: did not start 2 ranks: " in err
    assert err.endswith("; check that the hosts reach each other over the training link, on any port\n")
    assert seconds < 75
    wait_for(lambda: [] == left(two))
