"""`python -m thunder_train.launch`: start the ranks of a hostfile, end them together, restart them after a failure.

Reads hostfile.json; writes LOG_DIR/rank-N.log. Exits with 0 only if every rank did. mlx.launch exits with 0 even when
every rank has failed, and uses a whole core while it waits; hence this launcher. MLX's own backend moves the tensors.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from thunder_train import ThunderError, raise_all
from thunder_train.core import awake, hostfiles, terminal
from thunder_train.core.exit_codes import MISTAKE, SIGNAL
from thunder_train.launch import restarts
from thunder_train.launch.rank_process import Command
from thunder_train.launch.restarts import Job
from thunder_train.launch.supervisor import Limits


def _job(flags: argparse.Namespace, rest: list[str]) -> Job:
    """The job that the flags describe. Raises ThunderError with every bad flag."""
    numbers = {
        name: getattr(flags, name) for name in ("stall_timeout", "start_timeout", "max_restarts", "host_timeout")
    }
    raise_all(
        [
            ThunderError(f"must be 0 or more, not {value:g}", where=f"--{name.replace('_', '-')}")
            for name, value in numbers.items()
            if value is not None and not 0 <= value < float("inf")
        ]
    )
    limits = Limits(flags.stall_timeout or 0.0, flags.start_timeout or 0.0)
    passed_on = ["--hostfile", str(flags.hostfile)]
    for name, seconds in (("--stall-timeout", flags.stall_timeout), ("--start-timeout", flags.start_timeout)):
        passed_on += [name, f"{seconds:g}"] if seconds is not None else []
    command = Command(flags.module, (*rest, *passed_on), flags.folder, flags.python, flags.host_timeout)
    description = hostfiles.with_addresses(hostfiles.read(flags.hostfile))
    return Job(flags.hostfile, description, flags.log_dir, command, limits, flags.host_timeout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thunder_train.launch",
        description="start one rank per host; all other flags go to the module",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--hostfile", type=Path, required=True, help="hosts and backend; passed on to the module")
    add("--log-dir", type=Path, required=True, help="folder of rank-N.log")
    add("--module", default="thunder_train.worker", help="what each rank runs")
    add("--folder", default=".", help="project folder on other hosts")
    add("--python", default="python3", help="interpreter on other hosts, relative to their folder")
    add("--stall-timeout", type=float, help="longest step in seconds, 0 = no limit; passed on to the module if given")
    add("--start-timeout", type=float, help="the same until the first step completes")
    add("--max-restarts", type=int, default=0, help="restarts after a failure other than a mistake")
    text = "seconds that a restart waits for unreachable hosts, and that their ranks run on without this launcher"
    add("--host-timeout", type=float, default=300.0, help=text)
    return parser


def main(argv: list[str]) -> NoReturn:
    """Launch as the flags say; exit with the ranks' status, or with 2 and one line per mistake."""
    flags, rest = _parser().parse_known_args(argv)
    try:
        job = _job(flags, rest)
        with awake.kept_awake():
            status = restarts.run(job, flags.max_restarts)
        sys.exit(status)
    except ThunderError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)
    except BrokenPipeError:  # nobody reads the ranks' lines any more, as after `| head`; the ranks have ended by now
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes once more as it ends
        sys.exit(SIGNAL + signal.SIGPIPE)
    except OSError as error:
        print(f"{error.filename or 'the output'}: cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    terminal.guard()
    main(sys.argv[1:])
