"""The evaluation of a base model and an adapter: losses of both, and greedy answers for the host to score.

generate.py hands in what cannot change an answer (watchdog, BLAS loading): the code that decides an evaluation's
numbers is this module and what it imports.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

from thunder_train.core import files
from thunder_train.worker import agreement, answers, eval_loss, model, saved_adapter
from thunder_train.worker.answers import Answer
from thunder_train.worker.args import Task
from thunder_train.worker.batching import tokens
from thunder_train.worker.kept import Kept
from thunder_train.worker.ranks import Ranks

CODE = 1
"""Raise it when the same inputs get other answers: kept ones are then made again."""
CONDITIONS = ("base", "adapter")
Answers = dict[str, list[Answer]]
"""By condition, in the order of the test rows."""


def evaluate(task: Task, adapter: Path, group: Ranks, tick: Callable[[], None]) -> tuple[dict[str, Any], Answers]:
    """(what losses.json holds, the answers), the same on every rank. adapter: its folder; tick: tells of progress."""
    told = identity(task, adapter)
    agreement.check_identity(told, group, "evaluate")
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    splits = {name: tokens.read_all(path, tokenizer, cache=task.token_cache) for name, path in read_for(task).items()}
    most = task.max_tokens or answers.cap([*splits["train"], *splits["valid"]])
    kept = Kept(task.partial if group.rank == 0 else None, told)
    session = answers.Session(network, tokenizer, most, task.batch_size, group, kept, tick)
    found: dict[str, Any] = {
        "max_tokens": most,
        "adapter_sha256": files.sha256(adapter / saved_adapter.NAMES[0]),
    }
    said: Answers = {}
    for condition in CONDITIONS:
        if condition == "adapter":
            saved_adapter.put_on(network, adapter)
        found[condition] = {
            name: eval_loss.measure(network, splits[name], task.max_seq_len, task.batch_size, group, tick)
            for name in ("valid", "test")
        }
        said[condition] = answers.answer_all(session, splits["test"], condition)
    return found, said


def identity(task: Task, adapter: Path) -> dict[str, str]:
    """The evaluation in words: all that decides its numbers. The number of ranks does not."""
    rows = {f"--{name}-data": path for name, path in read_for(task).items()}
    for flag, path in rows.items():
        files.require(path, mend=f"run `./doit data`, or correct {flag}")
    return agreement.identity(
        flags={name: getattr(task, name) for name in ("max_seq_len", "max_tokens", "batch_size")},
        paths=rows | {name: adapter / name for name in saved_adapter.NAMES},
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


def prediction(row: dict[str, Any], answers: dict[str, Answer]) -> dict[str, Any]:
    """A line of predictions.jsonl."""
    line: dict[str, Any] = {
        name: row.get(name, "") for name in ("id", "partition", "asr_text", "reference_text", "source")
    }
    line["witness"] = row.get("witness") or {}
    for name, answer in answers.items():
        line |= {name: answer.text, f"{name}_finish": answer.finish, f"{name}_special": answer.special}
    return line


def write(task: Task, measured: dict[str, Any], answers: Answers) -> None:
    """Rank 0 writes predictions.jsonl and losses.json. measured: what losses.json holds."""
    rows = enumerate(files.read_jsonl(task.test_data))
    lines = [prediction(row, {name: answers[name][number] for name in CONDITIONS}) for number, row in rows]
    files.write_text(task.predictions, "".join(map(files.json_line, lines)))
    files.write_json(task.losses, measured)
