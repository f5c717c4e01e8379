"""`python -m thunder_train.cli`: doit with this project's commands. ./doit starts it."""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: no traceback; ending.run has its own way

from thunder_train import PROGRAM
from thunder_train.cli import ending
from thunder_train.core import caller


def main() -> int:
    """Run the command line and return its exit status."""
    from thunder_train.cli.program import Program  # late: doit takes sys.stdout as it is when it is imported

    return Program().run(sys.argv[1:])


def thunder() -> None:
    """The program `thunder` of an installed package: doit in the project around the current folder, or `init`."""
    os.environ.setdefault(PROGRAM, "thunder")
    caller.was_in(os.getcwd())
    sys.argv[0] = "thunder"
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / "thunder.toml").is_file()), None)
    if project and sys.argv[1:2] != ["init"]:
        os.chdir(project)
    sys.exit(ending.run(main))


if __name__ == "__main__":
    sys.argv[0] = "doit"  # doit names itself by it
    if sys.flags.safe_path:  # ./doit asked for it: no random.py of the project stands in for Python's own
        os.environ["PYTHONSAFEPATH"] = "1"
    sys.exit(ending.run(main))
