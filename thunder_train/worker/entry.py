"""How every worker program starts and ends: watchdog, files from the launcher, BLAS, one clean line for a mistake."""

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from thunder_train import ThunderError
from thunder_train.worker.blas import preload
from thunder_train.worker.errors import RanksLostError
from thunder_train.worker.watchdog import follow_launcher

FILE_PREFIX = "THUNDER_FILE_"
MPI_RANK = "OMPI_COMM_WORLD_RANK"
"""Set in every rank of Open MPI."""
MISTAKE = 2
"""Exit status of a user's mistake."""
LOST = 75
"""Exit status of a rank that lost the others: the launcher looks for the cause among those, and may start all again."""


def enter(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a worker program's main with the command line and exit: 0, or 2 with one line per mistake on stderr.

    75 when the other ranks are gone.
    """
    follow_launcher()
    with _failing_at_once():
        try:
            unpack_files()
            preload()
            main(sys.argv[1:])
        except ThunderError as error:
            sys.stdout.flush()
            print(error, file=sys.stderr, flush=True)
            sys.exit(LOST if isinstance(error, RanksLostError) else MISTAKE)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        finally:
            remove_files()
    sys.exit(0)


@contextlib.contextmanager
def _failing_at_once() -> Iterator[None]:
    """At a Python's end MLX waits in MPI_Finalize for the other MPI ranks; one that has failed must not."""
    try:
        yield
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if MPI_RANK not in os.environ or not isinstance(status, int) or status == 0:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def unpack_files() -> None:
    """For each THUNDER_FILE_<NAME>=content write a temporary file and set <NAME> to its path.

    So the launcher needs no file on another machine.
    """
    for name in _file_names():
        number, path = tempfile.mkstemp(prefix="thunder-")
        with open(number, "w", encoding="utf-8") as file:
            file.write(os.environ[FILE_PREFIX + name])
        os.environ[name] = path


def remove_files() -> None:
    """Remove what unpack_files wrote; once MLX has read them, so that a killed rank leaves none behind."""
    for name in _file_names():
        Path(os.environ[name]).unlink(missing_ok=True)


def _file_names() -> list[str]:
    return sorted(name.removeprefix(FILE_PREFIX) for name in os.environ if name.startswith(FILE_PREFIX))
