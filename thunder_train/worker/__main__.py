"""Trains a LoRA adapter: one process per rank, started by thunder_train.launch (or mlx.launch) with launch.sh's flags.

Reads the model, train.jsonl and valid.jsonl, and the last checkpoint of the same training if there is one. Rank 0
writes the adapter folder, last/ and metrics.jsonl beside it, and at the very end done.json; one rank of each host
writes checkpoints.

What cannot change a number (watchdog, trackers, BLAS loading) is passed in from here: the training's code hash covers
train/result.py and everything that it imports, so a change of this file or of the watchdog retrains nothing.
"""

import signal
import sys
import threading

from thunder_train.core.exit_codes import SIGNAL
from thunder_train.worker.args import parse
from thunder_train.worker.bootstrap import enter, remove_files
from thunder_train.worker.watchdog import Watchdog


def main(argv: list[str]) -> None:
    """Train from the beginning or from the last checkpoint."""
    settings = parse(argv)
    # After the flags, so that a mistake in them shows at once: mlx and mlx-lm take two seconds to import.
    from thunder_train.worker import ranks
    from thunder_train.worker.bootstrap import environment, limit_gpu_memory
    from thunder_train.worker.trackers import tracker
    from thunder_train.worker.train import loop, result, setup

    stop = threading.Event()
    with Watchdog(settings.stall_timeout_s, settings.start_timeout_s) as watchdog:
        # Before anything slow: in the ring a rank gives up 31 s after its first attempt to connect.
        group = ranks.join(settings.hostfile, watchdog)
        remove_files()
        limit_gpu_memory()
        ready = setup.prepare(settings, group)
        is_first = group.rank == 0
        place = settings.adapter_path.parent
        names = settings.report_project, settings.report_name
        track = tracker(settings.report_to, *names, place, settings.numeric()) if is_first else None
        run, checkpoint = setup.assemble(settings, ready, watchdog.beat, stop.is_set, track)
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        state = loop.start(run, checkpoint)
        if loop.train(run, state):
            run.save(loop.checkpoint(run, state))
            sys.exit(SIGNAL + signal.SIGTERM)
        result.write(settings, ready, run, state, environment())


if __name__ == "__main__":
    enter(main)
