"""Evaluates base model and adapter on rows that they were not trained on: losses, and greedy answers for the host.

Reads model, adapter, valid.jsonl and test.jsonl, and train.jsonl for the length of answers. The ranks of a hostfile
share the work. Rank 0 writes losses.json and predictions.jsonl. Nothing is sampled, so the same inputs give the same
bytes, for any number of ranks and of interruptions.
"""

import itertools

from thunder_train.worker.bootstrap import enter, remove_files
from thunder_train.worker.evaluate_args import parse
from thunder_train.worker.watchdog import Watchdog


def main(argv: list[str]) -> None:
    """Measure losses and answer with the base model, then with the adapter on it."""
    task = parse(argv)
    # After the flags, so that a mistake in them shows at once: mlx and mlx-lm take two seconds to import.
    from thunder_train.worker import evaluation, ranks, saved_adapter
    from thunder_train.worker.bootstrap import environment

    steps = itertools.count(1)
    with Watchdog(task.stall_timeout_s, task.start_timeout_s) as watchdog:
        group = ranks.join(task.hostfile, watchdog)
        remove_files()
        group = ranks.weighted(group, task.weights)
        with saved_adapter.on_every_rank(task.adapter_path, group) as adapter:
            losses, answers = evaluation.evaluate(task, adapter, group, lambda: watchdog.beat(next(steps)))
    if group.rank == 0:
        evaluation.write(task, {"environment": environment(), **losses}, answers)


if __name__ == "__main__":
    enter(main)
