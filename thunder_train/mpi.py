"""Open MPI on this machine: mpirun makes the places of the ranks, and the launcher's own processes take them.

A rank of MPI is whoever has the environment that mpirun gave it. So mpirun starts holders (this file as a program) that
write that environment down and then wait, and the ranks are ours as with every other backend: logs, heartbeats, ends.
"""

import contextlib
import ctypes.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from thunder_train import ThunderError

OURS = ("OMPI_", "PMIX_", "PRTE_")
"""How the names begin by which Open MPI's processes know each other."""
MEND = "install Open MPI (Debian: openmpi-bin, macOS: `brew install open-mpi`), or use backend ring"
START_S = 60.0
"""Seconds that mpirun may take to start the holders."""
LOOK_EVERY_S = 0.5


@contextlib.contextmanager
def places(ranks: int) -> Iterator[list[dict[str, str]]]:
    """What the environment of each rank must hold; it is worth something until the end of the with block.

    Raises ThunderError when Open MPI is missing or does not start.
    """
    program = shutil.which("mpirun")
    if program is None:
        raise ThunderError("is not installed here", where="mpirun", mend=MEND)
    library = _library(Path(program))
    if library is None:
        raise ThunderError("is not installed here", where="libmpi", mend=MEND)
    with tempfile.TemporaryDirectory(prefix="thunder-mpi-") as folder:
        mpirun = _start(program, ranks, Path(folder))
        try:
            yield [{"MLX_MPI_LIBNAME": library} | found for found in _read(mpirun, ranks, Path(folder))]
        finally:
            _end(mpirun)


def _library(program: Path) -> str | None:
    """Name of the library that MLX is to load: what the user says, the one beside mpirun, or what the system has."""
    if said := os.environ.get("MLX_MPI_LIBNAME"):
        return said
    for name in ("libmpi.dylib", "libmpi.so"):
        if (path := program.parent.parent / "lib" / name).exists():
            return str(path)
    return ctypes.util.find_library("mpi")


def _start(program: str, ranks: int, folder: Path) -> "subprocess.Popen[bytes]":
    argv = [program, *(["--allow-run-as-root"] if os.geteuid() == 0 else []), "--oversubscribe", "-n", str(ranks)]
    with (folder / "mpirun.log").open("wb") as log:
        return subprocess.Popen(
            [*argv, sys.executable, str(Path(__file__).resolve()), str(folder)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            stdin=subprocess.PIPE,  # held open: when this process dies, a holder reads its end, and mpirun ends all
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _read(mpirun: "subprocess.Popen[bytes]", ranks: int, folder: Path) -> list[dict[str, str]]:
    limit = time.monotonic() + START_S
    files = [folder / f"{rank}.json" for rank in range(ranks)]
    while not all(file.exists() for file in files):
        if mpirun.poll() is not None or time.monotonic() > limit:
            lines = (folder / "mpirun.log").read_text(errors="replace").split("\n")
            words = " | ".join(line.strip() for line in lines if line.strip(" -"))[:500]
            raise ThunderError(f"did not start {ranks} ranks: {words}", where="mpirun", mend="mend Open MPI")
        time.sleep(0.02)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _end(mpirun: "subprocess.Popen[bytes]") -> None:
    """End mpirun, and it ends the holders; they end by themselves if it cannot."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            mpirun.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            mpirun.wait(timeout=5)
            break
    if mpirun.stdin:
        mpirun.stdin.close()


def hold(folder: Path) -> int:
    """Write this place's environment into folder, then wait for the end of stdin (rank 0 has mpirun's) or of mpirun."""
    rank, parent = os.environ["OMPI_COMM_WORLD_RANK"], os.getppid()
    whole = folder / f"{rank}.part"
    whole.write_text(json.dumps({name: value for name, value in os.environ.items() if name.startswith(OURS)}))
    whole.rename(folder / f"{rank}.json")
    while os.getppid() == parent:
        if rank != "0":
            time.sleep(LOOK_EVERY_S)
        elif select.select([0], [], [], LOOK_EVERY_S)[0] and not os.read(0, 4096):
            shutil.rmtree(folder, ignore_errors=True)  # a killed launcher does not
            break
    return 1  # on which mpirun ends the other holders


if __name__ == "__main__":
    sys.exit(hold(Path(sys.argv[1])))
