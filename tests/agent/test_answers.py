"""Answers of hosts that are not what they should be: one ThunderError with the host's name, whatever is wrong."""

import json
import os
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.agent.test_client import PLACE, play_ssh
from thunder_train import ThunderError
from thunder_train.agent import answers, client, main
from thunder_train.agent.client import Session

SHA = "a" * 64
INTERFACE = {"name": "bridge0", "kind": "Thunderbolt Bridge", "addresses": ["10.0.5.1/24"]}
FACTS: dict[str, Any] = {
    "has_folder": True,
    "has_project": True,
    "has_python": True,
    "python": "3.11.7",
    "mlx": "0.32.4",
    "mlx_lm": None,
    "thunder_train": "0.1.0",
    "platform": "darwin-arm64",
    "fast_synch": None,
    "interfaces": [INTERFACE],
    "ssh_address": ["fe80::1%en0"],
    "rdma": ["rdma_en2"],
    "mac": {
        "macos": "26.2",
        "chip": "Apple M4",
        "sleep_minutes": 1,
        "is_on_battery": False,
        "is_lid_closed": False,
        "bridges": {"bridge0": ["en2"]},
        "thunderbolt_gbit": 40,
        "rdma_ports": {"rdma_en2": "PORT_ACTIVE"},
        "working_set_bytes": None,
    },
    "usable_memory_bytes": 12_000_000_000,
    "free_disk_bytes": 50_000_000_000,
    "files": {"data/d/train.jsonl": [9, SHA], "runs/a": [9, None]},
    "workers": [{"pid": 7, "command": "python -m thunder_train.worker"}],
    "time_s": 1.8e9,
}
LOOKED = {
    "missing": ["a"],
    "elsewhere": [],
    "removed": [],
    "environment": None,
    "python": "3.11",
    "free_bytes": 5,
    "arrived": {SHA: 4},
}
GOOD: dict[str, dict[str, Any]] = {
    "facts": FACTS,
    "hash": {"files": {"a": [3, SHA]}},
    "installed": {"mpirun": "/usr/bin/mpirun", "orted": None, "libmpi": None, "version": "4.1", "interfaces": {}},
    "listen": {"port": 41231},
    "look": LOOKED,
    "measure": {"source": "10.0.5.1", "latency_ms": 0.52, "bytes_per_second": 10**9},
    "news": {"messages": [], "has_ended": False, "output": ""},
    "place": {**LOOKED, "replaced": ["b"], "damaged": []},
    "receive": {},
    "remove": {},
    "send": {"bytes": 3},
    "start": {},
}
MALFORMED = {
    "empty": b"",
    "not JSON": b"yes",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "nested deeply": b"[" * 100_000,
    "nested deeply in a new key": b'{"x": ' + b"[" * 100_000,
    "not UTF-8": b'{"port": "\xff"}',
    "a surrogate": b'{"error": "\\ud800"}',
    "NaN": b'{"port": NaN}',
    "infinite": b'{"port": 1e999}',
    "huge": b'{"port": ' + b"9" * 9000 + b"}",
    "a wrong type": b'{"port": "80"}',
    "out of range": b'{"port": 65536}',
    "negative": b'{"port": -1}',
    "true for a number": b'{"port": true}',
    "neither": b"{}",
    "both": b'{"port": 80, "error": "no"}',
    "a key that nothing asked for": b'{"port": 80, "host": "mac9"}',
    "a key twice": b'{"port": 80, "port": 81}',
    "two answers in one": b'{"port": 80} {"port": 81}',
    "a failure that is no text": b'{"failed": ["no"]}',
}


def line(answer: object) -> bytes:
    return json.dumps(answer).encode()


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: bytes, after: str = "exec sleep 60") -> str:
    """The error of asking a host that prints these bytes, and then does something else."""
    (tmp_path / "output").write_bytes(output)
    play_ssh(tmp_path, f"cat {tmp_path}/output; {after}", monkeypatch)
    with client.opened(["mac4"], PLACE) as sessions, pytest.raises(ThunderError) as caught:
        sessions["mac4"].ask(5, ask="listen", address="10.0.5.1")
    return str(caught.value)


def test_every_question_has_its_schema() -> None:
    """
    An answer without one would reach the code unchecked.
    """
    assert set(answers.SCHEMAS) == set(GOOD) == {*main.QUESTIONS, "installed", "news", "start"}


@pytest.mark.parametrize("question", GOOD)
def test_what_the_program_answers_is_accepted_as_it_is(question: str) -> None:
    """
    The same values come out; tests/system/cluster asks real hosts.
    """
    assert GOOD[question] == answers.checked(question, line(GOOD[question]))


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_answer_is_refused_with_a_reason(kind: str) -> None:
    """
    The reason is one line, without control characters, however long the answer is.
    """
    with pytest.raises(ValueError, match=r".") as caught:
        answers.checked("listen", MALFORMED[kind])

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= answers.SHOWN


@pytest.mark.parametrize("kind", ["empty", "nested deeply", "not UTF-8"])
def test_a_malformed_answer_is_one_error(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It names the host and the question; nothing that the host wrote is passed on.
    """
    message = asked(tmp_path, monkeypatch, b"thunder-answer " + MALFORMED[kind] + b"\n")

    assert message.startswith("host mac4: its answer to `listen` is not one: ")
    assert message.endswith("; check that host")
    assert 1 == len(message.splitlines())


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"interfaces": {}}, "$.interfaces"),
        ({"interfaces": [INTERFACE] * 257}, "$.interfaces"),
        ({"interfaces": [{**INTERFACE, "name": 'en0\n[clusters.evil]\nfolder = "x"'}]}, "$.interfaces[...].name"),
        ({"interfaces": [{**INTERFACE, "name": "en0 # x"}]}, "$.interfaces[...].name"),
        ({"interfaces": [{**INTERFACE, "name": "en0\n"}]}, "$.interfaces[...].name"),
        ({"interfaces": [{**INTERFACE, "name": "-oProxyCommand=x"}]}, "$.interfaces[...].name"),
        ({"interfaces": [{**INTERFACE, "addresses": ["10.0.5.1/24\n"]}]}, "$.interfaces[...].addresses[...]"),
        ({"interfaces": [{**INTERFACE, "addresses": ["300.0.5.1/24"]}]}, "$.interfaces[...]"),
        ({"interfaces": [{**INTERFACE, "addresses": ["10.0.5.1/99"]}]}, "$.interfaces[...]"),
        ({"rdma": ["a", 'b"\n']}, "$.rdma[...]"),
        ({"mlx": "1.0\x1b[2J"}, "$.mlx"),
        ({"python": ""}, "$.python"),
        ({"files": {"a": [3]}}, "$.files[...]"),
        ({"files": {"a": [-3, SHA]}}, "$.files[...][...]"),
        ({"files": {"a": [3, "no hash"]}}, "$.files[...][...]"),
        ({"workers": [{"pid": "7; rm", "command": ""}]}, "$.workers[...].pid"),
        ({"free_disk_bytes": 2**70}, "$.free_disk_bytes"),
        ({"time_s": -1}, "$.time_s"),
    ],
)
def test_a_fact_that_is_not_what_it_should_be_is_refused(changed: dict[str, Any], where: str) -> None:
    """
    A name in a table, an address in a configuration and a number in a sum have one form each.
    """
    with pytest.raises(ValueError, match=r".") as caught:
        answers.checked("facts", line({**FACTS, **changed}))

    assert where in re.sub(r"\[\d+\]", "[...]", str(caught.value))


@pytest.mark.parametrize("name", FACTS)
def test_a_missing_fact_is_refused(name: str) -> None:
    """
    Code after this point reads each of them without a look.
    """
    with pytest.raises(ValueError, match=f"missing required field `{name}`"):
        answers.checked("facts", line({key: value for key, value in FACTS.items() if key != name}))


def test_texts_for_people_cannot_steer_a_terminal() -> None:
    """
    A process of a host may have any bytes as its command line.
    """
    worker = {"pid": 7, "command": "a\x1b[2Jb\nc\u202e"}
    facts = answers.checked("facts", line({**FACTS, "workers": [worker]}))

    assert "a\ufffd[2Jb\ufffdc\ufffd" == facts["workers"][0]["command"]
    assert {"failed": "x\ufffd"} == answers.checked("facts", line({"failed": "x\r"}))


@pytest.mark.parametrize(
    "message",
    [
        {"rank": 0, "environment": {"LD_PRELOAD": "/tmp/x.so"}},
        {"rank": 0, "environment": {"OMPI_MCA_mca_base_component_path": "/tmp/x"}},
        {"rank": 0, "environment": {"OMPI_X; touch pwned; export Y": "1"}},
        {"rank": 0, "environment": {"OMPI_X": "a\0b"}},
        {"rank": -1, "environment": {}},
        {"rank": 0},
        {"rank": 0, "environment": {}, "node": "a", "command": "b"},
        {"node": "-oX", "command": "orted"},
    ],
)
def test_open_mpi_gives_a_rank_its_own_variables_only(message: dict[str, Any]) -> None:
    """
    They come from a host, and become the environment of a process here or on another host.
    """
    with pytest.raises(ValueError, match=r"messages"):
        answers.checked("news", line({**GOOD["news"], "messages": [message]}))


def test_a_greeting_of_the_login_shell_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With or without an end of its line.
    """
    play_ssh(tmp_path, f'cd {tmp_path}; printf "Welcome\\n\\xff\\xfe to mac4 > "; eval "$last"', monkeypatch)
    with client.opened(["mac4"], PLACE) as sessions:
        assert sessions["mac4"].ask(5, ask="listen", address="127.0.0.1")["port"]


@pytest.mark.parametrize(
    ("output", "after", "expected"),
    [
        (b'thunder-answer {"port": 80', "exit 1", "the program that answers for it ended: no message"),
        (b"", "exit 0", "the program that answers for it ended: no message"),
        (b"", "exec >&-; exec sleep 60", "closed its output"),
        ((b"x" * 999 + b"\n") * 2000, "exec sleep 60", "prints without end, and not what it was asked"),
        (b"x" * (5 << 20), "exec sleep 60", "prints without end, and not what it was asked"),
        (b"thunder-answer " + b"x" * (5 << 20), "exec sleep 60", "its answer is too long"),
        (b"", "exec cat /dev/zero", "prints without end, and not what it was asked"),
        (b"thunder-answer ", "exec cat /dev/zero", "its answer is too long"),
    ],
    ids=["ends inside", "ends", "closes", "chatters", "one long line", "long answer", "endless", "endless answer"],
)
def test_a_host_that_ends_or_never_ends_takes_neither_time_nor_memory(
    output: bytes, after: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The answer is read up to a limit, and the connection is closed.
    """
    start_s = time.monotonic()
    tracemalloc.start()
    message = asked(tmp_path, monkeypatch, output, after)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert message.startswith(f"host mac4: {expected}; check that")
    assert time.monotonic() - start_s < 10
    assert peak < 40 << 20


def test_endless_errors_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only their end is kept and quoted.
    """
    message = asked(
        tmp_path, monkeypatch, b"", "yes warning | head -c 50000000 >&2; printf '\\nlast\\033[2J' >&2; exit 3"
    )

    assert message.startswith("host mac4: the program that answers for it ended: warning | war | last\ufffd[2J; ") or (
        "last\ufffd[2J; " in message and len(message) < 300
    )


def test_a_host_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A byte now and then is no answer: the time is that of the whole answer.
    """
    play_ssh(tmp_path, "while :; do printf x; sleep 0.1; done", monkeypatch)
    start_s = time.monotonic()
    with client.opened(["mac4"], PLACE) as sessions, pytest.raises(ThunderError, match="no answer within 1 s"):
        sessions["mac4"].ask(1, ask="listen", address="10.0.5.1")
    assert time.monotonic() - start_s < 5


@pytest.mark.parametrize(("answer", "body"), [({"bytes": 4}, b"abcd"), ({"bytes": 3}, b"ab"), ({"bytes": 2}, b"ab")])
def test_exactly_the_announced_bytes_of_a_file_are_read(
    answer: dict[str, int], body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A host decides neither how much is written here nor when it is enough.
    """
    (tmp_path / "output").write_bytes(b"thunder-answer " + line(answer) + b"\n" + body)
    play_ssh(tmp_path, f"cat {tmp_path}/output; exit 0", monkeypatch)
    with client.opened(["mac4"], PLACE) as sessions, pytest.raises(ThunderError, match="host mac4: "):
        list(sessions["mac4"].receive({"ask": "send", "folder": "x", "path": "a", "offset": 0}, 3))


def test_the_program_ends_with_its_stdin_also_in_the_middle_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    kill -9 of the build closes stdin: a host must not hash a model for an hour for nobody.
    """
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder/never")
    play_ssh(tmp_path, f'cd {tmp_path}; export HOME=$PWD; eval "$last"', monkeypatch)
    session = Session("mac4", PLACE)
    question = {"ask": "send", "folder": "folder", "path": "never", "offset": 0}  # opening it waits for a writer
    session._send(question)
    assert session.process.stdin
    time.sleep(1.0)
    session.process.stdin.close()

    assert -15 == session.process.wait(timeout=10)
    session.close()
