"""Evaluates base model and adapter on rows that they were not trained on: losses, and greedy answers for the host.

Reads model, adapter, valid.jsonl and test.jsonl, and train.jsonl for the length of answers. The ranks of a hostfile
share the work. Rank 0 writes losses.json and predictions.jsonl. Nothing is sampled, so the same inputs give the same
bytes, for any number of ranks and of interruptions.
"""

import itertools
from pathlib import Path

from thunder_train import ThunderError, raise_all
from thunder_train.worker.args import Parser, Task, weights
from thunder_train.worker.bootstrap import enter, remove_files
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


def parse(argv: list[str]) -> Task:
    """The task of a command line. Raises ThunderError with every bad value."""
    task = Task(**vars(_parser().parse_args(argv)))
    least = {"max_seq_len": 1, "max_tokens": 0, "batch_size": 1, "stall_timeout_s": 0, "start_timeout_s": 0}
    problems = [
        ThunderError(f"must be {low} or more, not {getattr(task, name):g}", where=_flag(name))
        for name, low in least.items()
        if not low <= getattr(task, name) < float("inf")
    ]
    if task.max_tokens == 0 and task.train_data is None:
        hint = "give --train-data, or a number of tokens"
        fact = "0 takes the length from the training rows, which are not given"
        problems.append(ThunderError(fact, where="--max-tokens", hint=hint))
    raise_all(problems)
    return task


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_s').replace('_', '-')}"


def _parser() -> Parser:
    parser = Parser(
        prog="thunder_train.worker.generate",
        description="measure losses and answers of base model and adapter; one such process per rank",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="mlx-lm folder, or hub id that is already in the cache")
    add("--model-lock", default="", help="model.lock.json, which pins the commit of a hub id")
    add("--adapter-path", type=Path, required=True, help="folder of the adapter, on the first rank's machine")
    add("--train-data", type=Path, default=None, help="ChatML rows whose answers decide how long answers may be")
    add("--valid-data", type=Path, required=True, help="ChatML rows to measure the loss on")
    add("--test-data", type=Path, required=True, help="ChatML rows to measure the loss on and to answer")
    add("--token-cache", type=Path, default=None, help="folder for cached tokens")
    add("--max-seq-len", type=int, default=512, help="most tokens of a row whose loss is measured")
    add("--max-tokens", type=int, default=0, help="most tokens of an answer; 0: derived from the answers in the data")
    add("--batch-size", type=int, default=8, help="rows that are computed together")
    add("--hostfile", type=Path, default=None, help="backend and hosts; default: a single process")
    add("--weights", type=weights, default=(), help="relative speed of each rank, as 2.0,1.0; default: all equal")
    for name, text in (("stall", "for a round of batches"), ("start", "until the first batch")):
        help_text = f"most seconds {text}; 0: no limit"
        add(f"--{name}-timeout", dest=f"{name}_timeout_s", type=float, default=0.0, help=help_text)
    add("--partial", type=Path, default=None, help="folder for answers, from which a killed evaluation resumes")
    add("--predictions", type=Path, required=True, help="JSONL file to write")
    add("--losses", type=Path, required=True, help="JSON file to write")
    return parser


if __name__ == "__main__":
    enter(main)
