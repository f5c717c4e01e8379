"""What a host says of itself: versions, code, files, room, clock, addresses, workers that still run. No mlx needed.

thunder_train.agent.client sends this program to a host and asks it, a JSON line per question; it ends when stdin does.
It may meet neither the project nor its environment: standard library and Python 3.9 only.
Writes .thunder/hosts.json in the host's project: sha256 of its large files by size, time and inode.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import select
import shutil
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from thunder_train.agent.interfaces import interfaces, rdma_devices, said
from thunder_train.agent.link import listen, measure
from thunder_train.agent.relay import fetch, serve

MARK = "thunder-answer "
"""Begins the lines that are meant for us; whatever a login script prints is not."""
BEAT_EVERY_S = 30.0
"""An empty line so often between questions: who only listens never learns that the asker's machine has no power."""
KEPT = Path(".thunder/hosts.json")
LARGE_BYTES = 64_000_000
"""Smaller files are read each time: a second or less for all of them."""
MAC_SHARE = 0.75
"""Part of a Mac's memory that Metal lets a process use; worker/fit.py reckons with the same."""
WORKER = re.compile(r"-m\s+thunder_train\.worker(\.\w+)*(\s|$)")


def facts(folder: str, python: str, paths: dict[str, int | None]) -> dict[str, Any]:
    """Everything. folder: the project, from home; python: its interpreter; paths: files, with their bytes if known."""
    has_folder = _enter(folder)
    has_python = has_folder and shutil.which(python) is not None
    return {
        "has_folder": has_folder,
        "has_project": has_folder and Path("thunder_train/__init__.py").is_file(),
        "has_python": has_python,
        "python": platform.python_version(),
        "mlx": _version("mlx"),
        "mlx_lm": _version("mlx-lm"),
        "thunder_train": _own_version() if has_folder else None,
        "platform": f"{sys.platform}-{platform.machine()}",
        "fast_synch": os.environ.get("MLX_METAL_FAST_SYNCH"),
        "interfaces": interfaces(),
        "ssh_address": os.environ.get("SSH_CONNECTION", "").split(" ")[2:3],
        "rdma": rdma_devices(),
        "usable_memory_bytes": usable_memory(),
        "free_disk_bytes": shutil.disk_usage(".").free,
        "code": code() if has_folder else {},
        "files": hashes(paths) if has_folder else {},
        "workers": workers() if has_folder else [],
        "time_s": time.time(),  # last, for the asker compares it with the time of this answer
    }


def _enter(folder: str) -> bool:
    with suppress(OSError):
        os.chdir(Path.home())
        os.chdir(folder)
        return True
    return False


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _own_version() -> str | None:
    with suppress(OSError):
        found = re.search(r'^__version__ = "(.+)"$', Path("thunder_train/__init__.py").read_text("utf-8"), re.MULTILINE)
        return found[1] if found else None
    return None


def usable_memory() -> int:
    """Bytes that a training may take: what Linux calls available; three quarters of all memory on a Mac."""
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MAC_SHARE)  # macOS has both since 10.13


def code() -> dict[str, str]:
    """{path: sha256} of Thunder Train's own modules in this folder."""
    return {str(path): _sha256(path) for path in sorted(Path("thunder_train").rglob("*.py"))}


def hashes(paths: dict[str, int | None]) -> dict[str, Any]:
    """{path: [bytes, sha256]} of the files that are there; sha256 is None for one of another size than asked for."""
    kept, now, found = _kept(), dict[str, Any](), dict[str, Any]()
    for name, expected in sorted(paths.items()):
        path = Path(name)
        try:
            status = path.stat()
        except OSError:
            continue
        if expected not in (None, status.st_size):
            found[name] = [status.st_size, None]
            continue
        known: list[Any] = [status.st_size, status.st_mtime_ns, status.st_ino]
        is_large = status.st_size >= LARGE_BYTES
        is_kept = is_large and kept.get(name, [])[:3] == known
        sha256 = kept[name][3] if is_kept else _sha256(path)
        found[name] = [status.st_size, sha256]
        if is_large and time.time() - status.st_mtime > 2:  # a younger one may change without a new time
            now[name] = [*known, sha256]
    if not now.items() <= kept.items():
        _keep({**kept, **now})
    return found


def _kept() -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(KEPT.read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _keep(table: dict[str, Any]) -> None:
    draft = KEPT.with_name(f"{KEPT.name}.draft{os.getpid()}")
    with suppress(OSError):  # a full disk costs only the time to read again
        KEPT.parent.mkdir(exist_ok=True)
        draft.write_text(json.dumps(table, sort_keys=True), "utf-8")
        os.replace(draft, KEPT)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def workers() -> list[dict[str, Any]]:
    """Processes of Thunder Train's workers in this folder: [{pid, command}]."""
    if not Path("/proc/self").exists():
        return _mac_workers(said("ps", "-axww", "-o", "pid=", "-o", "command="), os.getcwd())
    here, found = os.stat("."), []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if WORKER.search(command) and os.path.samestat(os.stat(folder / "cwd"), here):
                found.append({"pid": int(folder.name), "command": command[:200]})
    return found


def _mac_workers(output: str, here: str) -> list[dict[str, Any]]:
    """The same from `ps`, its lines not cut to 80 columns, and `lsof`. Untested on a Mac."""
    rows = [line.strip().partition(" ") for line in output.splitlines()]
    found = [(int(pid), command[:200]) for pid, _, command in rows if WORKER.search(command)]
    return [{"pid": pid, "command": command} for pid, command in found if _lsof_folder(pid) == here]


def _lsof_folder(pid: int) -> str:
    """The folder a process works in. In the C locale `lsof` prints each byte of é as \\xNN."""
    lines = said("lsof", "-a", "-p", str(pid), "-d", "cwd", "-Fn").splitlines()
    named = next((line[1:] for line in lines if line.startswith("n")), "")
    return re.sub(r"(\\x[0-9a-f]{2})+", lambda found: os.fsdecode(bytes.fromhex(found[0].replace("\\x", ""))), named)


def weigh(words: str) -> dict[str, Any]:
    """What came here: the asker measures how long it took."""
    return {"bytes": len(words)}


QUESTIONS: dict[str, Any] = {
    "facts": facts,
    "fetch": fetch,
    "listen": listen,
    "measure": measure,
    "serve": serve,
    "weigh": weigh,
}


def main() -> None:
    """Answer each line of stdin with one of stdout."""
    while line := sys.stdin.readline():
        question = json.loads(line)
        try:
            answer = QUESTIONS[question.pop("ask")](**question)
        except OSError as error:
            answer = {"error": str(error)}
        print(MARK + json.dumps(answer), flush=True)
        while not select.select([sys.stdin], [], [], BEAT_EVERY_S)[0]:
            print(flush=True)
