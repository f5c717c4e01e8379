"""The evaluation of a base model and an adapter: losses of both, and greedy answers of both for the host to score.

The same inputs give the same bytes for any number of ranks. Which rows share a batch changes the last bits of their
logits, so the batches are made first, from all rows, and whole batches are dealt to the ranks. In a round each rank
answers one batch, a faster one more, then all ranks exchange their answers; rank 0 keeps them on disk.

generate.py passes in what cannot change an answer (watchdog, BLAS loading): this module and everything that it imports
are the evaluation's code hash.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import batch_generate

from thunder_train.core import files
from thunder_train.worker import chat, eval_loss, model, ranks, saved_adapter
from thunder_train.worker.batching import tokens
from thunder_train.worker.batching.tokens import Example
from thunder_train.worker.evaluate_args import Task
from thunder_train.worker.kept_answers import BatchAnswers, KeptAnswers
from thunder_train.worker.ranks import Ranks

CODE = 1
"""Part of the identity of kept answers. Raise it when the same inputs get other answers."""
CONDITIONS = ("base", "adapter")
PROGRESS_LINES = 10
"""Progress lines of a condition, if it has that many batches."""
LONGEST = 4
"""Most batches per rank, on average, in a round of unequal ranks: a kill loses no more than a round."""

Rows = tuple[int, ...]
"""Positions of the rows of a batch."""


@dataclass(frozen=True)
class Answer:
    """text: without control tokens. finish: "stop", or "length" at the cap. special: number of control tokens that were
    removed, the end of turn not counted.
    """

    text: str
    finish: str
    special: int


Answers = dict[str, list[Answer]]
"""By condition, in the order of the test rows."""


@dataclass(frozen=True)
class Session:
    """What answers. max_tokens: of an answer. batch_size: rows answered together. tick: called after each batch."""

    network: nn.Module
    tokenizer: Any
    max_tokens: int
    batch_size: int
    ranks: Ranks
    kept: KeptAnswers
    tick: Callable[[], None]


def evaluate(task: Task, adapter: Path, group: Ranks, tick: Callable[[], None]) -> tuple[dict[str, Any], Answers]:
    """(content of losses.json, answers), the same on every rank. adapter: its folder. tick: called on progress."""
    inputs = identity(task, adapter)
    ranks.check_identity(inputs, group, "evaluate")
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    spoken = chat.of(tokenizer, task)
    splits = {name: tokens.read_all(path, spoken, cache=task.token_cache) for name, path in read_for(task).items()}
    max_tokens = task.max_tokens or cap([*splits["train"], *splits["valid"]])
    kept = KeptAnswers(task.partial if group.rank == 0 else None, inputs)
    session = Session(network, tokenizer, max_tokens, task.batch_size, group, kept, tick)
    losses: dict[str, Any] = {
        "max_tokens": max_tokens,
        "adapter_sha256": files.sha256(adapter / saved_adapter.NAMES[0]),
    }
    answers: Answers = {}
    for condition in CONDITIONS:
        if condition == "adapter":
            saved_adapter.put_on(network, adapter)
        losses[condition] = {
            name: eval_loss.measure(network, splits[name], task.max_seq_len, task.batch_size, group, tick)
            for name in ("valid", "test")
        }
        answers[condition] = answer_all(session, splits["test"], condition)
    return losses, answers


def identity(task: Task, adapter: Path) -> dict[str, str]:
    """Everything that decides the evaluation's numbers, each as text. The number of ranks does not."""
    rows = {f"--{name}-data": path for name, path in read_for(task).items()}
    for flag, path in rows.items():
        files.require(path, hint=f"run `./doit data`, or correct {flag}")
    for flag, path in task.chat_files().items():
        files.require(path, hint=f"correct {flag}")
    return ranks.identity(
        flags={name: getattr(task, name) for name in ("max_seq_len", "max_tokens", "batch_size")} | task.chat_flags(),
        paths=rows | task.chat_files() | {name: adapter / name for name in saved_adapter.NAMES},
        model=model_digest(task),
        versions={
            "code": str(CODE),
            "mlx": version("mlx"),
            "mlx-lm": version("mlx-lm"),
            "device": mx.default_device().type.name,
        },
    )


def model_digest(task: Task) -> str:
    """A digest of the model's lock; without a lock, of all files in its folder."""
    if task.model_lock:
        return files.digest(files.read_json(task.model_lock, hint="run `./doit model`").get("files"))[:16]
    paths = sorted(path for path in Path(task.model).glob("*") if path.is_file())
    return files.digest({path.name: files.sha256(path) for path in paths})[:16] if paths else task.model


def read_for(task: Task) -> dict[str, Path]:
    """The files of rows that a task reads, by split; training rows only where they decide the length of answers."""
    train = {"train": task.train_data} if task.train_data and not task.max_tokens else {}
    return {**train, "valid": task.valid_data, "test": task.test_data}


def cap(examples: Sequence[Example]) -> int:
    """Most tokens of an answer: 3/2 of the longest answer in these rows, plus 8 for very short ones.

    Not taken from the test rows, which stand for rows whose answers are not known yet.
    """
    return max((each.targets for each in examples), default=0) * 3 // 2 + 8


def answer_all(session: Session, examples: Sequence[Example], condition: str) -> list[Answer]:
    """The answer to each example's prompt, in the examples' order, on every rank.

    Kept batches are not answered again. condition: the name under which they are kept.
    """
    prompts = [list(each.tokens[: each.first_target]) for each in examples]
    plan = batches([len(prompt) for prompt in prompts], session.batch_size)
    done = _kept_batches(session, condition)
    missing = [number for number in range(len(plan)) if number not in done]
    if done:
        _say(session, f"{condition}: {len(done)} of {len(plan)} batches were answered before")
    takers = turns(session.ranks.weights or (1.0,) * session.ranks.size)
    for start in range(0, len(missing), len(takers)):
        numbers = missing[start : start + len(takers)]
        answered = _round(session, prompts, [plan[number] for number in numbers], takers)
        done |= dict(zip(numbers, answered, strict=True))
        session.kept.add(condition, {number: done[number] for number in numbers})
        session.tick()
        _say_progress(session, condition, len(done) - len(numbers), len(done), len(plan))
    by_row = {row: each for number, rows in enumerate(plan) for row, each in zip(rows, done[number], strict=True)}
    return [Answer(**by_row[row]) for row in range(len(examples))]


def batches(prompt_lengths: Sequence[int], size: int) -> list[Rows]:
    """The rows of each batch, longest prompts first: little padding, and a lack of memory shows in the first batch."""
    order = sorted(range(len(prompt_lengths)), key=lambda row: (-prompt_lengths[row], row))
    return [tuple(order[start : start + size]) for start in range(0, len(order), size)]


def _kept_batches(session: Session, condition: str) -> dict[int, BatchAnswers]:
    """The batches that rank 0 kept, on every rank."""
    mine = json.dumps(session.kept.batches(condition)).encode()
    first = json.loads(ranks.broadcast(mine, session.ranks) or b"{}")
    return {int(number): answers for number, answers in first.items()}


def turns(weights: Sequence[float]) -> list[int]:
    """The ranks that take the batches of a round, in order. weights: relative speed of each rank.

    All wait at the end of a round, so it has the number of batches, up to LONGEST per rank, at which most batches are
    answered per second; of equally good numbers the smallest.
    """
    most = LONGEST * len(weights) if len(set(weights)) > 1 else len(weights)
    taken, order, best = [0] * len(weights), list[int](), (0.0, 0)
    for count in range(1, most + 1):
        # The next batch goes to the rank that would finish it first.
        times = [(number + 1) / weight for number, weight in zip(taken, weights, strict=True)]
        order.append(times.index(min(times)))
        taken[order[-1]] += 1
        seconds = max(number / weight for number, weight in zip(taken, weights, strict=True))
        # Rounded, so that rounding errors do not make a longer round look faster.
        best = max(best, (round(count / seconds, 9), -count))
    return order[: -best[1]]


def _round(
    session: Session, prompts: Sequence[list[int]], plan: Sequence[Rows], takers: Sequence[int]
) -> list[BatchAnswers]:
    """The answers of each batch of a plan, each made by its taker. All ranks wait for each other at the end."""
    mine = []
    for rows, taker in zip(plan, takers, strict=False):  # the last round may have fewer batches than takers
        if taker == session.ranks.rank:
            mine.append([asdict(each) for each in answer(session, [prompts[row] for row in rows])])
            session.tick()
    by_rank = [iter(json.loads(data)) for data in ranks.all_gather(json.dumps(mine).encode(), session.ranks)]
    return [next(by_rank[taker]) for _, taker in zip(plan, takers, strict=False)]


def answer(session: Session, prompts: Sequence[list[int]]) -> list[Answer]:
    """The greedy answers to a batch of prompts."""
    tokenizer, count = session.tokenizer, len(prompts)
    # The whole batch in one piece: mlx-lm's own sizes would divide it, and so change what is computed together.
    sizes = {"prefill_batch_size": count, "completion_batch_size": count}
    response = batch_generate(
        session.network, tokenizer, list(prompts), max_tokens=session.max_tokens, return_token_ids=True, **sizes
    )
    special = set(tokenizer.all_special_ids)
    return [
        Answer(
            text=tokenizer.decode(tokens, skip_special_tokens=True),
            finish="length" if len(tokens) >= session.max_tokens else "stop",  # tokens holds no end of turn
            special=sum(token in special for token in tokens),
        )
        for tokens in response.token_ids
    ]


def _say_progress(session: Session, condition: str, before: int, after: int, total: int) -> None:
    """Print a line for each tenth of a long evaluation."""
    if total >= PROGRESS_LINES and before * PROGRESS_LINES // total < after * PROGRESS_LINES // total:
        _say(session, f"{condition}: {after} of {total} batches answered")


def _say(session: Session, line: str) -> None:
    if session.ranks.rank == 0:
        print(line, flush=True)


def write(task: Task, losses: dict[str, Any], answers: Answers) -> None:
    """Write predictions.jsonl and losses.json; called on rank 0. losses: content of losses.json."""
    rows = enumerate(files.read_jsonl(task.test_data))
    lines = [prediction(row, {name: answers[name][number] for name in CONDITIONS}) for number, row in rows]
    files.write_text(task.predictions, "".join(map(files.json_line, lines)))
    files.write_json(task.losses, losses)


def prediction(row: dict[str, Any], answers: dict[str, Answer]) -> dict[str, Any]:
    """A line of predictions.jsonl."""
    line: dict[str, Any] = {
        name: row.get(name, "") for name in ("id", "partition", "asr_text", "reference_text", "source")
    }
    line["witness"] = row.get("witness") or {}
    for name, answer in answers.items():
        line |= {name: answer.text, f"{name}_finish": answer.finish, f"{name}_special": answer.special}
    return line
