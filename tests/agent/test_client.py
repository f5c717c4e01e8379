"""Sessions with hosts. ssh is a script here; tests/system/cluster has a real sshd."""

import os
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
        ("echo 'no python3' >&2; exit 127", "host mac4: has no Python; install Python 3.11 or newer there"),
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


def test_folder_and_interpreter_reach_the_host_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No shell string is ever built from config without quoting.
    """
    hostile = "a b; $(touch pwned) 'x'"
    play_ssh(tmp_path, f'cd {tmp_path}; printf "%s" "$last" > command; exit 3', monkeypatch)
    asked(replace(PLACE, folder=hostile, python=hostile))
    play_ssh(tmp_path, f'cd {tmp_path}; eval "$last"', monkeypatch)

    assert "True" == asked(replace(PLACE, folder=hostile, python=hostile))
    assert not (tmp_path / "pwned").exists()


def test_a_host_that_is_no_name_is_refused() -> None:
    """
    rsync would hand "-oProxyCommand=..." to ssh as a flag, and read "a/b" as a path.
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


@pytest.mark.parametrize("is_transfer", [False, True])
def test_an_interruption_ends_what_runs_for_the_hosts(
    is_transfer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Ctrl-C during gigabytes must not wait for them, nor leave an rsync behind.
    """
    wait = f"#!/bin/sh\necho $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid\nexec sleep 60\n"
    for name, text in (("ssh", "#!/bin/sh\nexec sleep 60\n"), ("rsync" if is_transfer else "ssh", wait)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def act(session: Session) -> None:
        if session.host == "mac5":
            wait_for(lambda: (tmp_path / "pid").exists())
            raise KeyboardInterrupt
        if is_transfer:
            transfer.push(session, tmp_path, ["new"], "folder")
        else:
            session.ask(ask="hash", folder="folder", paths={})

    start_s = time.perf_counter()
    with client.opened(["mac5", "mac4"], PLACE) as sessions:
        pids = [session.process.pid for session in sessions.values()]
        with pytest.raises(KeyboardInterrupt):
            client.everywhere(sessions, act)

    assert 10 > time.perf_counter() - start_s
    for pid in [*pids, int((tmp_path / "pid").read_text())]:
        assert not Path(f"/proc/{pid}").exists()
