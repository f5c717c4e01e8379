"""What base and adapter make of the rows they were not trained on: losses, and greedy answers for the host to score.

Reads model, adapter, valid.jsonl and test.jsonl, and train.jsonl for the length of answers. The ranks of a hostfile
share the work. Rank 0 writes losses.json and predictions.jsonl: no sampling, so the same inputs give the same bytes,
however many ranks there are and however often the work was interrupted.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, files, raise_all
from thunder_train.worker.entry import Parser, enter
from thunder_train.worker.settings import weights
from thunder_train.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from thunder_train.worker.answers import Answer
    from thunder_train.worker.ranks import Ranks

CODE = 1
"""Raise it when the same inputs get other answers: kept ones are then made again."""
CONDITIONS = ("base", "adapter")
Answers = dict[str, list["Answer"]]
"""By condition, in the order of the test rows."""


@dataclass(frozen=True)
class Task:
    """One field per flag; `--help` says what each means."""

    model: str
    model_lock: str
    adapter_path: Path
    train_data: Path | None
    valid_data: Path
    test_data: Path
    token_cache: Path | None
    max_seq_len: int
    max_tokens: int
    batch_size: int
    hostfile: Path | None
    weights: tuple[float, ...]
    stall_timeout_s: float
    start_timeout_s: float
    partial: Path | None
    predictions: Path
    losses: Path


def main(argv: list[str]) -> None:
    """Score and generate with the base, then with the adapter on it."""
    task = parse(argv)
    # Below the flags: mlx and mlx-lm take two seconds to import, and BLAS had to be loaded first.
    from thunder_train.worker import ranks, trained

    steps = itertools.count(1)
    with Watchdog(task.stall_timeout_s, task.start_timeout_s) as watchdog:
        group = ranks.weighted(ranks.join(task.hostfile, watchdog), task.weights)
        with trained.adapter(task.adapter_path, group) as adapter:
            losses, answers = evaluate(task, adapter, group, lambda: watchdog.beat(next(steps)))
    if group.rank == 0:
        rows = enumerate(files.read_jsonl(task.test_data))
        lines = [prediction(row, {name: answers[name][number] for name in CONDITIONS}) for number, row in rows]
        files.write_text(task.predictions, "".join(map(files.json_line, lines)))
        files.write_json(task.losses, losses)


def parse(argv: list[str]) -> Task:
    """The task of a command line. Raises ThunderError with every bad value."""
    task = Task(**vars(_parser().parse_args(argv)))
    least = {"max_seq_len": 1, "max_tokens": 0, "batch_size": 1, "stall_timeout_s": 0, "start_timeout_s": 0}
    found = [
        ThunderError(f"must be {low} or more, not {getattr(task, name):g}", where=_flag(name))
        for name, low in least.items()
        if not low <= getattr(task, name) < float("inf")
    ]
    if task.max_tokens == 0 and task.train_data is None:
        mend = "give --train-data, or a number of tokens"
        found.append(ThunderError("0 takes the length from the training rows", where="--max-tokens", mend=mend))
    raise_all(found)
    return task


def evaluate(task: Task, adapter: Path, group: "Ranks", tick: Callable[[], None]) -> tuple[dict[str, Any], Answers]:
    """(what losses.json holds, the answers), the same on every rank. adapter: its folder; tick: tells of progress."""
    from thunder_train.worker import agreement, answers, losses, model, tokens, trained
    from thunder_train.worker.environment import environment
    from thunder_train.worker.kept import Kept

    told = identity(task, adapter)
    agreement.check_identity(told, group, "evaluate")
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    splits = {name: tokens.read_all(path, tokenizer, cache=task.token_cache) for name, path in read_for(task).items()}
    most = task.max_tokens or answers.cap([*splits["train"], *splits["valid"]])
    kept = Kept(task.partial if group.rank == 0 else None, told)
    session = answers.Session(network, tokenizer, most, task.batch_size, group, kept, tick)
    found: dict[str, Any] = {
        "environment": environment(),
        "max_tokens": most,
        "adapter_sha256": files.sha256(adapter / trained.NAMES[0]),
    }
    said: Answers = {}
    for condition in CONDITIONS:
        if condition == "adapter":
            trained.put_on(network, adapter)
        found[condition] = {
            name: losses.measure(network, splits[name], task.max_seq_len, task.batch_size, group, tick)
            for name in ("valid", "test")
        }
        said[condition] = answers.answer_all(session, splits["test"], condition)
    return found, said


def identity(task: Task, adapter: Path) -> dict[str, str]:
    """The evaluation in words: all that decides its numbers. The number of ranks does not."""
    import mlx.core as mx

    from thunder_train.worker import agreement, trained

    rows = {f"--{name}-data": path for name, path in read_for(task).items()}
    for flag, path in rows.items():
        files.require(path, mend=f"run `./doit data`, or correct {flag}")
    return agreement.identity(
        flags={name: getattr(task, name) for name in ("max_seq_len", "max_tokens", "batch_size")},
        paths=rows | {name: adapter / name for name in trained.NAMES},
        model=model_digest(task),
        versions={
            "code": str(CODE),
            "mlx": version("mlx"),
            "mlx-lm": version("mlx-lm"),
            "device": mx.default_device().type.name,
        },
    )


def model_digest(task: Task) -> str:
    """The model by the hashes of its lock; without one by all files of its folder."""
    if task.model_lock:
        return files.digest(files.read_json(task.model_lock, mend="run `./doit model`").get("files"))[:16]
    found = sorted(path for path in Path(task.model).glob("*") if path.is_file())
    return files.digest({path.name: files.sha256(path) for path in found})[:16] if found else task.model


def read_for(task: Task) -> dict[str, Path]:
    """The rows that a task reads, by split; training rows only where they tell how long answers are."""
    train = {"train": task.train_data} if task.train_data and not task.max_tokens else {}
    return {**train, "valid": task.valid_data, "test": task.test_data}


def prediction(row: dict[str, Any], answers: "dict[str, Answer]") -> dict[str, Any]:
    """A line of predictions.jsonl."""
    line: dict[str, Any] = {
        name: row.get(name, "") for name in ("id", "partition", "asr_text", "reference_text", "source")
    }
    line["witness"] = row.get("witness") or {}
    for name, answer in answers.items():
        line |= {name: answer.text, f"{name}_finish": answer.finish, f"{name}_special": answer.special}
    return line


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_s').replace('_', '-')}"


def _parser() -> Parser:
    parser = Parser(
        prog="thunder_train.worker.generate",
        description="score base and adapter, and let both answer; one such process per rank",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", required=True, help="mlx-lm folder, or hub id that is already in the cache")
    add("--model-lock", default="", help="model.lock.json, which pins the commit of a hub id")
    add("--adapter-path", type=Path, required=True, help="folder of the adapter, on the first rank's machine")
    add("--train-data", type=Path, default=None, help="ChatML rows whose answers tell how long answers may be")
    add("--valid-data", type=Path, required=True, help="ChatML rows to measure the loss on")
    add("--test-data", type=Path, required=True, help="ChatML rows to measure the loss on and to answer")
    add("--token-cache", type=Path, default=None, help="folder of tokenised rows, kept by content")
    add("--max-seq-len", type=int, default=512, help="tokens of a row whose loss is measured")
    add("--max-tokens", type=int, default=0, help="tokens of an answer, at most; 0: as the data's answers need")
    add("--batch-size", type=int, default=8, help="rows at a time")
    add("--hostfile", type=Path, default=None, help="backend and hosts; without it one process does all")
    add("--weights", type=weights, default=(), help="speed of each rank, as 2.0,1.0; without it all alike")
    for name, words in (("stall", "for a round of batches of answers, the most"), ("start", "until the first batch")):
        add(f"--{name}-timeout", dest=f"{name}_timeout_s", type=float, default=0.0, help=f"seconds {words}; 0: any")
    add("--partial", type=Path, default=None, help="folder of answers kept, from which a killed evaluation goes on")
    add("--predictions", type=Path, required=True, help="JSONL file to write")
    add("--losses", type=Path, required=True, help="JSON file to write")
    return parser


if __name__ == "__main__":
    enter(main)
