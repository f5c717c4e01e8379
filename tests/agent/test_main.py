"""The program's answers about a host, in a folder of the test's own."""

import ast
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from thunder_train.agent import answers, files, interfaces, link, mac, main, mpi_holder

VERSION = b'__version__ = "9.9"\n'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a project in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    (project / "thunder_train").mkdir(parents=True)
    (project / "thunder_train/__init__.py").write_bytes(VERSION)
    return project


def test_a_project_has_its_version_and_hashed_files(host: Path) -> None:
    """
    Read from the files, never imported: another version's code must not run here.
    """
    answer = main.facts("project", sys.executable, {"thunder_train/__init__.py": None})

    assert (True, True, True, "9.9") == tuple(
        answer[name] for name in ("has_folder", "has_project", "has_python", "thunder_train")
    )
    assert {"thunder_train/__init__.py": [len(VERSION), sha(VERSION)]} == answer["files"]


def test_a_host_without_the_project_still_answers(host: Path) -> None:
    """
    "no project there" is clearer than the shell's "cd: no such file or directory".
    """
    answer = main.facts("elsewhere", ".venv/bin/python", {"data/a.jsonl": None})

    assert (False, False, False, {}) == tuple(
        answer[name] for name in ("has_folder", "has_project", "has_python", "files")
    )


def test_files_of_the_project_are_hashed(host: Path) -> None:
    """
    With their sizes; a missing one is left out, and one of another size is not read.
    """
    (host / "a").write_bytes(b"one")
    (host / "b").write_bytes(b"two")
    paths = {"a": None, "b": 99, "c": 3}

    expected = {"a": [3, sha(b"one")], "b": [3, None]}
    assert expected == main.facts("project", "python3", paths)["files"]
    assert {"files": expected} == main.hash_files("project", paths)


def test_workers_of_this_folder_are_found_and_no_others(
    host: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Two projects may train on one host; only the worker of this one is a problem.
    """
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    (host / "thunder_train/worker.py").write_text("import sys\nprint(1, flush=True)\nsys.stdin.read()\n")
    monkeypatch.chdir(host)
    argv = [sys.executable, "-m", "thunder_train.worker", "--x", "1"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        assert worker.stdin
        worker.stdout.readline()
        processes = main.workers()
        monkeypatch.chdir(tmp_path)
        elsewhere = main.workers()
        worker.stdin.close()

    assert [worker.pid] == [one["pid"] for one in processes]
    assert processes[0]["command"].endswith("-m thunder_train.worker --x 1")
    assert [] == elsewhere


def test_a_mac_finds_them_with_ps_and_lsof(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No /proc there. Untested on a Mac.
    """
    ps = "  501 /u/me/.venv/bin/python -c import sys; x -m thunder_train.worker --rank 1\n"
    ps += "  502 python -m thunder_train.worker\n  503 vi thunder_train/worker\n"
    open_files = {"501": "p501\nfcwd\nn/Users/me/thunder train\n", "502": "p502\nfcwd\nn/Users/me/other\n"}
    monkeypatch.setattr(main, "output_of", lambda *argv: open_files[argv[3]])

    assert [{"pid": 501, "command": "/u/me/.venv/bin/python -m thunder_train.worker --rank 1"}] == main._mac_workers(
        ps, "/Users/me/thunder train"
    )


@pytest.mark.skipif(not shutil.which("lsof"), reason="asks lsof")
def test_lsof_names_a_folder_in_any_script(tmp_path: Path) -> None:
    """
    The real command. In the C locale it prints \\xe4\\xbb\\xa3 for one letter: the worker was not found.
    """
    folder = tmp_path / "thunder träin 代码"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=folder) as process:
        assert process.stdin
        named = main._lsof_folder(process.pid)
        process.stdin.close()

    assert str(folder) == named


def test_all_memory_of_a_mac_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No /proc/meminfo there. A Mac with 36 GiB in pages of 16 KiB; cluster/mac_hosts.py takes Metal's share of it.
    """
    pages = {"SC_PHYS_PAGES": 36 << 16, "SC_PAGE_SIZE": 1 << 14}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(Path, "read_text", _no_file)

    assert 36 << 30 == main.usable_memory()


def _no_file(path: Path, *_: object) -> str:
    raise FileNotFoundError(path)


@pytest.mark.parametrize("module", [main, files, interfaces, link, mac, mpi_holder])
def test_the_program_needs_nothing_but_an_old_python(module: ModuleType) -> None:
    """
    A Mac's own python3 is 3.9, and a new host has no other.
    """
    tree = ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 9))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    sent = {"thunder_train.agent", *(f"thunder_train.agent.{part}" for part in ("interfaces", "link", "mac", "main"))}

    assert {name.partition(".")[0] for name in names - sent} <= sys.stdlib_module_names


def test_each_question_is_a_line_and_so_is_its_answer(host: Path) -> None:
    """
    The prefix tells answers from the lines that a login script prints.
    """
    text = json.dumps({"ask": "listen", "address": "192.0.2.99"})
    code = "from thunder_train.agent import main; main.main()"
    project = Path(main.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], input=f"{text}\n", capture_output=True, text=True, cwd=project)

    assert f'thunder-answer {{"error": "{os.strerror(errno.EADDRNOTAVAIL)}"}}\n' == done.stdout


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("10.0.0.9 50000 10.0.0.5 22", ["10.0.0.5"]),
        ("fe80::9%en0 50000 fe80::5%en0 22", ["fe80::5%en0"]),
        ("UNKNOWN 65535 UNKNOWN 65535", []),
        ("", []),
    ],
)
def test_the_address_of_ssh_is_one_or_none(
    connection: str, expected: list[str], host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    sshd behind a proxy knows none.
    """
    monkeypatch.setenv("SSH_CONNECTION", connection)

    answer = main.facts("project", sys.executable, {})

    assert expected == answer["ssh_address"]
    answers.checked("facts", json.dumps(answer).encode())  # what this machine says of itself is accepted


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "look", "recipe": "../x", "files": {}, "elsewhere": {}},
        {"ask": "look", "recipe": "one", "files": {"../x": "0" * 64}, "elsewhere": {}},
        {"ask": "look", "recipe": "one", "files": {"/x": "0" * 64}, "elsewhere": {}},
        {"ask": "look", "recipe": "one", "files": {"x": "../y"}, "elsewhere": {}},
        {"ask": "place", "recipe": "one", "files": {"x": "../y"}, "elsewhere": {}, "programs": []},
        {"ask": "receive", "recipe": "one", "contents": [["../y", 0, 0]]},
        {"ask": "send", "path": "../x", "offset": 0},
        {"ask": "send", "path": "/etc/passwd", "offset": 0},
        {"ask": "send", "path": "a", "offset": -1},
        {"ask": "hash", "paths": 3},
        {"ask": "evil"},
    ],
)
def test_a_question_that_leaves_the_project_is_refused(host: Path, question: dict[str, Any]) -> None:
    """
    Paths come from another machine's project; the program goes on with the next question.
    """
    (host / "a").write_text("a")
    text = "".join(f"{json.dumps(each)}\n" for each in [{"folder": "project", **question}])
    code = "from thunder_train.agent import main; main.main()"
    env = {**os.environ, "PYTHONPATH": str(Path(main.__file__).parent.parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, env=env)

    assert done.stdout.startswith('thunder-answer {"failed": '), done.stderr
    assert not [*host.glob(".thunder/**/*")]


def test_a_failing_system_call_is_an_answer(host: Path) -> None:
    """
    A missing folder or a full disk does not end the program.
    """
    questions = [{"ask": "hash", "folder": "elsewhere", "paths": {}}, {"ask": "hash", "folder": "project", "paths": {}}]
    text = "".join(f"{json.dumps(question)}\n" for question in questions)
    code = "from thunder_train.agent import main; main.main()"
    env = {**os.environ, "PYTHONPATH": str(Path(main.__file__).parent.parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, env=env)

    assert [
        f'thunder-answer {{"failed": "elsewhere: {os.strerror(errno.ENOENT)}"}}',
        'thunder-answer {"files": {}}',
    ] == (done.stdout.splitlines())


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("here", ["/Users/me/caf\u00e9", "/Users/me/cafe\u0301"])
def test_a_workers_folder_is_compared_in_one_form(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    lsof and getcwd may give é in different forms. Untested on a Mac.
    """
    monkeypatch.setattr(main, "output_of", lambda *_: "p501\nfcwd\nn/Users/me/cafe\\xcc\\x81\n")

    assert [501] == [each["pid"] for each in main._mac_workers("  501 python -m thunder_train.worker\n", here)]
