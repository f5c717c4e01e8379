"""Answers rows without a reference, as generate.py answers test rows: the program of worker/correction.py.

It takes the flags of an evaluation, so that evaluate.sh can start it, with two of its own. The ranks of a hostfile
share the work.
"""

import itertools

from thunder_train.worker.bootstrap import enter, remove_files
from thunder_train.worker.evaluate_args import Correction, parsed
from thunder_train.worker.watchdog import Watchdog


def main(argv: list[str]) -> None:
    """Answer all rows with the adapter."""
    task = parsed(Correction, argv, "thunder_train.worker.correct", "answer rows that have no reference")
    # After the flags, so that a mistake in them shows at once: mlx and mlx-lm take two seconds to import.
    from thunder_train.worker import correction, ranks, saved_adapter

    steps = itertools.count(1)
    with Watchdog(task.stall_timeout_s, task.start_timeout_s) as watchdog:
        group = ranks.join(task.hostfile, watchdog)
        remove_files()
        group = ranks.weighted(group, task.weights)
        with saved_adapter.on_every_rank(task.adapter_path, group) as adapter:
            correction.correct(task, adapter, group, lambda: watchdog.beat(next(steps)))


if __name__ == "__main__":
    enter(main)
