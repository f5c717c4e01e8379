"""A machine of the lab: commands on it, its processes, its cables."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HOME = Path("/srv/home")
"""Every machine's home, as seen on the machine."""
LAN, LINK = "lan0", "link0"
"""Interfaces. ssh uses LAN, so it works while LINK is cut, as with Wi-Fi and a Thunderbolt cable."""
NETWORKS = {LAN: "192.168.77.{}/24", LINK: "10.77.0.{}/24"}
HEAD = "head"
HEAD_PROJECT, PROJECT_FOLDER = "work/thunder train", "projects/thunder-train"
"""Below the home: head's project, and those of the hosts. PROJECT_FOLDER is `folder` in [clusters.x]."""
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
SSHD = ["/usr/sbin/sshd", "-D", "-e", "-f", "/srv/etc/sshd_config"]


@dataclass(eq=False)
class Machine:
    """A host, or the head. folder: its files, seen from outside; holder: the process that keeps it; pid: one inside."""

    name: str
    number: int
    folder: Path
    switch: int
    holder: "subprocess.Popen[str]"
    pid: int

    @property
    def lan(self) -> str:
        """Address for ssh."""
        return NETWORKS[LAN].format(self.number).partition("/")[0]

    @property
    def address(self) -> str:
        """Address on the training link."""
        return NETWORKS[LINK].format(self.number).partition("/")[0]

    @property
    def home(self) -> Path:
        """Its ~, seen from outside."""
        return self.folder / "home"

    @property
    def project(self) -> Path:
        """Its project, seen from outside."""
        return self.home / (HEAD_PROJECT if self.name == HEAD else PROJECT_FOLDER)

    def start(self, argv: list[str], env: dict[str, str] | None = None, cwd: str = "") -> "subprocess.Popen[str]":
        """Start a command on this machine, in its project or in cwd; both outputs are pipes.

        On head the pid is the command's, so signals reach it.
        """
        inside = HOME / self.project.relative_to(self.home) if not cwd else Path(cwd)
        base = {"HOME": str(HOME), "TMPDIR": "/srv/tmp", "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "USER": "root"}
        enter = [
            "nsenter",
            "-t",
            str(self.pid),
            "-n",
            "-m",
            "-u",
            *(["-p"] if self.pid != self.holder.pid else []),
        ]
        return subprocess.Popen(
            [*DIE_WITH_US, *enter, "env", "-C", str(inside), *argv],
            env={**base, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, argv: list[str], env: dict[str, str] | None = None, cwd: str = "", timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """A command on this machine with its output; any exit status."""
        process = self.start(argv, env, cwd)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{self.name}: {argv} did not end within {timeout} s: {out}{err}") from None
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def pids(self, text: str = "") -> list[int]:
        """Numbers, as seen from outside, of this machine's processes whose command line holds text; no zombies."""
        net, pids = os.readlink(f"/proc/{self.pid}/ns/net"), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and text in command and os.readlink(folder / "ns/net") == net:
                    pids.append(int(folder.name))
        return sorted(pids)

    def stop(self) -> None:
        """Freeze every process of this machine, as a hung file system does; its kernel still answers."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Continue after stop."""
        self._signal(signal.SIGCONT)

    def kill(self, text: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the processes whose command line holds text; sshd's sessions hold "sshd: root"."""
        self._signal(number, text)

    def _signal(self, number: signal.Signals, text: str = "") -> None:
        for pid in self.pids(text):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def link_down(self, *interfaces: str) -> None:
        """Pull the named cables of this machine; both if none is named."""
        self._cables("down", interfaces)

    def link_up(self, *interfaces: str) -> None:
        """Plug them in again."""
        self._cables("up", interfaces)

    def _cables(self, state: str, interfaces: tuple[str, ...]) -> None:
        for interface in interfaces or NETWORKS:
            in_net(self.switch, "ip", "link", "set", f"{interface}-{self.number}", state)

    def iptables(self, *words: str) -> str:
        """Change or list the rules of this machine's firewall; returns the output."""
        return in_net(self.pid, "iptables", *words)

    def tc(self, *words: str) -> None:
        """Set traffic control of this machine's interfaces, LAN and LINK."""
        in_net(self.pid, "tc", *words)

    def start_sshd(self) -> None:
        """Start sshd again after it was killed."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p"]
        subprocess.run([*enter, "bash", "-c", 'exec "$@" 2>/dev/null &', "-", *SSHD], check=True)


def in_net(pid: int, *words: str) -> str:
    """Output of a command in the network namespace of a process."""
    done = subprocess.run(["nsenter", "-t", str(pid), "-n", *words], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, f"{words}: {done.stderr}"
    return done.stdout
