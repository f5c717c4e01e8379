"""The script that guards a command on another host, here run by this machine's shell; tests/system/cluster uses ssh."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.mac_tools import caffeinate, tool
from tests.helpers.processes import alive
from tests.helpers.project_copy import wait_for
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
        stderr=subprocess.DEVNULL,  # ssh would send it apart from stdout, and out of order
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
    output = process.stdout.read().decode()
    status = process.wait(timeout=10)
    process.communicate()
    return status, output


def test_options_prompt_for_nothing_trust_no_new_host_and_open_no_way_back() -> None:
    """
    A prompt would hang a run overnight; a forwarded agent would lend our keys to every host.
    """
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=10"]
    options += ["ServerAliveCountMax=3", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes"]
    options += ["PermitLocalCommand=no"]
    flags = [word for option in options for word in ("-o", option)]

    assert ["ssh", "-T", *flags, "--", "mac4", "exec /bin/sh -s"] == ssh.script_argv("mac4")


def test_the_program_keeps_its_environment_while_the_link_to_it_changes(tmp_path: Path) -> None:
    """
    `.venv` is a link: a rank that was started through it would import from the next environment once there is one.
    """
    (tmp_path / ".venv-1/bin").mkdir(parents=True)
    (tmp_path / ".venv").symlink_to(".venv-1")
    (tmp_path / ".venv-1/bin/python").symlink_to("/bin/sh")
    (tmp_path / ".venv-1/bin/python").unlink()
    (tmp_path / ".venv-1/bin/python").write_text('#!/bin/sh\necho "$0 $@"\n')
    (tmp_path / ".venv-1/bin/python").chmod(0o755)

    assert (0, f"{tmp_path}/.venv-1/bin/python a b\n") == finished(start(tmp_path, [".venv/bin/python", "a b"]))


def test_command_environment_and_folder_arrive_unchanged(tmp_path: Path) -> None:
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
    Every user of a machine can read command lines, and the environment may hold a token.
    """
    process = start(tmp_path, ["sh", "-c", "ps ax -o args"], {"TOKEN": "secret word"})

    assert "secret word" not in finished(process)[1]


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], 3, "out\nerr\n"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such"], 2, "no no-such in here on this host; run ./doit list there, or correct `python`\n"),
    ],
)
def test_the_exit_status_is_that_of_the_command(tmp_path: Path, command: list[str], status: int, output: str) -> None:
    """
    A signal is reported as the shell does, and a missing program as a mistake, which no restart repeats.
    """
    (tmp_path / "here").mkdir()

    assert (status, output) == finished(start(tmp_path / "here", command))


def test_a_missing_folder_is_a_mistake_that_names_it(tmp_path: Path) -> None:
    """
    mlx.launch carries on in the wrong one.
    """
    status, output = finished(start(tmp_path / "it's gone", ["true"]))

    assert 2 == status
    assert output.endswith("no folder it's gone on this host; copy the project there\n")


def test_the_line_end_is_sigterm(tmp_path: Path) -> None:
    """
    ssh passes no signal on, and a rank writes a checkpoint when it gets SIGTERM.
    """
    wait = "trap 'echo saved; exit 143' TERM; echo up; while :; do sleep 0.05; done"
    process = start(tmp_path, ["sh", "-c", wait])
    assert process.stdin
    assert process.stdout
    assert b"up\n" == process.stdout.readline()
    process.stdin.write(ssh.TERMINATE)
    process.stdin.flush()

    assert (143, "saved\n") == finished(process)


def test_the_end_of_stdin_kills_even_a_stopped_command_and_its_children(tmp_path: Path) -> None:
    """
    This ends a rank whose launcher was killed with -9, whatever MLX does with its threads.
    """
    process = start(tmp_path, ["sh", "-c", "sleep 60 & echo $! > child; echo $$ > new; mv new self; kill -STOP $$"])
    wait_for(lambda: (tmp_path / "self").exists())
    time.sleep(0.1)
    process.communicate(timeout=10)

    wait_for(lambda: not alive(tmp_path / "self") and not alive(tmp_path / "child"), seconds=3)


def test_silence_leads_to_sigterm_and_then_to_sigkill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A machine that loses power closes no connection: TCP would notice after a quarter of an hour.
    """
    monkeypatch.setattr(ssh, "TICK_S", 0.1)
    wait = "trap 'echo asked' TERM; while :; do sleep 0.02; done"
    start_s = time.monotonic()
    process = start(tmp_path, ["sh", "-c", wait], silence_s=0.5)

    assert (-9, "asked\n") == finished(process)
    assert 0.5 < time.monotonic() - start_s < 5


def test_keep_alives_keep_the_command_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without a limit of silence, as for the preflight's programs, none are needed.
    """
    monkeypatch.setattr(ssh, "TICK_S", 0.1)
    kept_alive, unlimited = (start(tmp_path, ["sleep", "4"], silence_s=silence_s) for silence_s in (2, 0))
    assert kept_alive.stdin
    while kept_alive.poll() is None:
        with contextlib.suppress(BrokenPipeError):
            kept_alive.stdin.write(ssh.KEEP_ALIVE)
            kept_alive.stdin.flush()
        time.sleep(0.1)

    assert [0, 0] == [kept_alive.returncode, unlimited.wait(timeout=10)]


def test_one_late_keep_alive_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Keep-alives come as often as the script checks, so one missed tick proves nothing, however short the limit.
    """
    monkeypatch.setattr(ssh, "TICK_S", 1)
    process = start(tmp_path, ["sleep", "3"], silence_s=0.1)
    assert process.stdin
    while process.poll() is None:
        time.sleep(1.3)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(ssh.KEEP_ALIVE)
            process.stdin.flush()

    assert 0 == process.returncode


def test_a_host_whose_login_hangs_counts_as_unreachable_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its sshd accepts us, and then a shell waits for a home directory that hangs: no timeout of ssh ends that.
    """
    (tmp_path / "ssh").write_text('#!/bin/sh\ncase "$*" in *hung*) exec sleep 60;; *away*) exit 255;; esac\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(ssh, "LOGIN_TIMEOUT_S", 0.5)
    start_s = time.monotonic()

    assert ["away", "hung"] == ssh.unreachable(["well", "hung", "away"])
    assert time.monotonic() - start_s < 10


def test_no_child_outlives_the_command(tmp_path: Path) -> None:
    """
    It would hold the pipes open, and ssh would wait for it forever.
    """
    status, output = finished(start(tmp_path, ["sh", "-c", "sleep 60 & echo $! > child; echo done; exit 4"]))

    assert (4, "done\n") == (status, output)
    wait_for(lambda: not alive(tmp_path / "child"), seconds=3)


@pytest.mark.parametrize(("system", "is_awake"), [("Darwin", True), ("Linux", False)])
def test_a_mac_stays_awake_while_a_command_runs_there(
    system: str, is_awake: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A rank's host sleeps otherwise when nobody uses it. uname and caffeinate are scripts: untested on a Mac.
    """
    pid, flags = caffeinate(tmp_path, monkeypatch)
    tool(tmp_path, "uname", f"echo {system}", monkeypatch)
    command = ["sh", "-c", f"echo $$; sleep 0.2; test -e '{flags}'"]
    status, output = finished(start(tmp_path, command))

    assert (0 if is_awake else 1) == status
    if is_awake:
        assert f"-is -w {output.strip()}\n" == flags.read_text()
        wait_for(lambda: not alive(pid), seconds=3)
