"""The flags of an evaluation, as evaluate.sh passes them to generate.py.

They are apart from args.py because a training's code hash covers that file, and [evaluate] changes no training.
"""
# ruff: noqa: RUF009  (a call per flag is how flags are declared)

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from thunder_train import ThunderError, raise_all
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.train import Train
from thunder_train.worker.args import Inputs, flag, key_of, parser_of, problems


@dataclass(frozen=True, kw_only=True)
class Task(Inputs):
    """The flags of an evaluation, one field per flag."""

    adapter_path: Path = flag(help="Folder of the adapter, on the first rank's machine", type=Path)
    train_data: Path | None = flag(
        help="Training rows, whose answers decide how long answers may be", type=Path, default=None
    )
    test_data: Path = flag(help="Test rows, ChatML as JSONL, to measure the loss on and to answer", type=Path)
    max_seq_len: int = key_of(Train, "max_seq_len")
    max_tokens: int = key_of(Evaluate, "max_tokens")
    batch_size: int = key_of(Evaluate, "batch_size")
    stall_timeout_s: int = key_of(Train, "stall_timeout_s")
    start_timeout_s: int = key_of(Train, "start_timeout_s")
    partial: Path | None = flag(
        help="Folder for answers, from which a stopped evaluation resumes", type=Path, default=None
    )
    predictions: Path = flag(help="JSONL file to write", type=Path)
    losses: Path = flag(help="JSON file to write", type=Path)


@dataclass(frozen=True, kw_only=True)
class Correction(Task):
    """The flags of a correction: those of the evaluation whose answers it gives. It does not write its outputs."""

    rows: Path = flag(help="Folder of rows-N.jsonl, the prompts to answer", type=Path)
    answers: Path = flag(help="Folder of answers-N.jsonl, to write", type=Path)


@dataclass(frozen=True, kw_only=True)
class Fusing(Task):
    """The flags of fusing: those of the evaluation whose model and rows it takes; `losses` gets the comparison."""

    fused: Path = flag(help="Folder to write; it must not exist", type=Path)
    dequantize: bool = flag(
        help="Unpack the weights: a larger folder, and nothing is rounded",
        type=lambda text: text == "true",
        default=False,
    )


Kind = TypeVar("Kind", bound=Task)


def parse(argv: list[str]) -> Task:
    """The task of an evaluation's command line. Raises ThunderError with every bad value."""
    description = "measure losses and answers of base model and adapter; one such process per rank"
    return parsed(Task, argv, "thunder_train.worker.generate", description)


def parsed(kind: type[Kind], argv: list[str], program: str, description: str) -> Kind:
    """The task of the command line of any program that answers as an evaluation does."""
    task = kind(**vars(parser_of(kind, program, description).parse_args(argv)))
    broken = problems(task)
    if task.max_tokens == 0 and task.train_data is None:
        what, hint = (
            "0 takes the length from the training rows, which are not given",
            "give --train-data, or a number of tokens",
        )
        broken.append(ThunderError(what, where="--max-tokens", hint=hint))
    raise_all(broken)
    return task
