"""Sessions with hosts. ssh is a script here; tests/system/cluster has a real sshd."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.helpers.fake_hosts import refusal
from tests.helpers.project_copy import wait_for
from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.agent.client import Session
from thunder_train.cluster import transfer
from thunder_train.cluster.transfer import Part


@dataclass(frozen=True)
class Place:
    """Where the project is on hosts."""

    folder: str
    python: str


PLACE = Place("projects/thunder train", ".venv/bin/python")


def play_ssh(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script named ssh first on PATH. Its last argument is the remote command."""
    (folder / "ssh").write_text(f"#!/bin/bash\nfor last; do :; done\n{script}\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def asked(where: Place) -> str:
    """The result of asking mac4: "True", or the error's text."""
    with client.opened(["mac4"], where) as sessions:
        try:
            return str(sessions["mac4"].ask(5, ask="listen", address="127.0.0.1")["port"] > 0)
        except ThunderError as error:
            return str(error)


def test_the_program_is_sent_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A host needs a Python and no project. The output of its login scripts is skipped.
    """
    play_ssh(tmp_path, f'cd {tmp_path}; echo "Welcome!"; eval "$last"', monkeypatch)

    assert "True" == asked(PLACE)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'ssh: connect to host mac4 port 22: Connection refused' >&2; exit 255",
            "host mac4: ssh cannot reach it: ssh: connect to host mac4 port 22: Connection refused; "
            "check that it is on, on this network, and lets you in: `ssh mac4 true`; on a Mac turn on Remote Login",
        ),
        (
            "echo 'me@mac4: Permission denied (publickey,password,keyboard-interactive).' >&2; exit 255",
            "host mac4: ssh cannot reach it: me@mac4: Permission denied (publickey,password,keyboard-interactive).; "
            "make `ssh mac4 true` work without a password",
        ),
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "host mac4: ssh cannot reach it: Host key verification failed.; "
            "find out why its key changed; if rightly, `ssh-keygen -R mac4`, then `ssh mac4`",
        ),
        (
            "echo 'Connection to 10.0.5.1 closed by remote host.' >&2; exit 255",
            "host mac4: the connection was lost: Connection to 10.0.5.1 closed by remote host.; "
            "check that it is on the network, then run the command again: it continues where it stopped",
        ),
        ("echo 'no python3' >&2; exit 127", "host mac4: has no Python; install Python 3.11 to 3.14 there"),
        (
            "exit 3",
            "host mac4: the program that answers for it ended: no message; "
            "check that Python 3.9 or newer is installed there",
        ),
    ],
)
def test_why_a_host_cannot_be_asked(
    script: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One line with the host's name and a hint.
    """
    play_ssh(tmp_path, script, monkeypatch)

    assert expected == asked(PLACE)


def test_a_host_that_never_answers_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A hung file system there must not hang the build.
    """
    play_ssh(tmp_path, "exec sleep 60", monkeypatch)
    with client.opened(["mac4"], PLACE) as sessions, pytest.raises(ThunderError) as caught:
        sessions["mac4"].ask(0.2, ask="listen", address="127.0.0.1")

    assert (
        "host mac4: ssh cannot reach it: no answer within 0.2 s; make `ssh mac4 true` work without a password"
    ) == str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        "Read from remote host mac4: Operation timed out",
        "client_loop: send disconnect: Broken pipe",
        "client_loop: send disconnect: Operation timed out",
        "Timeout, server mac4 not responding.",
        "packet_write_wait: Connection to 10.0.5.1 port 22: Operation timed out",
        "ssh_dispatch_run_fatal: Connection to 10.0.5.1 port 22: message authentication code incorrect",
        "kex_exchange_identification: read: Connection reset by peer",
        "Connection to mac4 closed by remote host.",
    ],
)
def test_a_lost_connection_is_no_missing_password(message: str) -> None:
    """
    Words of OpenSSH as users' posts show them. Who reads of a password sets up keys that work already.
    """
    assert str(client.ssh_problem("mac4", message)).startswith("host mac4: the connection was lost: ")
    assert "without a password" not in str(client.ssh_problem("mac4", message))


@pytest.mark.parametrize(("end", "message"), [("exit 255", "no message"), ("exec sleep 60", "no answer within 1 s")])
def test_a_host_that_has_answered_needs_no_password(
    end: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A cut in the middle, whatever ssh says of it, or says nothing at all.
    """
    answer = json.dumps({"port": 5})
    play_ssh(tmp_path, f"for _ in 1 2 3 4 5; do read -r line; done; echo 'thunder-answer {answer}'; {end}", monkeypatch)
    with client.opened(["mac4"], PLACE) as sessions:
        assert {"port": 5} == sessions["mac4"].ask(5, ask="listen", address="127.0.0.1")
        with pytest.raises(ThunderError) as caught:
            sessions["mac4"].ask(1, ask="listen", address="127.0.0.1")

    assert (
        f"host mac4: the connection was lost: {message}; "
        "check that it is on the network, then run the command again: it continues where it stopped"
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("No space left on device", "check the disk space and permissions there"),
        ("Operation not permitted", f"if it is a Mac: {client.privacy.PROTECTED}"),
    ],
)
def test_a_call_that_a_host_refuses_has_a_hint(
    reason: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    On a Mac sshd may read Documents only with Full Disk Access, whatever its permissions say.
    """
    answer = json.dumps({"failed": f"rows.jsonl: {reason}"})
    play_ssh(tmp_path, f"for _ in 1 2 3 4 5; do read -r line; done; echo 'thunder-answer {answer}'", monkeypatch)

    assert f"host mac4: rows.jsonl: {reason}; {hint}" == asked(PLACE)


def test_a_neighbour_without_a_route_may_be_a_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    macOS 15 and newer; untested on a Mac.
    """
    monkeypatch.setattr(client.privacy.hint, "__defaults__", (True,))
    problem = client.ssh_problem("mac4", "ssh: connect to host mac4 port 22: No route to host")

    assert problem.hint == (
        "check that it is on, on this network, and lets you in: `ssh mac4 true`; on a Mac turn on Remote Login; "
        f"{client.privacy.LOCAL_NETWORK}"
    )


HOSTILE = "a b; $(touch pwned) `touch pwned` 'x' \\ \"y\" !z"


def test_folder_and_interpreter_reach_the_host_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    They travel over stdin: a login shell (fish and csh quote in their own ways) sees the same command for all.
    """
    play_ssh(tmp_path, f'cd {tmp_path}; printf "%s\n" "$last" >>commands; eval "$last"', monkeypatch)
    python = tmp_path / HOSTILE / HOSTILE
    python.parent.mkdir()
    python.symlink_to(sys.executable)

    assert ["True", "True"] == [asked(PLACE), asked(Place(HOSTILE, f"./{HOSTILE}"))]
    assert not list(tmp_path.rglob("pwned"))
    first, second = (tmp_path / "commands").read_text().splitlines()
    assert first == second
    assert not set("\\!\n") & set(first)
    assert ["exec /bin/sh -c ", " ", ""] == first.split("'")[::2]


def test_the_project_there_and_its_interpreter_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An environment of the project knows the versions of mlx there; a host's python3 only answers without one.
    """
    (tmp_path / PLACE.folder / ".venv/bin").mkdir(parents=True)
    interpreter = tmp_path / PLACE.folder / PLACE.python
    interpreter.write_text(f'#!/bin/sh\npwd >{tmp_path}/used\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    play_ssh(tmp_path, f'cd {tmp_path}; eval "$last"', monkeypatch)

    assert "True" == asked(PLACE)
    assert f"{tmp_path / PLACE.folder}\n" == (tmp_path / "used").read_text()


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "a\x1b[2Jb"])
def test_a_folder_of_more_than_a_line_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A second line would be taken for the interpreter.
    """
    play_ssh(tmp_path, "exit 3", monkeypatch)

    assert (
        f"[clusters]: {text!r} has a character that cannot be printed; correct folder and python"
        == refusal(asked, replace(PLACE, folder=text))[0]
    )


def test_a_host_that_is_no_name_is_refused() -> None:
    """
    ssh would take "-oProxyCommand=..." for a flag.
    """

    def enter(names: list[str]) -> None:
        with client.opened(names, PLACE):
            pass

    names = ["-oX=y", "a/b"]
    hint = "use the name of the host in ~/.ssh/config, or user@host"
    assert [f"hostfile: {name!r} is no name of a host; {hint}" for name in names] == refusal(enter, names)


def test_every_hosts_error_is_reported_and_the_others_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Correcting one host at a time would cost an attempt per host.
    """
    play_ssh(tmp_path, f'cd {tmp_path}; eval "$last"', monkeypatch)

    def act(session: Session) -> str:
        if session.host == "mac5":
            return session.host
        raise ThunderError("is broken", session.host)

    problems: list[ThunderError] = []
    with client.opened(["mac4", "mac5", "mac6"], PLACE) as sessions:
        assert {"mac5": "mac5"} == client.attempts(sessions, act, problems)
        assert ["mac4: is broken", "mac6: is broken"] == refusal(client.everywhere, sessions, act)
    assert ["mac4: is broken", "mac6: is broken"] == list(map(str, problems))


@pytest.mark.parametrize("kind", ["question", "files", "command"])
def test_an_interruption_ends_what_runs_for_the_hosts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Ctrl-C during gigabytes must not wait for them, nor leave an ssh behind.
    """
    play_ssh(tmp_path, f"echo >{tmp_path}/$$.pid\nexec sleep 60", monkeypatch)
    (tmp_path / "big").write_bytes(bytes(1 << 20))

    def act(session: Session) -> None:
        if session.host == "mac5":
            wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == (3 if kind == "command" else 2))
            raise KeyboardInterrupt
        if kind == "files":
            transfer.push(session, [Part(tmp_path / "big", "0" * 64, 0, 1 << 20)], "folder", "one")
        elif kind == "command":
            transfer.run(session, "folder", "./doit list", 60)
        else:
            session.ask(ask="hash", folder="folder", paths={})

    start_s = time.perf_counter()
    with client.opened(["mac5", "mac4"], PLACE) as sessions, pytest.raises(KeyboardInterrupt):
        client.everywhere(sessions, act)

    assert 10 > time.perf_counter() - start_s
    assert [] == [path for path in tmp_path.glob("*.pid") if Path(f"/proc/{path.stem}").exists()]


def test_a_part_of_ssh_that_stays_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With ControlPersist in ~/.ssh/config a process goes to the background and keeps stderr open for minutes.
    """
    play_ssh(tmp_path, f'cd {tmp_path}; setsid sleep 15 >/dev/null </dev/null & eval "$last"', monkeypatch)
    start_s = time.monotonic()

    assert "True" == asked(PLACE)
    assert time.monotonic() - start_s < 10


def test_a_module_of_the_host_does_not_stand_in_for_pythons_own(tmp_path: Path) -> None:
    """
    The program starts in the project's folder there, or in the home folder.
    """
    for name in ("json", "types", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\n")
    code = json.dumps("import random; print(random.random() < 1)") + "\n"

    done = subprocess.run(
        [sys.executable, "-u", "-c", client.START],
        cwd=tmp_path,
        input=code,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("True\n", "") == (done.stdout, done.stderr)
