"""Hosts and links that break during a training: reported in time, and the adapter has the same bytes in the end.

Each prints its figures for docs/reliability.md: pytest -rP.
"""

import re
import time
from collections.abc import Callable

import pytest

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import Lab
from tests.system.cluster.machine import HOME, LAN, LINK, PROJECT_FOLDER, Machine
from tests.system.cluster.training import ENDLESS, LONG, RUN, adapter, finished, give, launch, reached, steps, workers
from thunder_train.core.ssh import TICK_S

STALL_S = 5
LIMITS = ("--stall-timeout", str(STALL_S), "--start-timeout", "60", "--max-restarts", "3", "--host-timeout", "60")
AWAY_S = 12
"""How long the fault lasts."""


def kill_worker(host: Machine) -> None:
    """kill -9 of the rank."""
    host.kill("-m thunder_train.worker")


def kill_sshd(host: Machine) -> None:
    """kill -9 of sshd and its sessions."""
    host.kill("sshd: ")


def swallow(host: Machine) -> None:
    """A firewall drops packets from the training link."""
    host.iptables("-A", "INPUT", "-i", LINK, "-j", "DROP")


def accept(host: Machine) -> None:
    """Remove the rule."""
    host.iptables("-F", "INPUT")


SSH_LOST = r"ssh failed or lost its connection; check that it is on the network, .*"
SILENT = r"silent for [5-7] s after step \d+; .*"
WAITED = (
    r"ended with exit status 70; .*: no step ended for [89] s after step \d+, while waiting for the other ranks; "
    r"10.77.0.{} does not answer; its watchdog ended it; .*"
)
FAULTS = [
    # name, fault, its end, the first line, the longest time from fault to message
    ("rank killed", kill_worker, None, r"rank 1 \(host2\): ended by signal 9; .*", 5),
    ("sshd killed", kill_sshd, Machine.start_sshd, rf"rank 1 \(host2\): {SSH_LOST}", 5),
    ("host gone", Machine.link_down, Machine.link_up, rf"rank 1 \(host2\): {SILENT}", STALL_S + 4),
    ("host frozen", Machine.stop, Machine.cont, rf"rank 1 \(host2\): {SILENT}", STALL_S + 4),
    (
        "training link cut",
        lambda host: host.link_down(LINK),
        lambda host: host.link_up(LINK),
        rf"rank . \(host.\): {WAITED.format('[23]')}",
        STALL_S + 9,
    ),
    ("packets swallowed", swallow, accept, rf"rank . \(host.\): {WAITED.format('[23]')}", STALL_S + 9),
]


QUICK = ("rank killed",)
"""Faults tested in every run of the suite; the others are `slow`: ./doit test -- -m slow."""
CASES = [pytest.param(*fault, id=fault[0], marks=() if fault[0] in QUICK else pytest.mark.slow) for fault in FAULTS]


@pytest.mark.parametrize(("name", "break_host", "restore", "line", "within_s"), CASES)
def test_a_fault_is_named_in_time_and_changes_no_bit(
    two: Lab,
    smoke: Copy,
    long_adapter: bytes,
    name: str,
    break_host: Callable[[Machine], None],
    restore: Callable[[Machine], None] | None,
    line: str,
    within_s: float,
) -> None:
    """
    A long training survives the faults of a night: it waits for the host and continues from a checkpoint.
    """
    give(two, smoke)
    process = launch(two, *LONG, *LIMITS)
    assert process.stderr
    reached(two, 30)
    break_host(two.hosts[1])
    start_s = time.monotonic()
    first = process.stderr.readline()
    named_s = time.monotonic() - start_s
    if restore:
        time.sleep(max(0.0, AWAY_S - named_s))
        restore(two.hosts[1])
    status, out, err, _ = finished(process)

    print(
        f"figure: {name}: named after {named_s:.1f} s, all done after {time.monotonic() - start_s:.1f} s\n{first}{err}"
    )
    assert 0 == status, err
    assert re.fullmatch(line, first.rstrip("\n")), first
    assert named_s < within_s
    assert long_adapter == adapter(two.hosts[0])
    assert set(range(1, 61)) == set(steps(out))
    wait_for(lambda: [] == workers(two))


@pytest.mark.slow
def test_a_link_that_loses_five_per_cent_costs_time_and_changes_no_bit(
    two: Lab, smoke: Copy, long_adapter: bytes
) -> None:
    """
    TCP sends lost packets again.
    """
    give(two, smoke)
    rule = ["-A", "INPUT", "-i", LINK, "-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP"]
    for host in two.hosts:
        host.iptables(*rule)
    status, out, err, seconds = finished(launch(two, *LONG, *LIMITS))
    lost = [int(host.iptables("-nvxL", "INPUT").splitlines()[2].split()[0]) for host in two.hosts]

    print(f"figure: 5 % of packets lost, {lost}: {len(steps(out))} steps, {seconds:.1f} s")
    assert (0, "") == (status, err), out
    assert min(lost) > 10
    assert long_adapter == adapter(two.hosts[0])


def test_a_link_of_one_megabit_costs_time_and_changes_no_bit(two: Lab, smoke: Copy) -> None:
    """
    The watchdog must not end a slow step.
    """
    give(two, smoke)
    for host in two.hosts:
        host.tc(*f"qdisc add dev {LINK} root tbf rate 1mbit burst 32kbit latency 1s".split())
    status, out, err, seconds = finished(launch(two, *LIMITS))

    print(f"figure: 1 Mbit/s: 4 steps, {seconds:.1f} s")
    assert (0, "") == (status, err), out
    assert (smoke.path / RUN / "adapter/adapters.safetensors").read_bytes() == adapter(two.hosts[0])


@pytest.mark.slow
def test_a_link_that_comes_back_within_the_timeout_costs_no_restart(two: Lab, smoke: Copy, long_adapter: bytes) -> None:
    """
    A cable that was touched only makes the step end late.
    """
    give(two, smoke)
    process = launch(two, *LONG, "--stall-timeout", "30")
    reached(two, 30)
    two.hosts[1].link_down(LINK)
    time.sleep(3)
    two.hosts[1].link_up(LINK)
    start_s = time.monotonic()
    reached(two, 60)
    seconds = time.monotonic() - start_s
    status, _, err, _ = finished(process)

    print(f"figure: link away for 3 s: goes on {seconds:.1f} s after it is back")
    assert (0, "") == (status, err)
    assert long_adapter == adapter(two.hosts[0])


@pytest.mark.slow
def test_a_host_that_stays_away_ends_the_launch_in_time(two: Lab, smoke: Copy) -> None:
    """
    A launcher must not wait for a host for ever.
    """
    give(two, smoke)
    process = launch(two, *LONG, *LIMITS, "--host-timeout", "5")
    reached(two, 30)
    two.hosts[1].link_down()
    start_s = time.monotonic()
    status, _, err, _ = finished(process)
    seconds = time.monotonic() - start_s

    print(f"figure: host gone for good, --host-timeout 5: {seconds:.1f} s")
    silent, waiting, end = err.splitlines()
    assert 70 == status
    assert silent.startswith("rank 1 (host2): silent for ")
    assert ["host2: no answer to ssh; waiting at most 5 s", "giving up: still no answer from host2"] == [waiting, end]
    assert seconds < STALL_S + 5 + 30


def test_a_full_disk_is_named_and_not_tried_again(two: Lab, smoke: Copy) -> None:
    """
    The disk would be as full the next time.
    """
    give(two, smoke)
    folder = str(HOME / PROJECT_FOLDER / RUN / "checkpoints")
    for argv in (["mkdir", folder], ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]):
        assert 0 == two.hosts[0].run(argv).returncode
    status, out, err, seconds = finished(launch(two, *LONG, *LIMITS))

    print(f"figure: full disk: {seconds:.1f} s from the start")
    assert 2 == status
    assert err.startswith("rank 0 (host1): ended with exit status 2; read ")
    assert (
        f"{RUN}/checkpoints/0000010.safetensors: cannot be written: No space left on device; free or unlock it" in out
    )
    assert 1 == err.count("\n")


def test_a_changed_dataset_on_one_host_is_refused(two: Lab, smoke: Copy) -> None:
    """
    Its gradients would come from other rows.
    """
    give(two, smoke)
    rows = two.hosts[1].project / "data/agp-nko-corrections/train.jsonl"
    rows.write_text(rows.read_text().replace("e", "é", 1))
    status, _, err, _ = finished(launch(two, *LIMITS))

    assert 2 == status
    assert err.startswith("rank 1 (host2): ended with exit status 2; last lines: ")
    assert "rank 1: would not train the same as rank 0: --train-data is " in err


def test_two_launches_at_once_do_not_meet(two: Lab, smoke: Copy) -> None:
    """
    Each has its own ports, derived from the id of its launcher's process.
    """
    give(two, smoke)
    other = ("--adapter-path", "other/adapter", "--checkpoint-path", "other/kept", "--log-dir", "other/logs")
    first, second = launch(two), launch(two, *other)
    ends = [finished(each)[:3:2] for each in (first, second)]

    assert [(0, ""), (0, "")] == ends
    made = [adapter(two.hosts[0]), (two.hosts[0].project / "other/adapter/adapters.safetensors").read_bytes()]
    assert made == [(smoke.path / RUN / "adapter/adapters.safetensors").read_bytes()] * 2


@pytest.mark.slow
def test_head_may_lose_its_network_for_good_and_the_ranks_end(two: Lab, smoke: Copy) -> None:
    """
    Only ssh is cut: the ranks reach each other but no launcher. They save and end, so that the next run can start.
    """
    give(two, smoke)
    process = launch(two, *ENDLESS, *LIMITS, "--max-restarts", "0", "--host-timeout", "10")
    reached(two, 30)
    two.head.link_down(LAN)
    start_s = time.monotonic()
    status, _, err, _ = finished(process)
    seconds = time.monotonic() - start_s
    wait_for(lambda: [] == workers(two), seconds=60)
    gone_s = time.monotonic() - start_s

    print(f"figure: head gone for good, timeout 10: reported after {seconds:.1f} s, ranks ended after {gone_s:.1f} s")
    assert 70 == status
    assert err.startswith("rank ")
    assert gone_s < 10 + 3 * TICK_S
    assert 1 <= len([*(two.hosts[0].project / RUN / "checkpoints").glob("*.safetensors")])
