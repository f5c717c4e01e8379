"""A small cluster on this machine: every host is a set of Linux namespaces with a real sshd.

    with lab(hosts=2) as it:
        it.head.run(["ssh", "host1", "hostname"]).stdout

Launches start on `head`; ssh reaches host1, host2 ... Each machine has two networks: LAN (ssh) and LINK (the training
link); a home, ~ = /srv/home, that the others do not see; and a project in it with the .venv of this test run,
read-only. head's project is in another folder than those of the hosts, so that no path is right by accident.

Only processes hold the namespaces, and they die with this one even on kill -9: nothing is left but a folder in the
temporary directory, which the next lab removes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.project_copy import copy_sources, wait_for
from tests.system.cluster.machine import DIE_WITH_US, HOME, NETWORKS, SSHD, Machine, in_net

VENV = Path(sys.prefix).resolve()
TOOLS = ("ip", "iptables", "nsenter", "setpriv", "ssh", "ssh-keygen", "sshd", "tc", "unshare")
PREFIX = "thunder-lab-"
OWN = ["unshare", "--net", "--mount", "--uts"]
INIT = """
set -eu
folder=$1 lab=$2 venv=$3 name=$4
shift 4
mount -t tmpfs tmpfs /srv
for part in home tmp etc; do mkdir "/srv/$part"; mount --bind "$folder/$part" "/srv/$part"; done
for file in passwd shadow; do mount --bind "/srv/etc/$file" "/etc/$file"; done
mount --bind "$venv" "$venv"
mount -o remount,ro,bind "$venv"
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount -t tmpfs tmpfs "$lab"
hostname "$name"
cd /
echo ready
read -r _
exec 1>&- </dev/null
[ $# -gt 0 ] || exec sleep infinity
"$@" &
while :; do sleep 3600 & wait $!; done
"""
"""Process 1 of a host: mounts its files, waits for the network, starts sshd and outlives it."""
SSHD_CONFIG = """
HostKey /srv/etc/host_key
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
SetEnv TMPDIR=/srv/tmp
Subsystem sftp internal-sftp
"""


@dataclass(eq=False)
class Lab:
    """All machines. holders: processes that keep the namespaces; switch: the process of the network between them."""

    folder: Path
    holders: "list[subprocess.Popen[str]]" = field(default_factory=list)
    switch: int = 0
    machines: list[Machine] = field(default_factory=list)

    @property
    def head(self) -> Machine:
        """The machine on which launches start."""
        return self.machines[0]

    @property
    def hosts(self) -> list[Machine]:
        """The machines that ssh reaches as host1, host2 ..."""
        return self.machines[1:]


@contextmanager
def lab(hosts: int = 2) -> Iterator[Lab]:
    """A head and this many hosts on common networks; they end with the block, and everything that runs on them."""
    _remove_leftovers()
    it = Lab(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")))
    try:
        it.switch = _switch(it)
        for number, name in enumerate(["head", *(f"host{number}" for number in range(1, hosts + 1))], start=1):
            it.machines.append(_machine(it, name, number))
        _introduce(it)
        for machine in it.machines:
            assert machine.holder.stdin
            print("go", file=machine.holder.stdin, flush=True)
        wait_for(lambda: all("Server listening" in (host.folder / "log").read_text() for host in it.hosts))
        yield it
    finally:
        for machine in it.machines:
            machine.kill("")
        for holder in it.holders:
            holder.kill()  # a host's process 1 dies with it, and every process of the host with that
            holder.communicate()
        shutil.rmtree(it.folder, ignore_errors=True)


def missing() -> str:
    """Why no lab can be made here; empty when one can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "namespaces need root"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    if absent := [tool for tool in TOOLS if not shutil.which(tool, path=path)]:
        return f"{', '.join(absent)} missing: apt-get install openssh-server iproute2 iptables"
    argv = [
        *OWN,
        "--pid",
        "--fork",
        "sh",
        "-c",
        "mount -t tmpfs tmpfs /srv && ip link add name one type veth peer name two",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return f"namespaces are refused here: {done.stderr.strip()}" if done.returncode else ""


def _hold(it: Lab, argv: list[str], log: Path) -> "subprocess.Popen[str]":
    """A process that holds namespaces and dies with this one."""
    with log.open("w") as file:
        it.holders.append(
            subprocess.Popen(
                [*DIE_WITH_US, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        )
    return it.holders[-1]


def _ready(holder: "subprocess.Popen[str]", log: Path) -> None:
    assert holder.stdout
    assert "ready\n" == holder.stdout.readline(), log.read_text()


def _switch(it: Lab) -> int:
    """A network with a bridge for each kind of cable."""
    holder = _hold(it, [*OWN, "sh", "-c", "echo ready; exec sleep infinity"], it.folder / "log")
    _ready(holder, it.folder / "log")
    for network in NETWORKS:
        in_net(holder.pid, "ip", "link", "add", network, "type", "bridge")
        in_net(holder.pid, "ip", "link", "set", network, "up")
    return holder.pid


def _machine(it: Lab, name: str, number: int) -> Machine:
    """A machine with its files and its cables; its sshd waits until a line is written to the holder."""
    folder = it.folder / name
    _furnish(folder)
    # head shares our process numbers, so that tests can send signals to its launchers; a host has its own.
    own, serves = (OWN, []) if name == "head" else ([*OWN, "--pid", "--mount-proc", "--fork", "--kill-child"], SSHD)
    argv = [*own, "bash", str(folder / "etc/init.sh"), str(folder), str(it.folder), str(VENV), name, *serves]
    holder = _hold(it, argv, folder / "log")
    _ready(holder, folder / "log")
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    machine = Machine(name, number, folder, it.switch, holder, int(children[0]) if serves else holder.pid)
    in_net(machine.pid, "ip", "link", "set", "lo", "up")
    for network, addresses in NETWORKS.items():
        port = f"{network}-{number}"
        in_net(it.switch, *f"ip link add {port} type veth peer name {network} netns {machine.pid}".split())
        in_net(it.switch, *f"ip link set {port} master {network} up".split())
        in_net(machine.pid, *f"ip addr add {addresses.format(number)} dev {network}".split())
        in_net(machine.pid, *f"ip link set {network} up".split())
    return machine


def _furnish(folder: Path) -> None:
    """Home, temporary folder, accounts, keys and sshd's settings."""
    for part in ("home/.ssh", "tmp", "etc"):
        (folder / part).mkdir(parents=True)
    for path in (folder / "home", folder / "home/.ssh"):
        path.chmod(0o700)
    (folder / "etc/passwd").write_text(
        f"root:x:0:0:root:{HOME}:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (folder / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (folder / "etc/sshd_config").write_text(SSHD_CONFIG)
    (folder / "etc/init.sh").write_text(INIT)
    for key in ("etc/host_key", "home/.ssh/id_ed25519"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / key)]
        subprocess.run(argv, check=True)


def _introduce(it: Lab) -> None:
    """Give head every host's name and key and a login, and every machine the project."""
    ssh, key = it.head.home / ".ssh", (it.head.home / ".ssh/id_ed25519.pub").read_text()
    hosts = [f"Host {host.name}\n  HostName {host.lan}\n  User root\n" for host in it.hosts]
    (ssh / "config").write_text("".join(hosts))
    keys = [f"{host.lan} {(host.folder / 'etc/host_key.pub').read_text()}" for host in it.hosts]
    (ssh / "known_hosts").write_text("".join(keys))
    for machine in it.machines:
        if machine is not it.head:
            (machine.home / ".ssh/authorized_keys").write_text(key)
        machine.project.mkdir(parents=True)
        copy_sources(machine.project)
        (machine.project / ".venv").symlink_to(VENV)


def _remove_leftovers() -> None:
    """Remove folders of labs whose process was killed; nothing else can be left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
