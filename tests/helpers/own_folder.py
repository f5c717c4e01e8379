"""A training whose ranks lie in folders of their own, rank-0, rank-1 ..., as on machines of their own."""

import os
import sys

from thunder_train.worker.__main__ import main
from thunder_train.worker.bootstrap import enter

if __name__ == "__main__":
    os.chdir(f"rank-{os.environ['MLX_RANK']}")
    # The launcher passes its own hostfile on last, as a path from where it was started.
    sys.argv = [f"../{word}" if word.endswith("hosts.json") else word for word in sys.argv]
    enter(main)
