"""What a rank prints: events, and a log that anybody may look at."""

import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from thunder_train.launch import rank_process
from thunder_train.launch.rank_process import Command, Event, Heartbeat, Line, Placement, Rank


def read(log: Path, output: bytes) -> list[Event]:
    """The events of a rank that prints these bytes."""
    program = f"import sys; sys.stdout.buffer.write({output!r})"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        events: SimpleQueue[Event] = SimpleQueue()
        rank_process._read_output(Rank(Placement(0, "host", {}, log), child), events)
    return [events.get() for _ in range(events.qsize())]


def test_modules_of_the_user_on_a_host_do_not_stand_in_for_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The package of a host is imported from the project's folder, where a user may keep a random.py.
    """
    tools, folder = tmp_path / "tools", tmp_path / "it's here"
    for path in (tools, folder / "thunder"):
        path.mkdir(parents=True)
    (tools / "ssh").write_text('#!/bin/sh\nfor command; do :; done\nexec sh -c "$command"\n')
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name in ("random", "json", "argparse", "runpy", "tempfile"):
        (folder / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\n")
    (folder / "thunder/worker.py").write_text(
        "import argparse, json, random, sys, tempfile\nprint(__name__, sys.argv[1:], sys.argv[0] == __file__)\n"
    )
    events: SimpleQueue[Event] = SimpleQueue()
    command = Command("thunder.worker", ("--x", "a b"), str(folder), sys.executable)

    rank = rank_process.start(Placement(0, "mac4", {}, tmp_path / "log"), command, events)

    status = rank.child.wait(timeout=30)
    rank.threads[0].join(timeout=10)
    assert (0, "__main__ ['--x', 'a b'] True\n") == (status, (tmp_path / "log").read_text(encoding="utf-8"))


def texts(events: list[Event]) -> list[str]:
    """The lines among the events."""
    return [event.text for event in events if isinstance(event, Line)]


def test_a_log_can_be_shown_on_a_terminal(tmp_path: Path) -> None:
    """
    `cat` of a log would run the escapes that a host wrote into it.
    """
    events = read(tmp_path / "log", b"\x1b[2Jowned\r\n\xc2\x9b2J \xff\n\xdf\x92 ok\nend")

    assert ["\ufffd[2Jowned", "\ufffd2J \ufffd", "ߒ ok", "end"] == texts(events)
    assert "\ufffd[2Jowned\n\ufffd2J \ufffd\nߒ ok\nend\n" == (tmp_path / "log").read_text(encoding="utf-8")


def test_a_heartbeat_inside_a_line_leaves_the_line_whole(tmp_path: Path) -> None:
    """
    Heartbeats come from a thread, so one may split a line, even inside a letter.
    """
    events = read(tmp_path / "log", b"a\xdfthunder-beat 7\n\x92b\n")

    assert [7] == [event.step for event in events if isinstance(event, Heartbeat)]
    assert ["aߒb"] == texts(events)
    assert "aߒb\n" == (tmp_path / "log").read_text(encoding="utf-8")


def test_a_line_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A rank that never ends its line must not fill this machine's memory.
    """
    monkeypatch.setattr(rank_process, "LONGEST_LINE", 4)

    assert ["aaaa", "aaaa", "aa"] == texts(read(tmp_path / "log", b"a" * 10))


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
def test_a_log_on_a_full_disk_says_so_once_and_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The thread that reads a rank's lines ended with a traceback, and the rank waited for a reader until it stalled.
    """
    log = rank_process._Log(Path("/dev/full"))
    for _ in range(3):
        log.write("step 1/4\n")
    log.close()

    expected = "warning: /dev/full: cannot be written: No space left on device; the rank goes on without it\n"
    assert expected == capsys.readouterr().err
