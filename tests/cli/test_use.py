"""`doit correct` and `doit chat` with the adapter of a built recipe."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.helpers.inputs import write
from tests.helpers.project_copy import Copy, environment, start_doit, wait_for
from tests.system.test_kills import processes
from thunder_train.core import files

pytestmark = pytest.mark.ranks

HEARD = "ߊ ߓߊ ߕߊ"
OUT = "runs/smoke/corrected/new.jsonl"
KEPT = ".thunder/partial/correct-smoke/kept/answers.jsonl"


def chat(project: Copy, lines: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """A chat whose person types some lines."""
    return subprocess.run(
        [sys.executable, "-m", "thunder_train.cli", "chat:smoke", *options],
        cwd=project.path,
        env=environment(project.path),
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_rows_of_the_evaluation_come_out_as_it_decided_them(project: Copy) -> None:
    """
    Adapter, prompt, decoding and gate are those that were measured; no stage runs again for it.
    """
    run = project.path / "runs" / "smoke"
    told = {each["id"]: each for each in files.read_jsonl(project.path / "data/agp-nko-corrections/decisions.jsonl")}
    predictions = files.read_jsonl(run / "predictions.jsonl")
    rows = [
        {"id": each["id"], "asr_text": each["asr_text"], "partition": each["partition"]}
        | {"telemetry": told[each["id"]].get("telemetry", {})}
        for each in predictions
    ]
    write(project.path / "new.jsonl", rows[::-1])
    done = project.doit("correct:smoke", "--rows", "new.jsonl", "--json")

    assert 0 == done.status, done.output
    assert ["correct:smoke"] == done.ran
    lines = files.read_jsonl(project.path / OUT)
    decisions = {each["id"]: each for each in files.read_jsonl(run / "decisions.jsonl")[1:]}
    assert [each["id"] for each in rows[::-1]] == [each["id"] for each in lines]
    for line in lines:
        decision = decisions[line["id"]]
        assert (decision["proposal"], decision["final"], decision["reason"]) == (
            line["proposal"],
            line["text"],
            line["reason"],
        )
    summary = json.loads(done.output.splitlines()[-1])
    assert ("thunder.corrected/1", len(rows)) == (summary["schema"], summary["rows"])
    assert files.sha256(run / "adapter/adapters.safetensors") == summary["adapter_sha256"]
    assert files.read_json(run / "manifest.json")["run_id"] == summary["run_id"]
    assert f"{project.path}" not in (project.path / f"{OUT}.json").read_text(encoding="utf-8")


def test_a_missing_file_and_a_missing_flag_are_one_line(project: Copy) -> None:
    """
    And so is a file with rows that cannot be read, before any rank starts.
    """
    write(project.path / "bad.jsonl", '{"asr_text": "a"}\n{"asr_text": 7}\n')
    for arguments, line in (
        ([], "correct:smoke: no file of rows is given; add --rows FILE"),
        (["--rows", "none.jsonl"], "none.jsonl: No such file or directory"),
        (["--rows", "bad.jsonl"], "bad.jsonl:2: asr_text is a number, not a text; write it in quotes"),
    ):
        done = project.doit("correct:smoke", *arguments)
        assert 1 == done.status
        assert line in done.output.splitlines()
        assert "Traceback" not in done.output


@pytest.mark.slow
def test_a_killed_correction_goes_on_and_leaves_the_same_bytes(project: Copy) -> None:
    """
    kill -9 of all of it, after some batches of two ranks were kept.
    """
    rows = [{"feat_id": number, "asr_text": f"{HEARD} {'ߊ' * (number % 50)}"} for number in range(200)]
    write(project.path / "new.jsonl", rows)
    command = ("correct:smoke", "--rows", "new.jsonl")
    assert 0 == project.doit(*command, "--out", "whole/new.jsonl").status
    doit = start_doit(project, *command)
    kept = project.path / KEPT
    wait_for(lambda: kept.is_file() and kept.read_bytes().count(b"\n") > 6, 120)
    for process in processes(project):
        os.kill(process, signal.SIGKILL)
    doit.communicate()
    wait_for(lambda: not processes(project))
    assert not (project.path / OUT).exists()
    done = project.doit(*command)

    assert 0 == done.status, done.output
    assert "batches were answered before" in done.output
    for name in ("new.jsonl", "new.jsonl.json"):
        assert (project.path / "whole" / name).read_bytes() == (project.path / OUT).with_name(name).read_bytes()
    assert not (project.path / ".thunder/partial/correct-smoke").exists()


def test_a_prompt_is_answered_by_both_and_decided_by_the_gate(project: Copy) -> None:
    """
    What a person tries by hand is what new rows will get.
    """
    done = chat(project, "", "--prompt", f"{HEARD}\u200b", "--max-tokens", "3")

    assert (0, "") == (done.returncode, done.stderr)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("-- ")]
    assert [".  chat:smoke", "base:", "adapter:", "gate:", "text:"] == [
        line if line.startswith(".") else line.split()[0] for line in lines
    ]
    assert 2 == done.stdout.count("(cut at the most tokens; --max-tokens N)")
    assert lines[-1] == f"text:    {HEARD}"


def test_lines_are_answered_one_by_one(project: Copy) -> None:
    """
    For another program, a JSON object each; empty lines are none, and a closed stdin ends it.
    """
    done = chat(project, f"{HEARD}\n\n\ufffd\n", "--json", "--base", "--max-tokens", "2")

    assert 0 == done.returncode
    first, second = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert ("thunder.chat/1", HEARD, None, {"base"}) == (
        first["schema"],
        first["prompt"],
        first["decision"],
        set(first["replies"]),
    )
    assert ("replacement character U+FFFD in the hypothesis", {}) == (second["problem"], second["replies"])


@pytest.mark.parametrize("end", [b"\x04", b"\x03"], ids=["ctrl-d", "ctrl-c"])
def test_a_person_at_a_terminal_ends_it_politely(project: Copy, end: bytes) -> None:
    """
    No traceback, no failed task, no process left.
    """
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "thunder_train.cli", "chat:smoke", "--max-tokens", "2"],
        cwd=project.path,
        env=environment(project.path) | {"TERM": "dumb"},
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(inner)
    shown = _until(terminal, b"> ")
    os.write(terminal, f"{HEARD}\r".encode())
    shown += _until(terminal, b"> ")
    os.write(terminal, end)
    shown += _until(terminal, b"")

    assert 0 == process.wait(30), shown.decode(errors="replace")
    assert "base and adapter correct each line; Ctrl-D ends" in shown.decode(errors="replace")
    assert all(word in shown for word in (b"base:", b"adapter:", b"gate:"))
    assert b"Traceback" not in shown
    assert b"TaskFailed" not in shown
    wait_for(lambda: not processes(project))


def _until(terminal: int, end: bytes) -> bytes:
    """What the terminal shows until a prompt, or until the program closes it."""
    shown = b""
    while not end or not shown.endswith(end):
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # closed
            piece = b""
        if not piece:
            break
        shown += piece
    return shown
