"""Open MPI's mpirun or orted on this machine, in a folder of its own, and holders of the places it makes for ranks.

thunder_train.launch.mpi sends this program to a machine and asks it, a JSON line per question; all that it started
ends when stdin does. Open MPI starts it too, from that folder: `hold` in each place of a rank, `agent` where it would
start ssh. Both leave a word for the answers, as a file. Standard library and Python 3.9 only.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "thunder-answer "
"""As in worker/facts.py."""
OURS = ("OMPI_", "PMIX_", "PRTE_")
"""How the names begin by which Open MPI's processes know each other."""
FOLDER, PYTHON, PROGRAM = "THUNDER_MPI_FOLDER", "THUNDER_MPI_PYTHON", "THUNDER_MPI_PROGRAM"
"""By these variables Open MPI's children find us: no path of a machine becomes a part of one of its command lines."""
BEAT_EVERY_S = 30.0
"""An empty line so often: who only listens never learns that a host with no network has lost its other end."""
END_WITHIN_S = 1.0
"""Less than the two seconds that thunder_train.agent.client waits for this program's end."""


class OpenMpi:
    """What runs here for one launch: mpirun on the first rank's machine, orted on the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: subprocess.Popen[bytes] | None = None
        os.mkfifo(folder / "leash")
        self.leash = os.open(folder / "leash", os.O_RDWR)

    def look(self, addresses: list[str], path: list[str]) -> dict[str, Any]:
        """What is installed here, and which interface has each address. path: folders beyond those of PATH."""
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
        """Start mpirun or orted. text: of this very file."""
        ours = self.folder / "program.py"
        ours.write_text(text, encoding="utf-8")
        known = {FOLDER: str(self.folder), PYTHON: sys.executable, PROGRAM: str(ours), "TMPDIR": str(self.folder)}
        with (self.folder / "log").open("wb") as log:
            self.child = subprocess.Popen(
                [program, *flags],  # by its bare name: a path would become a prefix for all machines
                executable=shutil.which(program),
                env={**os.environ, **settings, **known},
                cwd="/",  # which Open MPI asks of every machine
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return {}

    def news(self) -> dict[str, Any]:
        """What agent and holders told since the last time, and whether Open MPI has ended, with its last words."""
        has_ended = self.child is not None and self.child.poll() is not None
        told = []
        for path in sorted(self.folder.glob("*.told")):
            told.append(json.loads(path.read_text(encoding="utf-8")))
            path.unlink()
        lines = (self.folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        words = " | ".join(line.strip() for line in lines if line.strip(" -"))[:500]
        return {"told": told, "has_ended": has_ended, "words": words}

    def end(self) -> None:
        """Let the holders go, end Open MPI, and remove the folder."""
        os.close(self.leash)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.child:
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    self.child.send_signal(number)
                    self.child.wait(timeout=END_WITHIN_S)
        shutil.rmtree(self.folder, ignore_errors=True)


def _version(mpirun: str) -> str:
    """As 4.1; "" when it is another MPI's."""
    done = subprocess.run([mpirun, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"\(Open MPI\) (\d+\.\d+)", done.stdout)
    return found[1] if found else ""


def _library(mpirun: Path) -> str | None:
    """Name of the library that MLX is to load: what the user says, the one beside mpirun, or what the system has."""
    if said := os.environ.get("MLX_MPI_LIBNAME"):
        return said
    for name in ("libmpi.dylib", "libmpi.so.40", "libmpi.so"):
        if (path := mpirun.parent.parent / "lib" / name).exists():
            return str(path)
    return ctypes.util.find_library("mpi")


def _interfaces(addresses: list[str]) -> dict[str, str]:
    """{address: name of the interface that has it}; an address that is not this machine's is left out."""
    from thunder_train.agent.interfaces import interfaces  # sent along with this program, and not in its folder

    known = {each.partition("/")[0]: one["name"] for one in interfaces() for each in one["addresses"]}
    return {address: known[address] for address in addresses if address in known}


def main() -> None:
    """Answer each line of stdin with one of stdout; the end of stdin ends all that was started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    here = OpenMpi(Path(tempfile.mkdtemp(prefix="thunder-mpi-")))
    answers: dict[str, Callable[..., dict[str, Any]]] = {"look": here.look, "start": here.start, "news": here.news}
    try:
        while line := sys.stdin.readline():
            question = json.loads(line)
            try:
                answer = answers[question.pop("ask")](**question)
            except OSError as error:
                answer = {"error": str(error)}
            print(MARK + json.dumps(answer), flush=True)
            while not select.select([sys.stdin], [], [], BEAT_EVERY_S)[0]:
                print(flush=True)
    finally:
        here.end()


def hold() -> int:
    """Tell this place's environment, then wait for the end of our program here, whatever ends it."""
    leash = os.open(Path(os.environ[FOLDER], "leash"), os.O_RDONLY | os.O_NONBLOCK)
    ours = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
    _tell({"rank": int(os.environ["OMPI_COMM_WORLD_RANK"]), "environment": ours})
    select.select([leash], [], [])
    return 1


def agent(node: str, *words: str) -> int:
    """Tell what ssh would have been told to start on a node."""
    _tell({"node": node, "command": " ".join(words)})
    return 0


def _tell(said: dict[str, Any]) -> None:
    draft = Path(os.environ[FOLDER], f"{os.getpid()}.draft")
    draft.write_text(json.dumps(said), encoding="utf-8")
    draft.rename(draft.with_suffix(".told"))


if __name__ == "__main__":
    sys.exit(hold() if sys.argv[1] == "hold" else agent(*sys.argv[2:]))
