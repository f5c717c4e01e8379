"""The protocol of external gates, with real processes."""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.gates import (
    DIGITS,
    HYPOTHESIS,
    LOOP,
    PROPOSAL,
    WHERE,
    WITNESS,
    external,
    policy,
    prediction,
    refusal,
)
from tests.helpers.project_copy import PROJECT, wait_for
from thunder_train import ThunderError
from thunder_train.core import process
from thunder_train.evaluate import external_gate, gate, replay

HINT = "correct the gate; docs/gate.md describes the answers it must give"
SAY = """
import json, os, signal, sys, time
rows = [json.loads(line) for line in sys.stdin]
def say(name, verdict="accept", **more):
    print(json.dumps({"id": name, "verdict": verdict, "reason": "", **more}), flush=True)
"""
"""Start of a gate that reads all rows; the code of the test follows."""
ROWS = [prediction(name) for name in ("a", "b", "c")]


def is_alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_verdicts_may_come_in_any_order_and_are_final(tmp_path: Path) -> None:
    """
    The external gate is the authority: it may accept what the built-in policy would reject, and the reverse.
    """
    code = SAY + "say('c', 'reject', reason='no'), say('b', reason='seen'), say('a')"
    rows = [prediction("a", "ߊ" * 40), prediction("b", partition="novelty"), prediction("c")]

    judged = gate.judge(rows, external(tmp_path, code), WHERE)

    assert [
        ("a", "accept", "", 37, None, "external", "ߊ" * 40),
        ("b", "accept", "seen", 1, None, "external", PROPOSAL),
        ("c", "reject", "no", 1, None, "external", HYPOTHESIS),
    ] == [
        tuple(each[key] for key in ("id", "verdict", "reason", "edits", "budget", "gate", "final"))
        for each in judged.decisions
    ]


def test_a_gate_gets_only_fields_without_the_reference(tmp_path: Path) -> None:
    """
    All that it read: nothing that depends on the reference, under whatever name.
    """
    telemetry = {"ctc_confidence": 0.9, "cer_edits": 3, "reference_text": "SECRET", "jerk": "SECRET", "velocity": True}
    rows = [prediction("b", telemetry=telemetry | {"stability": float("nan")}), prediction("a", edits_before=3)]
    code = f"import sys\ntext = sys.stdin.read()\nopen({str(tmp_path / 'requests')!r}, 'w').write(text)\n"
    code += LOOP.replace("sys.stdin", "text.splitlines()")

    judged = gate.judge(rows, external(tmp_path, code), WHERE, {"ctc_confidence", "jerk", "velocity", "stability"})

    fields = {"partition": "boundary", "hypothesis": HYPOTHESIS, "proposal": PROPOSAL}
    requests = (tmp_path / "requests").read_text(encoding="utf-8").splitlines()
    assert [{"id": "a", **fields}, {"id": "b", **fields, "telemetry": {"ctc_confidence": 0.9}}] == [
        *map(json.loads, requests)
    ]
    assert [None, {"ctc_confidence": 0.9}] == [each.get("telemetry") for each in judged.decisions]


def test_a_gate_gets_the_telemetry_that_a_source_declares(tmp_path: Path) -> None:
    """
    A recogniser may have scores of its own; replay shows a gate the same ones.
    """
    telemetry = {"rover": {"score": 0.5, "votes": {"top": 3}, "text": "SECRET"}, "mine": 1, "am": {"jerk": 2}}
    gate_file, names = external(tmp_path, LOOP), {"rover.score", "rover.votes", "rover.text", "jerk"}
    judged = gate.judge([prediction("a", telemetry=telemetry)], gate_file, WHERE, names)

    assert {"am.jerk": 2, "rover.score": 0.5, "rover.votes.top": 3} == judged.decisions[0]["telemetry"]
    (tmp_path / gate.FILE).write_text(gate.as_jsonl(judged), encoding="utf-8")
    assert [] == replay.replay(tmp_path, gate_file)


def test_a_gate_gets_no_variable_but_the_usual_and_the_named_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A token in the shell of whoever starts the build is no business of a gate.
    """
    passed = {"PATH": os.environ["PATH"], "HOME": "/home/me", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "GATE_MODE": "x"}
    kept = {"HF_TOKEN": "s", "WANDB_API_KEY": "s", "AWS_SECRET_ACCESS_KEY": "s", "LC_STOLEN": "s", "LD_PRELOAD_X": "s"}
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in (passed | kept).items():
        monkeypatch.setenv(name, value)
    code = SAY + f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps(dict(os.environ)))\n"
    code += "for row in rows: say(row['id'])"

    gate.judge(ROWS, external(tmp_path, code, env=("GATE_MODE", "NOT_SET")), WHERE)

    seen = json.loads((tmp_path / "seen").read_text())
    seen.pop("__CF_USER_TEXT_ENCODING", None)  # macOS adds it
    assert passed == seen


def test_the_gate_of_the_documentation_works(tmp_path: Path) -> None:
    """
    Users start from it.
    """
    page = (PROJECT / "docs/gate.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]

    judged = gate.judge([prediction("a"), prediction("b", "ߊ")], external(tmp_path, code), WHERE)

    assert ["accept", "reject"] == [each["verdict"] for each in judged.decisions]


def test_a_well_formed_witness_is_kept_and_a_malformed_one_is_described(tmp_path: Path) -> None:
    """
    A witness is never corrected or invented, and a malformed one is not passed on.
    """
    bad = {**WITNESS, "token": "ABC"}
    code = SAY + f"say('a', witness={WITNESS | {'more': 1}!r}), say('b', witness={bad!r}), say('c', witness=None)"

    judged = gate.judge(ROWS, external(tmp_path, code), WHERE)

    assert [WITNESS, None, None] == [each["witness"] for each in judged.decisions]
    assert ["token is not 32 hex digits"] == [
        each["witness_problem"] for each in judged.decisions if "witness_problem" in each
    ]
    assert {"valid": 1, "missing": 1, "malformed": 1} == gate.summary(judged)["witnesses"]
    assert DIGITS in gate.as_jsonl(judged)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("say('a'), say('b')", "gave no verdict for 1 of 3 rows, first 'c'"),
        ("", "gave no verdict for 3 of 3 rows, first 'a'"),
        ("say('a'), say('b'), say('b', 'reject'), say('c')", "line 3 of its answers: row 'b' is answered twice"),
        ("say('a'), say('b'), say('c'), say('z')", "line 4 of its answers: row 'z' was not asked about"),
        (
            "say('a'), say('b', 'maybe'), say('c')",
            "line 2 of its answers: verdict 'maybe' of row 'b' is not accept or reject",
        ),
        (
            "say('a', ['accept']), say('b'), say('c')",
            "line 1 of its answers: verdict \"['accept']\" of row 'a' is not accept or reject",
        ),
        (
            "say('a'), say('b'), say('c'), print('done')",
            "line 4 of its answers: is not JSON: JSON is malformed: invalid character",
        ),
        ("say('a'), say('b'), say('c'), print()", "line 4 of its answers: is not JSON: Input data was truncated"),
        ("say('a'), say('b'), say('c'), say(4)", "line 4 of its answers: is not an object with an id"),
        (
            "say('a'), say('b', reason='x\\n'), say('c')",
            "line 2 of its answers: reason of row 'b' is not a line of at most 500 characters",
        ),
        ("say('a'), sys.exit(3)", "ended with status 3; 1 of 3 rows were judged, 'b' was not"),
        ("say('a'), say('b'), say('c'), sys.exit(3)", "ended with status 3; 3 of 3 rows were judged"),
        ("say('a'), os.kill(os.getpid(), 9)", "was ended by signal 9; 1 of 3 rows were judged, 'b' was not"),
    ],
)
def test_anything_but_one_orderly_answer_per_row_fails(tmp_path: Path, code: str, expected: str) -> None:
    """
    A gate that works partly accepts nothing: each error names the command and the row.
    """
    text = refusal(ROWS, external(tmp_path, SAY + code))

    assert f"{WHERE}: `GATE`: {expected}" == text.partition(" (byte")[0].removesuffix(f"; {HINT}")


def test_all_problems_of_the_answers_are_reported_together(tmp_path: Path) -> None:
    """
    Two wrong answers and a missing one are three lines of one error.
    """
    text = refusal(ROWS, external(tmp_path, SAY + "say('a', 'maybe'), say('z')"))

    assert 3 == len(text.splitlines())


def test_a_crash_shows_the_end_of_stderr(tmp_path: Path) -> None:
    """
    It usually has the cause; control characters in it do not reach the terminal.
    """
    code = SAY + "print(*range(99), '\\x1b[2Jbad slice', sep='\\n', file=sys.stderr), sys.exit(1)"
    last = "".join(f"\n  {number}" for number in range(90, 99))

    text = refusal(ROWS, external(tmp_path, code))

    what = "ended with status 1; 0 of 3 rows were judged, 'a' was not"
    expected = f"{what}; {HINT}; its last output on stderr:{last}\n  �[2Jbad slice"
    assert f"{WHERE}: `GATE`: {expected}" == text


@pytest.mark.parametrize("code", ["say('a'), time.sleep(60)", "say('a'), os.close(1), time.sleep(60)"])
def test_silence_fails_and_ends_the_gate(tmp_path: Path, code: str) -> None:
    """
    A gate that hangs must not block the build for ever or outlive it.
    """
    code = SAY + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n" + code

    text = refusal(ROWS, external(tmp_path, code, timeout_s=1))

    assert text.startswith(f"{WHERE}: `GATE`: made no progress for 1 s; ")
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_output_on_stderr_is_no_progress(tmp_path: Path) -> None:
    """
    A gate that retries for ever makes no progress, even if it prints that it does.
    """
    code = SAY + "while True: print('retry', file=sys.stderr, flush=True), time.sleep(0.1)"

    text = refusal(ROWS, external(tmp_path, code, timeout_s=1))

    assert "made no progress for 1 s; 0 of 3 rows were judged, 'a' was not" in text


def test_a_slow_gate_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """
    The timeout limits the time without progress: 30,000 rows may take an hour.
    """
    code = SAY + "for row in rows: time.sleep(0.4), say(row['id'])"

    assert 3 == gate.summary(gate.judge(ROWS, external(tmp_path, code, timeout_s=1), WHERE))["accepted"]


def test_a_gate_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    So are its children, which belong to its session.
    """
    monkeypatch.setattr(external_gate, "GRACE_S", 0.2)
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAY
    code += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())), time.sleep(60)"

    refusal(ROWS, external(tmp_path, code, timeout_s=1))

    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_signal_to_us_ends_the_gate(tmp_path: Path) -> None:
    """
    Ctrl-C during a long evaluation leaves no process behind.
    """
    code = SAY + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())), time.sleep(60)"
    kept = signal.signal(signal.SIGALRM, process.interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            gate.judge(ROWS, external(tmp_path, code), WHERE)
    finally:
        signal.signal(signal.SIGALRM, kept)

    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert not process._running


def test_a_signal_to_us_ends_the_gate_of_another_thread(tmp_path: Path) -> None:
    """
    Under `doit -n` stages run in threads, and a signal reaches only the main one.
    """
    code = SAY + f"open({str(tmp_path / 'pid')!r}, 'w').write('x'), time.sleep(60)"
    with ThreadPoolExecutor() as pool:
        text = pool.submit(refusal, ROWS, external(tmp_path, code))
        wait_for((tmp_path / "pid").exists)
        with pytest.raises(KeyboardInterrupt):
            process.interrupt()

    assert "was ended by signal 15; 0 of 3 rows were judged, 'a' was not" in text.result()


def test_a_flood_is_stopped(tmp_path: Path) -> None:
    """
    Memory is bounded whatever a gate writes, and the rest of its output is not read.
    """
    text = refusal(ROWS, external(tmp_path, SAY + "print('x' * 1_500_000), time.sleep(60)"))

    assert f"{WHERE}: `GATE`: wrote more than 1060864 bytes; 0 of 3 rows were judged, 'a' was not; {HINT}" == text


@pytest.mark.parametrize(
    "code",
    [
        LOOP,
        SAY + "for row in rows: say(row['id'])",
        "import sys\nprint('x' * 300000, file=sys.stderr, flush=True)" + LOOP,
    ],
)
def test_full_pipes_do_not_block(tmp_path: Path, code: str) -> None:
    """
    Megabytes in both directions, and on stderr before the first row is read: a pipe buffers 64 kB.
    """
    rows = [prediction(f"{number:05d}", "ߓ" * 100) for number in range(10_000)]

    start = time.monotonic()
    judged = gate.judge(rows, external(tmp_path, code), WHERE)

    assert 10_000 == gate.summary(judged)["accepted"]
    assert 15 > time.monotonic() - start


def test_a_gate_that_stops_reading_fails_for_the_missing_rows(tmp_path: Path) -> None:
    """
    Its closed stdin alone is no error, and causes no SIGPIPE here.
    """
    code = LOOP.replace("for line in sys.stdin:", "for line in [sys.stdin.readline()]:") + "sys.stdin.close()"
    rows = [prediction(f"{number:04d}", "ߓ" * 100) for number in range(2000)]

    text = refusal(rows, external(tmp_path, code))

    assert "gave no verdict for 1999 of 2000 rows, first '0001'" in text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("no-such-gate", "`no-such-gate`: cannot be started: No such file or directory"),
        ("./notes.txt", "`./notes.txt`: cannot be started: Permission denied"),
        ("a\0b", "`'a\0b'`: cannot be started: embedded null byte"),
    ],
)
def test_a_command_that_cannot_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, expected: str
) -> None:
    """
    The user learns in one line that the gate is not installed.
    """
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no program")

    with pytest.raises(ThunderError) as error:
        gate.judge(ROWS, policy(command=(word,)), WHERE)

    assert f"{WHERE}: {expected}; install it, or correct the command" == str(error.value)


def test_no_shell_reads_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The program gets the recipe's arguments unchanged.
    """
    monkeypatch.chdir(tmp_path)
    words = (*external(tmp_path, LOOP).command, "$(touch shell)", "; touch shell", "*")

    gate.judge(ROWS, policy(command=words), WHERE)

    assert ["gate.py"] == sorted(path.name for path in tmp_path.iterdir())


def test_no_row_needs_no_gate() -> None:
    """
    Without test rows no process is started.
    """
    assert [] == gate.judge([], policy(command=("no-such-gate",)), WHERE).decisions


def test_the_policy_of_an_external_gate_is_its_command_and_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An edited gate is another policy. Absolute paths and interpreters are left out: they differ between machines.
    """
    monkeypatch.chdir(tmp_path)
    external(tmp_path, LOOP)
    Path("python").symlink_to(sys.executable)
    long_code = "x" * 300  # longer than a file name can be
    described: dict[str, Any] = gate.policy_of(policy(command=("python", "/opt/bin/gate", "gate.py", "-c", long_code)))

    assert ["python", "gate", "gate.py", "-c", long_code] == described["command"]
    assert ["gate.py"] == [*described["files"]]
