"""Train a LoRA adapter: one process per rank, started by thunder_train.launch (or mlx.launch) with launch.sh's flags.

Reads the model, train.jsonl and valid.jsonl, and the last checkpoint of the same training if there is one. Rank 0
writes checkpoints, the adapter folder, last/ and metrics.jsonl beside it, and at the very end done.json.

This module hands in what cannot change a number (watchdog, trackers, BLAS loading): the code that decides a training's
numbers is that of setup.py, loop.py and result.py and what they import.
"""

import signal
import sys
import threading

from thunder_train.core.exit_codes import SIGNAL
from thunder_train.worker.args import parse
from thunder_train.worker.bootstrap import enter, remove_files
from thunder_train.worker.watchdog import Watchdog


def main(argv: list[str]) -> None:
    """Train as the flags say, from the beginning or from the last checkpoint."""
    settings = parse(argv)
    # Below the flags: mlx and mlx-lm take two seconds to import, and BLAS had to be loaded first.
    from thunder_train.worker import ranks
    from thunder_train.worker.bootstrap import environment
    from thunder_train.worker.trackers import tracker
    from thunder_train.worker.train import loop, result, setup

    stop = threading.Event()
    with Watchdog(settings.stall_timeout_s, settings.start_timeout_s) as watchdog:
        # Before anything slow: a rank that connects 31 s later than another finds nobody.
        group = ranks.join(settings.hostfile, watchdog)
        remove_files()
        ready = setup.prepare(settings, group)
        is_first = group.rank == 0
        track = tracker(settings.report_to, settings.adapter_path.parent, settings.numeric()) if is_first else None
        run, checkpoint = setup.assemble(settings, ready, watchdog.beat, stop.is_set, track)
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        state = loop.start(run, checkpoint)
        if loop.train(run, state):
            run.save(loop.checkpoint(run, state))
            sys.exit(SIGNAL + signal.SIGTERM)
        result.write(settings, ready, run, state, environment())


if __name__ == "__main__":
    enter(main)
