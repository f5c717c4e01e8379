"""The lab itself: its hosts are separate, and nothing of it stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, wait_for
from tests.system.cluster import lab as labs
from tests.system.cluster.lab import PREFIX, Lab

HANG = """
import time
from tests.system.cluster.lab import lab
with lab(hosts=1) as it:
    it.head.start(["sleep", "77"])
    it.hosts[0].start(["sleep", "77"])
    time.sleep(1)  # until each program has asked for its end with its parent's; one that has not yet would live on
    print(it.folder, flush=True)
    time.sleep(60)
"""


def test_a_host_has_a_home_an_address_and_processes_of_its_own(two: Lab) -> None:
    """
    A path that two hosts share would hide every mistake of sync.
    """
    one, other = two.hosts
    (one.home / "note").write_text("one\n")
    done = [two.head.run(["ssh", each.name, "hostname; echo ~; cat ~/note; ps ax"]) for each in two.hosts]

    assert ["host1", "/srv/home", "one"] == done[0].stdout.splitlines()[:3]
    assert "cat: /srv/home/note: No such file or directory\n" == done[1].stderr
    assert "sleep infinity" not in done[0].stdout
    assert ("10.77.0.2", "10.77.0.3") == (one.address, other.address)
    assert "" == two.hosts[0].run(["ls", str(two.folder)]).stdout


def test_a_cable_can_be_pulled_and_the_other_one_stays(two: Lab) -> None:
    """
    As with Thunderbolt and Wi-Fi.
    """
    host, look = two.hosts[0], 'for ip in {} {}; do timeout 1 bash -c "</dev/tcp/$ip/22" 2>&- && echo $ip; done'
    argv = ["bash", "-c", look.format(host.address, host.lan)]
    whole = two.head.run(argv).stdout.split()
    host.link_down("link0")
    cut = two.head.run(argv).stdout.split()
    host.link_up("link0")

    assert [[host.address, host.lan], [host.lan]] == [whole, cut]
    wait_for(lambda: [host.address, host.lan] == two.head.run(argv).stdout.split())


def test_kill_9_of_the_tests_leaves_a_folder_and_nothing_else(can_have_hosts: None) -> None:
    """
    Namespaces live as long as their processes, and those as long as the tests. The next lab removes the folder.
    """
    process = subprocess.Popen([sys.executable, "-c", HANG], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    folder = Path(process.stdout.readline().strip())
    assert processes(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    wait_for(lambda: not processes(folder))
    assert folder.name.startswith(f"{PREFIX}{process.pid}-")
    assert folder.exists()
    with labs.lab(hosts=1):
        assert not folder.exists()


def processes(folder: Path) -> list[str]:
    """Ids of the processes on a lab's machines: each has mounts of its machine's folders, with the lab's name.

    The ids of namespaces would not do: the kernel gives them again to another lab.
    """
    return [process.name for process in Path("/proc").glob("[0-9]*") if folder.name in mounts(process)]


def mounts(process: Path) -> str:
    """The mounts that a process sees; "" when it has ended."""
    try:
        return (process / "mountinfo").read_text()
    except OSError:
        return ""


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A skipped test must say what to install.
    """
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(labs.shutil, "which", lambda tool, path: None if tool in ("tc", "sshd") else tool)

    assert "sshd, tc missing: apt-get install openssh-server iproute2 iptables" == labs.missing()
