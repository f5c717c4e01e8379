"""A training rank that runs in its own folder, rank-0, rank-1 ..., as on a separate machine."""

import os
import sys

from thunder_train.worker.__main__ import main
from thunder_train.worker.bootstrap import enter

if __name__ == "__main__":
    os.chdir(f"rank-{os.environ['MLX_RANK']}")
    # The launcher adds its own hostfile last, as a path relative to where the launcher was started.
    sys.argv = [f"../{argument}" if argument.endswith("hosts.json") else argument for argument in sys.argv]
    enter(main)
