"""A machine of the lab: commands on it, its processes, its cables."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HOME = Path("/srv/home")
"""Every machine's home, as it sees it itself."""
LAN, LINK = "lan0", "link0"
"""Interfaces. ssh goes over LAN: LINK may be cut, and ssh still works, as with Wi-Fi and a Thunderbolt cable."""
NETWORKS = {LAN: "192.168.77.{}/24", LINK: "10.77.0.{}/24"}
HEAD = "head"
HEAD_PROJECT, PROJECT_FOLDER = "work/thunder train", "projects/thunder-train"
"""Below the home: head's, and those of the hosts. PROJECT_FOLDER is what [clusters.x] folder names."""
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
SSHD = ["/usr/sbin/sshd", "-D", "-e", "-f", "/srv/etc/sshd_config"]


@dataclass(eq=False)
class Machine:
    """A host, or the head. folder: its files, seen from outside; holder, pid: a process that keeps it, one inside."""

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
        """A command on this machine, in its project unless told otherwise; both outputs are pipes.

        On head its pid is the command's own, so signals reach it.
        """
        inside = HOME / self.project.relative_to(self.home) if not cwd else Path(cwd)
        known = {"HOME": str(HOME), "TMPDIR": "/srv/tmp", "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "USER": "root"}
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
            env={**known, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, argv: list[str], env: dict[str, str] | None = None, cwd: str = "", timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """A command on this machine and what it said; whatever its exit status."""
        process = self.start(argv, env, cwd)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{self.name}: {argv} did not end within {timeout} s: {out}{err}") from None
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def pids(self, text: str = "") -> list[int]:
        """Processes on this machine whose command line holds text, by their numbers outside; no zombies."""
        net, found = os.readlink(f"/proc/{self.pid}/ns/net"), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and text in command and os.readlink(folder / "ns/net") == net:
                    found.append(int(folder.name))
        return sorted(found)

    def stop(self) -> None:
        """Freeze every process of this machine, as a hung file system would; its kernel still answers."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Go on after stop."""
        self._signal(signal.SIGCONT)

    def kill(self, text: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the processes whose command line holds text. sshd's sessions hold "sshd: root"."""
        self._signal(number, text)

    def _signal(self, number: signal.Signals, text: str = "") -> None:
        for pid in self.pids(text):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def link_down(self, *interfaces: str) -> None:
        """Pull the cables of this machine: both, unless named."""
        self._cables("down", interfaces)

    def link_up(self, *interfaces: str) -> None:
        """Plug them in again."""
        self._cables("up", interfaces)

    def _cables(self, state: str, interfaces: tuple[str, ...]) -> None:
        for interface in interfaces or NETWORKS:
            in_net(self.switch, "ip", "link", "set", f"{interface}-{self.number}", state)

    def iptables(self, *words: str) -> str:
        """A rule of this machine's own firewall, or what it says of itself."""
        return in_net(self.pid, "iptables", *words)

    def tc(self, *words: str) -> None:
        """Traffic control of this machine's own interfaces, LAN and LINK."""
        in_net(self.pid, "tc", *words)

    def start_sshd(self) -> None:
        """sshd again, after it was killed."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p"]
        subprocess.run([*enter, "bash", "-c", 'exec "$@" 2>/dev/null &', "-", *SSHD], check=True)


def in_net(pid: int, *words: str) -> str:
    """What a command said in the network of a process."""
    done = subprocess.run(["nsenter", "-t", str(pid), "-n", *words], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, f"{words}: {done.stderr}"
    return done.stdout
