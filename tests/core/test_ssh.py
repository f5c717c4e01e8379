"""The script that guards a command on another machine, run by the shell of this one; ssh itself is in tests/cluster."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import wait_for
from tests.launch.test_launcher import alive
from thunder_train.core import ssh

HOSTILE = "a b; $(touch pwned) 'x' \"y\" \\ `id`\nz"


def start(
    folder: Path, command: list[str], env: dict[str, str] | None = None, silence_s: float = 0.0
) -> "subprocess.Popen[bytes]":
    """What sshd would start, with the script on its stdin, which stays open."""
    process = subprocess.Popen(
        ["/bin/sh", "-s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # ssh would bring it apart, and out of order
        cwd=folder.parent,
        start_new_session=True,
    )
    assert process.stdin
    process.stdin.write(ssh.script(command, env or {}, folder.name, silence_s))
    process.stdin.flush()
    return process


def finished(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """(exit status, output); stdin stays open until then."""
    assert process.stdout
    said = process.stdout.read().decode()
    status = process.wait(timeout=10)
    process.communicate()
    return status, said


def test_options_ask_nothing_trust_nobody_new_and_open_no_way_back() -> None:
    """
    A question would hang a night's run; a forwarded agent would lend our keys to every host.
    """
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=10"]
    options += ["ServerAliveCountMax=3", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes"]
    options += ["PermitLocalCommand=no"]
    words = [word for option in options for word in ("-o", option)]

    assert ["ssh", "-T", *words, "--", "mac4", "exec /bin/sh -s"] == ssh.run_script("mac4")


def test_command_environment_and_folder_arrive_letter_by_letter(tmp_path: Path) -> None:
    """
    No shell string is ever built from a configuration without quoting.
    """
    folder = tmp_path / HOSTILE
    folder.mkdir()
    tell = "import os, sys; print(repr([os.getcwd(), sys.argv[1], os.environ['A']]))"
    process = start(folder, [sys.executable, "-c", tell, HOSTILE], {"A": HOSTILE})

    assert (0, f"{[str(folder), HOSTILE, HOSTILE]!r}\n") == finished(process)
    assert [] == list(tmp_path.rglob("pwned"))


def test_the_environment_is_on_no_command_line(tmp_path: Path) -> None:
    """
    Everybody may read command lines, and a token may be in the environment.
    """
    process = start(tmp_path, ["sh", "-c", "ps ax -o args"], {"TOKEN": "secret word"})

    assert "secret word" not in finished(process)[1]


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], 3, "out\nerr\n"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such"], 2, "no no-such in here on this host; run ./doit list there once, or mend `python`\n"),
    ],
)
def test_the_exit_status_is_that_of_the_command(tmp_path: Path, command: list[str], status: int, said: str) -> None:
    """
    A signal comes as the shell tells it, and a missing program as a mistake, which is not tried again.
    """
    (tmp_path / "here").mkdir()

    assert (status, said) == finished(start(tmp_path / "here", command))


def test_a_missing_folder_is_a_mistake_that_names_it(tmp_path: Path) -> None:
    """
    mlx.launch carries on in the wrong one.
    """
    status, said = finished(start(tmp_path / "it's gone", ["true"]))

    assert 2 == status
    assert said.endswith("no folder it's gone on this host; bring the project there\n")


def test_the_word_end_is_sigterm(tmp_path: Path) -> None:
    """
    ssh passes no signal on, and a rank that is asked to end writes a checkpoint first.
    """
    wait = "trap 'echo saved; exit 143' TERM; echo up; while :; do sleep 0.05; done"
    process = start(tmp_path, ["sh", "-c", wait])
    assert process.stdin
    assert process.stdout
    assert b"up\n" == process.stdout.readline()
    process.stdin.write(ssh.END)
    process.stdin.flush()

    assert (143, "saved\n") == finished(process)


def test_the_end_of_stdin_kills_even_a_stopped_command_and_its_children(tmp_path: Path) -> None:
    """
    So ends a rank whose launcher was killed with -9, whatever MLX does with its threads.
    """
    process = start(tmp_path, ["sh", "-c", "sleep 60 & echo $! > child; echo $$ > new; mv new self; kill -STOP $$"])
    wait_for(lambda: (tmp_path / "self").exists())
    time.sleep(0.1)
    process.communicate(timeout=10)

    wait_for(lambda: not alive(tmp_path / "self") and not alive(tmp_path / "child"), seconds=3)


def test_silence_is_sigterm_and_then_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A launcher without power closes no connection: TCP would tell the ranks after a quarter of an hour.
    """
    monkeypatch.setattr(ssh, "TICK_S", 0.1)
    wait = "trap 'echo asked' TERM; while :; do sleep 0.02; done"
    start_s = time.monotonic()
    process = start(tmp_path, ["sh", "-c", wait], silence_s=0.5)

    assert (-9, "asked\n") == finished(process)
    assert 0.5 < time.monotonic() - start_s < 5


def test_who_says_here_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    And what no launcher is to be heard of for has no end: the preflight's own programs.
    """
    monkeypatch.setattr(ssh, "TICK_S", 0.1)
    heard, unlimited = (start(tmp_path, ["sleep", "4"], silence_s=silence_s) for silence_s in (2, 0))
    assert heard.stdin
    while heard.poll() is None:
        with contextlib.suppress(BrokenPipeError):
            heard.stdin.write(ssh.HERE)
            heard.stdin.flush()
        time.sleep(0.1)

    assert [0, 0] == [heard.returncode, unlimited.wait(timeout=10)]


def test_one_late_word_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A launcher speaks as often as the script looks, so a look alone proves nothing, however short the time it is given.
    """
    monkeypatch.setattr(ssh, "TICK_S", 1)
    process = start(tmp_path, ["sleep", "3"], silence_s=0.1)
    assert process.stdin
    while process.poll() is None:
        time.sleep(1.3)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(ssh.HERE)
            process.stdin.flush()

    assert 0 == process.returncode


def test_a_host_whose_login_hangs_counts_as_away_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its sshd lets us in, and then a shell waits for a home folder that does not come: no timeout of ssh's own ends that.
    """
    (tmp_path / "ssh").write_text('#!/bin/sh\ncase "$*" in *hung*) exec sleep 60;; *away*) exit 255;; esac\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(ssh, "KNOCK_S", 0.5)
    start_s = time.monotonic()

    assert ["away", "hung"] == ssh.unreachable(["well", "hung", "away"])
    assert time.monotonic() - start_s < 10


def test_no_child_outlives_the_command(tmp_path: Path) -> None:
    """
    It would hold the pipes, and ssh would wait for it for ever.
    """
    status, said = finished(start(tmp_path, ["sh", "-c", "sleep 60 & echo $! > child; echo done; exit 4"]))

    assert (4, "done\n") == (status, said)
    wait_for(lambda: not alive(tmp_path / "child"), seconds=3)
