"""What a host says of itself, asked in a folder of the test's own."""

import ast
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from thunder_train.agent import interfaces, link, main, relay


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A home with a project in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "project"
    (project / "thunder_train").mkdir(parents=True)
    (project / "thunder_train/__init__.py").write_text('__version__ = "9.9"\n')
    return project


def test_a_project_tells_its_version_and_code(host):
    """
    Read from the files, never imported: another version's code must not run here.
    """
    told = main.facts("project", sys.executable, {})

    assert (True, True, True, "9.9") == tuple(
        told[name] for name in ("has_folder", "has_project", "has_python", "thunder_train")
    )
    assert {"thunder_train/__init__.py": sha(b'__version__ = "9.9"\n')} == told["code"]


def test_a_host_without_the_project_still_answers(host):
    """
    "no project there" is clearer than the shell's "cd: no such file or directory".
    """
    told = main.facts("elsewhere", ".venv/bin/python", {"data/a.jsonl": None})

    assert (False, False, False, {}, {}) == tuple(
        told[name] for name in ("has_folder", "has_project", "has_python", "code", "files")
    )


def test_files_tell_their_size_and_hash(host):
    """
    A missing one is left out; one of another size is not read: gigabytes would be read in vain.
    """
    (host / "a").write_bytes(b"one")
    (host / "b").write_bytes(b"two")
    told = main.facts("project", "python3", {"a": None, "b": 99, "c": 3})["files"]

    assert {"a": [3, sha(b"one")], "b": [3, None]} == told


def test_a_large_file_is_read_once(host, monkeypatch):
    """
    A model of 50 GB takes minutes to read, and a preflight comes before each training.
    """
    monkeypatch.setattr(main, "LARGE_BYTES", 3)
    monkeypatch.chdir(host)
    Path("a").write_bytes(b"one")
    os.utime("a", (1, 1))
    first = main.hashes({"a": None})
    monkeypatch.setattr(main, "_sha256", lambda path: "read again")

    assert {"a": [3, sha(b"one")]} == first == main.hashes({"a": None})
    Path("a").write_bytes(b"six")
    assert {"a": [3, "read again"]} == main.hashes({"a": None})


def test_a_file_that_was_just_written_is_not_remembered(host, monkeypatch):
    """
    It may change once more within the clock's tick, and keep its time.
    """
    monkeypatch.setattr(main, "LARGE_BYTES", 3)
    monkeypatch.chdir(host)
    Path("a").write_bytes(b"one")
    main.hashes({"a": None})

    assert not Path(".thunder").exists()


def test_a_spoiled_cache_is_no_cache(host, monkeypatch):
    """
    Also one that is not a table.
    """
    monkeypatch.chdir(host)
    Path(".thunder").mkdir()
    for text in ("{", "[]"):
        Path(".thunder/hosts.json").write_text(text)
        assert {} == main.hashes({})


def test_workers_of_this_folder_are_found_and_no_others(host, monkeypatch, tmp_path):
    """
    Two projects may train on one host; only our own worker is in our way.
    """
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    (host / "thunder_train/worker.py").write_text("import sys\nprint(1, flush=True)\nsys.stdin.read()\n")
    monkeypatch.chdir(host)
    argv = [sys.executable, "-m", "thunder_train.worker", "--x", "1"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        found = main.workers()
        monkeypatch.chdir(tmp_path)
        elsewhere = main.workers()
        worker.stdin.close()

    assert [worker.pid] == [one["pid"] for one in found]
    assert found[0]["command"].endswith("-m thunder_train.worker --x 1")
    assert [] == elsewhere


def test_a_mac_finds_them_with_ps_and_lsof(monkeypatch):
    """
    No /proc there. Untested on a Mac.
    """
    ps = "  501 /u/me/.venv/bin/python -m thunder_train.worker --rank 1\n  502 python -m thunder_train.worker\n"
    ps += "  503 vi thunder_train/worker\n"
    open_files = {"501": "p501\nfcwd\nn/Users/me/thunder train\n", "502": "p502\nfcwd\nn/Users/me/other\n"}
    monkeypatch.setattr(main, "said", lambda *argv: open_files[argv[3]])

    assert [{"pid": 501, "command": "/u/me/.venv/bin/python -m thunder_train.worker --rank 1"}] == main._mac_workers(
        ps, "/Users/me/thunder train"
    )


@pytest.mark.skipif(not shutil.which("lsof"), reason="asks lsof")
def test_lsof_names_a_folder_in_any_script(tmp_path):
    """
    The real command. In the C locale it prints \\xe4\\xbb\\xa3 for one letter: the worker was not found.
    """
    folder = tmp_path / "thunder träin 代码"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=folder) as process:
        found = main._lsof_folder(process.pid)
        process.stdin.close()

    assert str(folder) == found


def test_three_quarters_of_a_macs_memory_may_be_used(monkeypatch):
    """
    No /proc/meminfo there. A Mac with 36 GiB in pages of 16 KiB.
    """
    pages = {"SC_PHYS_PAGES": 36 << 16, "SC_PAGE_SIZE": 1 << 14}
    monkeypatch.setattr(main.os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(main.Path, "read_text", _no_file)

    assert 27 << 30 == main.usable_memory()


def _no_file(path, *_):
    raise FileNotFoundError(path)


@pytest.mark.parametrize("module", [main, interfaces, link, relay])
def test_the_program_needs_nothing_but_an_old_python(module):
    """
    A Mac's own python3 is 3.9, and a new host has no other.
    """
    tree = ast.parse(Path(module.__file__).read_text(), feature_version=(3, 9))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {f"thunder_train.agent.{part}" for part in ("interfaces", "link", "relay")}

    assert {name.partition(".")[0] for name in names - own} <= sys.stdlib_module_names


def test_each_question_is_a_line_and_so_is_its_answer(host):
    """
    Whatever a login script prints lies between lines that are marked.
    """
    text = json.dumps({"ask": "listen", "address": "192.0.2.99"})
    code = "from thunder_train.agent import main; main.main()"
    project = Path(main.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], input=f"{text}\n", capture_output=True, text=True, cwd=project)

    assert f'thunder-answer {{"error": "{os.strerror(errno.EADDRNOTAVAIL)}"}}\n' == done.stdout


def sha(data):
    return hashlib.sha256(data).hexdigest()
