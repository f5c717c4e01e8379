"""Starts Open MPI's mpirun or orted on this machine and holds a process of Open MPI's in place of each rank.

launch/mpi.py sends it with main.py and asks its three questions; everything it started ends when stdin ends. Open MPI
starts this file too: `hold` as each rank, `agent` instead of ssh. Both write a message file into the launch's temporary
folder, which `news` reads. Standard library and Python 3.9 only.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PREFIXES = ("OMPI_", "PMIX_", "PRTE_")
"""Prefixes of the environment variables by which Open MPI's processes know each other."""
FOLDER, PYTHON, PROGRAM = "THUNDER_MPI_FOLDER", "THUNDER_MPI_PYTHON", "THUNDER_MPI_PROGRAM"
"""Variables by which the processes that Open MPI starts find this program: no path is on its command lines."""
END_WITHIN_S = 1.0
"""Seconds to wait after each signal; the client waits two seconds for the end of this program."""


class OpenMpi:
    """The Open MPI process of one launch: mpirun on the first rank's machine, orted on the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: subprocess.Popen[bytes] | None = None
        os.mkfifo(folder / "leash")  # holders read it; it closes when this program ends, however it ends
        self.leash = os.open(folder / "leash", os.O_RDWR)

    def installed(self, addresses: list[str], path: list[str]) -> dict[str, Any]:
        """What is installed here, and the interface of each address. path: folders to search after those of PATH."""
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *path])
        mpirun = shutil.which("mpirun")
        return {
            "mpirun": mpirun,
            "orted": shutil.which("orted") or shutil.which("prted"),  # in Open MPI 4 and 5
            "libmpi": _library(Path(mpirun)) if mpirun else None,
            "version": _version(mpirun) if mpirun and addresses else "",
            "interfaces": _interfaces(addresses) if addresses else {},
        }

    def start(self, program: str, flags: list[str], settings: dict[str, str], text: str) -> dict[str, Any]:
        """Start mpirun or orted with flags and environment settings. text: the source of this file."""
        source = self.folder / "program.py"
        source.write_text(text, encoding="utf-8")
        paths = {FOLDER: str(self.folder), PYTHON: sys.executable, PROGRAM: str(source), "TMPDIR": str(self.folder)}
        with (self.folder / "log").open("wb") as log:
            self.child = subprocess.Popen(
                [program, *flags],  # argv[0] without a path: Open MPI would use its folder on every machine
                executable=shutil.which(program),
                env={**os.environ, **settings, **paths},
                cwd="/",  # Open MPI enters the same folder on every machine
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return {}

    def news(self) -> dict[str, Any]:
        """Messages of `agent` and `hold` since the last question, and whether Open MPI has ended, with its output."""
        has_ended = self.child is not None and self.child.poll() is not None
        messages = []
        for path in sorted(self.folder.glob("*.message")):
            messages.append(json.loads(path.read_text(encoding="utf-8")))
            path.unlink()
        lines = (self.folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        output = " | ".join(line.strip() for line in lines if line.strip(" -"))[:500]
        return {"messages": messages, "has_ended": has_ended, "output": output}

    def end(self) -> None:
        """End the holders and Open MPI, and remove the folder."""
        os.close(self.leash)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.child:
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    self.child.send_signal(number)
                    self.child.wait(timeout=END_WITHIN_S)
        shutil.rmtree(self.folder, ignore_errors=True)


def _version(mpirun: str) -> str:
    """Series of an Open MPI, as "4.1"; "" for another MPI."""
    done = subprocess.run([mpirun, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    match = re.search(r"\(Open MPI\) (\d+\.\d+)", done.stdout)
    return match[1] if match else ""


def _library(mpirun: Path) -> str | None:
    """The library that MLX is to load: the user's choice, the one beside mpirun, or the system's."""
    if chosen := os.environ.get("MLX_MPI_LIBNAME"):
        return chosen
    for name in ("libmpi.dylib", "libmpi.so.40", "libmpi.so"):
        if (path := mpirun.parent.parent / "lib" / name).exists():
            return str(path)
    return ctypes.util.find_library("mpi")


def _interfaces(addresses: list[str]) -> dict[str, str]:
    """{address: name of its interface}; addresses of other machines are left out."""
    from thunder_train.agent.interfaces import interfaces  # late: a session has it, a holder has this file alone

    names = {each.partition("/")[0]: one["name"] for one in interfaces() for each in one["addresses"]}
    return {address: names[address] for address in addresses if address in names}


def main() -> None:
    """Answer the launcher's questions; at the end of stdin everything that was started ends."""
    from thunder_train.agent.main import answer_questions  # late: as in _interfaces

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    open_mpi = OpenMpi(Path(tempfile.mkdtemp(prefix="thunder-mpi-")))
    try:
        answer_questions({"installed": open_mpi.installed, "start": open_mpi.start, "news": open_mpi.news})
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open_mpi.end()


def hold() -> int:
    """Report the environment that Open MPI gave this rank, then wait until the program above ends."""
    leash = os.open(Path(os.environ[FOLDER], "leash"), os.O_RDONLY | os.O_NONBLOCK)
    environment = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    _write_message({"rank": int(os.environ["OMPI_COMM_WORLD_RANK"]), "environment": environment})
    select.select([leash], [], [])
    return 1


def agent(node: str, *words: str) -> int:
    """Report the command that Open MPI wants ssh to start on a node."""
    _write_message({"node": node, "command": " ".join(words)})
    return 0


def _write_message(message: dict[str, Any]) -> None:
    draft = Path(os.environ[FOLDER], f"{os.getpid()}.draft")
    draft.write_text(json.dumps(message), encoding="utf-8")
    draft.rename(draft.with_suffix(".message"))


if __name__ == "__main__":
    sys.exit(hold() if sys.argv[1] == "hold" else agent(*sys.argv[2:]))
