"""The one way to another machine: ssh's options, and a script on its stdin that runs a command there and ends it.

A command line is seen by everyone who types `ps`, here and there; what comes over stdin is not.
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
"""No prompt, no unknown host, no wait without end, no way back into this machine."""
END, HERE = b"end\n", b"here\n"
"""Written to a script's stdin: the first sends the command SIGTERM, the second says that somebody still listens."""
TICK_S = 5
"""Seconds between two looks of a script at the time since it heard of anybody; written to it about as often."""
LEAST_TICKS = 3
"""Less silence than this proves nothing: two words of a launcher may be nearly two ticks apart."""
NEVER = 10**9
KNOCK_S = 15.0
"""A host that has let nobody in by then is as good as away, whatever its sshd says: its home may hang."""
SCRIPT = """exec 2>&1 3<&0
cd -- {folder} || {{ echo {no_folder}; exit 2; }}
command -v {program} >/dev/null || {{ echo {no_program}; exit 2; }}
{exports}
{{
{argv} </dev/null 3<&- & command=$!
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
"""For any POSIX shell, read from stdin. In braces, for then the shell has read it all before it starts anything.

The last loop outlives every way in which the command may be stuck: when stdin ends, for whatever reason, all dies. Who
listens may be gone without an end of stdin, as a machine without power is: then SIGTERM, and a tick later all dies.
"""


def argv(host: str, command: str) -> list[str]:
    """ssh to host; command is for the login shell there, and must be quoted for it."""
    return ["ssh", "-T", *(word for option in OPTIONS for word in ("-o", option)), "--", host, command]


def run_script(host: str) -> list[str]:
    """ssh to host, and there a shell that reads a script from stdin. A login shell of any kind understands it."""
    return argv(host, "exec /bin/sh -s")


def script(command: list[str], env: Mapping[str, str], folder: str, silence_s: float = 0.0) -> bytes:
    """What run_script is to read: the command with env in folder, under a guard.

    An `end` line on stdin sends the command SIGTERM; the end of stdin kills it and all that it started, and so do
    silence_s seconds, 15 at least, without a `here` line, unless 0. Exit status: the command's, 128 + its signal, or 2
    when folder or program is missing.
    """
    missing = f"no folder {folder} on this host; bring the project there"
    no_program = f"no {command[0]} in {folder} on this host; run ./doit list there once, or mend `python`"
    text = SCRIPT.format(
        folder=shlex.quote(folder),
        program=shlex.quote(command[0]),
        no_folder=shlex.quote(missing),
        no_program=shlex.quote(no_program),
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())),
        argv=shlex.join(command),
        tick_s=TICK_S,
        ticks=max(LEAST_TICKS, math.ceil(silence_s / TICK_S)) if silence_s else NEVER,
    )
    return text.encode()


def unreachable(hosts: Iterable[str]) -> list[str]:
    """Hosts, sorted, that do not let us in now; all are asked at once, for KNOCK_S at most."""
    asked = {
        host: subprocess.Popen(
            argv(host, "exit 0"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for host in sorted(set(hosts))
    }
    limit = time.monotonic() + KNOCK_S
    return [host for host, process in asked.items() if not _is_well(process, limit)]


def _is_well(process: "subprocess.Popen[bytes]", limit: float) -> bool:
    """Whether it ends in time and without an error; it is killed at the limit, a time of time.monotonic."""
    try:
        return process.wait(timeout=max(0.0, limit - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
