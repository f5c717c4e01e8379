"""ssh to another host: its options, and the script that runs a command there and ends it with all its children.

The command, its environment and its folder travel in the script, over stdin, because every user of either machine can
read command lines with `ps`.
"""

import math
import shlex
import subprocess
import time
from collections.abc import Iterable, Mapping

OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
)
"""No prompt, no unknown host, no endless wait, no connection back into this machine."""
LOGIN_TIMEOUT_S = 15.0
"""A host with a slower login counts as unreachable, whatever its sshd answers: its home directory may hang."""
TERMINATE, KEEP_ALIVE = b"end\n", b"here\n"
"""Lines for the script's stdin: send SIGTERM to the command; this machine still follows the command."""
TICK_S = 5
"""Seconds between two checks by the script of when it last read a keep-alive; also seconds between two keep-alives."""
MIN_TICKS = 3
"""Missed ticks before the script gives up: two keep-alives can be almost two ticks apart."""
NO_LIMIT_TICKS = 10**9
SCRIPT = """exec 2>&1 3<&0
cd -- {folder} || {{ echo {no_folder}; exit 2; }}
command -v {program} >/dev/null || {{ echo {no_program}; exit 2; }}
program={program}
case $program in */*) program=$(CDPATH='' cd -P -- "${{program%/*}}" && pwd)/${{program##*/}} ;; esac
{exports}
{{
"$program" {arguments} </dev/null 3<&- & command=$!
case $(uname) in Darwin) caffeinate -is -w "$command" </dev/null >/dev/null 2>&1 3<&- & ;; esac
{{
  (while read -r word; do echo "$word"; done; echo gone) <&3 &
  while sleep {tick_s}; do echo tick; done 3<&-
}} 2>/dev/null | {{
  left={ticks}
  while read -r word; do
    case $word in
      here) left={ticks} ;;
      tick) left=$((left - 1)); [ "$left" -ge 0 ] || kill -KILL 0; [ "$left" -gt 0 ] || kill -TERM "$command" ;;
      end) kill -TERM "$command" ;;
      gone) kill -KILL 0 ;;
    esac
  done
}} 3<&- >/dev/null 2>&1 &
exec 3<&-
wait "$command" 2>/dev/null; status=$?
trap '' TERM; kill -TERM 0
exit "$status"
}}
"""
"""For any POSIX shell. The program gets a path without links: .venv is a link to one of several environments, which
./doit may change while the command runs. Braces around the body make the shell read all of stdin's script before
it starts anything.

The last loop runs beside the command, so it can end even a stuck one. When stdin ends it kills the whole group. Stdin
does not end if the other machine loses power; then no keep-alive arrives, and the loop sends SIGTERM and, one tick
later, kills the group. caffeinate keeps a Mac awake until the command ends (untested on a Mac).
"""


def argv(host: str, command: str) -> list[str]:
    """The ssh command line that runs a command on a host; the command must be quoted for the login shell there."""
    return ["ssh", "-T", *(word for option in OPTIONS for word in ("-o", option)), "--", host, command]


def script_argv(host: str) -> list[str]:
    """The ssh command line that runs, on a host, the script written to its stdin. Every login shell understands it."""
    return argv(host, "exec /bin/sh -s")


def script(command: list[str], env: Mapping[str, str], folder: str, silence_s: float = 0.0) -> bytes:
    """The script for script_argv: run the command in folder with env added, and end it when asked or left alone.

    TERMINATE on stdin sends the command SIGTERM. The end of stdin kills it and its children; so do silence_s seconds
    (at least MIN_TICKS * TICK_S) without KEEP_ALIVE, unless silence_s is 0. Exit status: the command's, 128 + its
    signal, or 2 if the folder or the program is missing.
    """
    no_folder = f"no folder {folder} on this host; copy the project there"
    no_program = f"no {command[0]} in {folder} on this host; run ./doit list there, or correct `python`"
    text = SCRIPT.format(
        folder=shlex.quote(folder),
        program=shlex.quote(command[0]),
        no_folder=shlex.quote(no_folder),
        no_program=shlex.quote(no_program),
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())),
        arguments=shlex.join(command[1:]),
        tick_s=TICK_S,
        ticks=max(MIN_TICKS, math.ceil(silence_s / TICK_S)) if silence_s else NO_LIMIT_TICKS,
    )
    return text.encode()


def unreachable(hosts: Iterable[str]) -> list[str]:
    """The hosts, sorted, that allow no login within LOGIN_TIMEOUT_S; all are tried at once."""
    logins = {
        host: subprocess.Popen(
            argv(host, "exit 0"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for host in sorted(set(hosts))
    }
    limit = time.monotonic() + LOGIN_TIMEOUT_S
    return [host for host, login in logins.items() if not _succeeds(login, limit)]


def _succeeds(login: "subprocess.Popen[bytes]", limit: float) -> bool:
    """Whether a process ends with status 0 before limit, a time of time.monotonic; else it is killed."""
    try:
        return login.wait(timeout=max(0.0, limit - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        login.kill()
        login.wait()
        return False
