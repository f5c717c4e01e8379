"""The program on a host: answers the controller's questions about versions, files, memory, disk, addresses, workers.

agent/client.py sends it over ssh and asks it, one JSON line per question; it ends when stdin ends. The host may have
neither the project nor its environment: standard library and Python 3.9 only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import select
import shutil
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from thunder_train.agent import files, mac
from thunder_train.agent.interfaces import interfaces, output_of, rdma_devices
from thunder_train.agent.link import listen, measure

ANSWER = "thunder-answer "
"""Prefix of an answer's line; the client skips other lines, as login scripts print them."""
BEAT_EVERY_S = 30.0
"""Seconds between empty lines while no question comes: writing fails when the controller's machine has gone."""
ADDRESS = re.compile(r"[0-9A-Fa-f.:]{2,45}(%[0-9A-Za-z._-]{1,32})?")
"""Behind some proxies sshd writes UNKNOWN."""
WORKER = re.compile(r"-m\s+thunder_train\.worker(\.\w+)*(\s|$)")

END_WITHIN_S = 1.0
"""Seconds for an orderly end after stdin has ended."""

Answers = Mapping[str, Callable[..., dict[str, Any]]]


def answer_questions(answers: Answers) -> None:
    """Answer each JSON line of stdin with a line of stdout, until stdin ends. answers: a function per question.

    A failing system call is answered with {"failed": why}. A function in an answer's "body" writes bytes after its
    line. sys.stdin.buffer, because bytes of files may follow a question.
    """
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    while line := sys.stdin.buffer.readline():
        question = json.loads(line)
        ask = question.pop("ask")
        try:
            answer = answers[ask](**question)
        except OSError as error:
            answer = {"failed": f"{error.filename}: {error.strerror}" if error.filename else str(error)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            answer = {"failed": f"refuses the question: {error}"}
        body = answer.pop("body", None)
        print(ANSWER + json.dumps(answer), flush=True)
        if body:
            body()
        if ask == "receive" and "failed" in answer:
            return  # the bytes that still come are no questions
        while not select.select([sys.stdin], [], [], BEAT_EVERY_S)[0]:
            print(flush=True)


def _end_with_stdin() -> None:
    """End this process soon after its stdin has ended, also in the middle of an answer that takes an hour."""
    if not hasattr(select, "poll"):  # it is missing on some versions of macOS
        return
    watch = select.poll()
    watch.register(0, getattr(select, "POLLRDHUP", 0))  # POLLHUP needs no asking
    (_, event), *_ = watch.poll()
    if event & select.POLLNVAL:
        return
    time.sleep(END_WITHIN_S)
    os.kill(os.getpid(), signal.SIGTERM)


def facts(folder: str, python: str, paths: dict[str, int | None]) -> dict[str, Any]:
    """The state of this host.

    folder: the project, from the home folder; python: its interpreter, which may be missing or broken; paths: files to
    hash, as files.hash_files takes them.
    """
    has_folder = True
    try:
        _enter(folder)
    except OSError:
        has_folder = False
    return {
        "has_folder": has_folder,
        "has_project": has_folder and Path("thunder_train/__init__.py").is_file(),
        "has_python": has_folder and files.python_version(python) is not None,
        "python": platform.python_version(),
        "mlx": _package_version("mlx"),
        "mlx_lm": _package_version("mlx-lm"),
        "thunder_train": _project_version() if has_folder else None,
        "platform": f"{sys.platform}-{platform.machine()}",
        "fast_synch": os.environ.get("MLX_METAL_FAST_SYNCH"),
        "interfaces": interfaces(),
        "ssh_address": list(filter(ADDRESS.fullmatch, os.environ.get("SSH_CONNECTION", "").split(" ")[2:3])),
        "rdma": rdma_devices(),
        "mac": mac.state(python),
        "usable_memory_bytes": usable_memory(),
        "free_disk_bytes": shutil.disk_usage(".").free,
        "files": files.hash_files(paths) if has_folder else {},
        "workers": workers() if has_folder else [],
        "time_s": time.time(),  # last: the client compares it with the time at which the answer arrives
    }


def _enter(folder: str) -> None:
    os.chdir(Path.home())
    os.chdir(folder)


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _project_version() -> str | None:
    """Read from the file: importing it would run another version's code."""
    with suppress(OSError):
        text = Path("thunder_train/__init__.py").read_text("utf-8")
        match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
        return match[1] if match else None
    return None


def usable_memory() -> int:
    """Bytes: the available memory on Linux; all memory on a Mac, of which cluster/mac_hosts.py takes a part."""
    with suppress(OSError):
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS has both since 10.13


def workers() -> list[dict[str, Any]]:
    """Processes of Thunder Train's workers in this folder: [{pid, command}]."""
    if not Path("/proc/self").exists():
        return _mac_workers(output_of("ps", "-axww", "-o", "pid=", "-o", "command="), os.getcwd())
    here, processes = os.stat("."), []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if WORKER.search(command) and os.path.samestat(os.stat(folder / "cwd"), here):
                processes.append({"pid": int(folder.name), "command": _shown(command)})
    return processes


def _shown(command: str) -> str:
    """A worker's command without what stands before its module, as launch/rank_process.py starts it."""
    return re.sub(r"\s-c\s.*?(?=\s-m\s)", "", command, count=1, flags=re.DOTALL)[:200]


def _mac_workers(output: str, here: str) -> list[dict[str, Any]]:
    """The same from `ps` (not cut to 80 columns) and `lsof`. Untested on a Mac."""
    rows = [line.strip().partition(" ") for line in output.splitlines()]
    commands = [(int(pid), _shown(command)) for pid, _, command in rows if WORKER.search(command)]
    here = unicodedata.normalize("NFC", here)  # macOS may give one name in two forms
    return [{"pid": pid, "command": command} for pid, command in commands if _lsof_folder(pid) == here]


def _lsof_folder(pid: int) -> str:
    """The working folder of a process. In the C locale `lsof` prints each byte of é as \\xNN."""
    lines = output_of("lsof", "-a", "-p", str(pid), "-d", "cwd", "-Fn").splitlines()
    name = next((line[1:] for line in lines if line.startswith("n")), "")
    name = re.sub(r"(\\x[0-9a-f]{2})+", lambda match: os.fsdecode(bytes.fromhex(match[0].replace("\\x", ""))), name)
    return unicodedata.normalize("NFC", name)


def look(folder: str, **question: Any) -> dict[str, Any]:
    """files.look in the project's folder, which is made if it is missing."""
    os.chdir(Path.home())
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    return files.look(**question)


def place(folder: str, **question: Any) -> dict[str, Any]:
    """files.place in the project's folder."""
    _enter(folder)
    return files.place(**question)


def hash_files(folder: str, paths: dict[str, int | None]) -> dict[str, Any]:
    """{"files": files.hash_files in the project's folder}."""
    _enter(folder)
    return {"files": files.hash_files(paths)}


def remove(folder: str, **question: Any) -> dict[str, Any]:
    """files.remove in the project's folder."""
    _enter(folder)
    return files.remove(**question)


def receive(folder: str, **question: Any) -> dict[str, Any]:
    """files.receive in the project's folder, with the bytes that follow the question."""
    _enter(folder)
    files.receive(sys.stdin.buffer, **question)
    return {}


def send(folder: str, path: str, offset: int) -> dict[str, Any]:
    """A file's bytes from offset on, after the answer with their number."""
    _enter(folder)
    file = files.opened(path, offset)
    size = os.fstat(file.fileno()).st_size - offset

    def body() -> None:
        with file:
            files.copy(file, sys.stdout.buffer, size)
        sys.stdout.buffer.flush()

    return {"bytes": size, "body": body}


QUESTIONS: Answers = {
    "facts": facts,
    "hash": hash_files,
    "listen": listen,
    "look": look,
    "measure": measure,
    "place": place,
    "receive": receive,
    "remove": remove,
    "send": send,
}


def main() -> None:
    """Answer the controller's questions."""
    answer_questions(QUESTIONS)
