"""BatchAnswers kept on disk batch by batch, so that an evaluation that was killed goes on and does not begin anew.

Reads and writes FOLDER/answers.jsonl: a line that says what the answers are to, then one line a batch.

Greedy answers, in batches that do not depend on how many ranks share them: the same rows give the same bytes.

A batch's numbers depend a little on which rows share it, so batches are made of all rows at once and dealt whole. In a
round each rank answers one batch, a faster one more, then all tell theirs, and rank 0 keeps them on disk.

The evaluation of a base model and an adapter: losses of both, and greedy answers for the host to score.

generate.py hands in what cannot change an answer (watchdog, BLAS loading): the code that decides an evaluation's
numbers is this module and what it imports.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import batch_generate

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import eval_loss, model, ranks, saved_adapter
from thunder_train.worker import ranks as agreement
from thunder_train.worker.args import Task
from thunder_train.worker.batching import tokens
from thunder_train.worker.batching.tokens import Example
from thunder_train.worker.ranks import Ranks

SCHEMA = "thunder.answers/1"

BatchAnswers = list[dict[str, Any]]
"""The answers of one batch, in the order of its rows."""


class Kept:
    """The batches of one evaluation. folder: None keeps nothing, as on every rank but the first.

    identity: all that decides the answers; a file of another identity, or none, begins anew.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, str]) -> None:
        self._path = folder / "answers.jsonl" if folder else None
        self._found: list[dict[str, Any]] = []
        if self._path:
            header = {"schema": SCHEMA, "identity": dict(identity)}
            self._found = _read(self._path, header)
            # Written anew: without the half line that a kill left.
            files.write_text(self._path, "".join(map(files.json_line, [header, *self._found])))

    def batches(self, condition: str) -> dict[int, BatchAnswers]:
        """The batches found at the start, by number."""
        return {each["batch"]: each["answers"] for each in self._found if each["condition"] == condition}

    def add(self, condition: str, made: Mapping[int, BatchAnswers]) -> None:
        """Append batches; they are on disk when this returns. Raises ThunderError when they cannot be."""
        if not self._path:
            return
        lines = [{"condition": condition, "batch": number, "answers": made[number]} for number in sorted(made)]
        try:
            with self._path.open("ab") as file:
                file.write("".join(map(files.json_line, lines)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            hint = "free or unlock it"
            raise ThunderError(f"cannot be written: {error.strerror}", where=str(self._path), hint=hint) from error


def _read(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The whole lines below this very header; the first that is not whole ends them."""
    found = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    with contextlib.suppress(ValueError):
        if json.loads(lines[0]) != header:
            return []
        for line in lines[1:]:
            found.append(json.loads(line))
    return found


Rows = tuple[int, ...]
"""Positions of the rows of a batch."""
TOLD = 10
"""Lines that tell of the progress of as many batches or more."""
LONGEST = 4
"""Batches a rank, on average, that a round of unequal ranks may have: a killed evaluation loses no more."""


@dataclass(frozen=True)
class Answer:
    """text: without control tokens; finish: "stop", or "length" at the cap; special: control tokens that it held, its
    end of turn apart.
    """

    text: str
    finish: str
    special: int


@dataclass(frozen=True)
class Session:
    """Who answers. max_tokens: of an answer; batch_size: rows answered at once; tick: called after each batch."""

    network: nn.Module
    tokenizer: Any
    max_tokens: int
    batch_size: int
    ranks: Ranks
    kept: Kept
    tick: Callable[[], None]


def cap(examples: Sequence[Example]) -> int:
    """The most tokens of an answer: half as many again as the longest answer here, and a few for the shortest."""
    return max((each.targets for each in examples), default=0) * 3 // 2 + 8


def batches(prompt_lengths: Sequence[int], size: int) -> list[Rows]:
    """The rows of each batch, longest prompts first: like lengths share one, and a lack of memory shows early."""
    order = sorted(range(len(prompt_lengths)), key=lambda row: (-prompt_lengths[row], row))
    return [tuple(order[start : start + size]) for start in range(0, len(order), size)]


def answer_all(session: Session, examples: Sequence[Example], condition: str) -> list[Answer]:
    """The answer to each example's prompt, in the examples' order, on every rank.

    Batches that were kept are not answered again. condition: the name that they are kept under.
    """
    prompts = [list(each.tokens[: each.first_target]) for each in examples]
    plan = batches([len(prompt) for prompt in prompts], session.batch_size)
    done = _kept(session, condition)
    missing = [number for number in range(len(plan)) if number not in done]
    if done:
        _say(session, f"{condition}: {len(done)} of {len(plan)} batches were answered before")
    takers = turns(session.ranks.weights or (1.0,) * session.ranks.size)
    for start in range(0, len(missing), len(takers)):
        numbers = missing[start : start + len(takers)]
        made = _round(session, prompts, [plan[number] for number in numbers], takers)
        done |= dict(zip(numbers, made, strict=True))
        session.kept.add(condition, {number: done[number] for number in numbers})
        session.tick()
        _say_progress(session, condition, len(done) - len(numbers), len(done), len(plan))
    made_of = {row: each for number, rows in enumerate(plan) for row, each in zip(rows, done[number], strict=True)}
    return [Answer(**made_of[row]) for row in range(len(examples))]


def turns(weights: Sequence[float]) -> list[int]:
    """The ranks that take the batches of a round, in their order: as many batches as keep the ranks best at work.

    weights: the speed of each rank.
    """
    most = LONGEST * len(weights) if len(set(weights)) > 1 else len(weights)
    taken, order, best = [0] * len(weights), list[int](), (0.0, 0)
    for count in range(1, most + 1):
        times = [(number + 1) / weight for number, weight in zip(taken, weights, strict=True)]
        order.append(times.index(min(times)))
        taken[order[-1]] += 1
        seconds = max(number / weight for number, weight in zip(taken, weights, strict=True))
        best = max(best, (round(count / seconds, 9), -count))
    return order[: -best[1]]


def answer(session: Session, prompts: Sequence[list[int]]) -> list[Answer]:
    """The greedy answers to a batch of prompts."""
    tokenizer, count = session.tokenizer, len(prompts)
    sizes = {"prefill_batch_size": count, "completion_batch_size": count}
    response = batch_generate(
        session.network, tokenizer, list(prompts), max_tokens=session.max_tokens, return_token_ids=True, **sizes
    )
    special = set(tokenizer.all_special_ids)
    return [
        Answer(
            text=tokenizer.decode(tokens, skip_special_tokens=True),
            finish="length" if len(tokens) >= session.max_tokens else "stop",  # the end of turn is not among them
            special=sum(token in special for token in tokens),
        )
        for tokens in response.token_ids
    ]


def _kept(session: Session, condition: str) -> dict[int, list[dict[str, Any]]]:
    """Batches that rank 0 kept, on every rank."""
    mine = json.dumps(session.kept.batches(condition)).encode()
    told = json.loads(agreement.share(mine, session.ranks) or b"{}")
    return {int(number): answers for number, answers in told.items()}


def _round(
    session: Session, prompts: Sequence[list[int]], plan: Sequence[Rows], takers: Sequence[int]
) -> list[list[dict[str, Any]]]:
    """The answers of each batch of a plan, made by its taker. The ranks wait for each other at the end."""
    mine = []
    for rows, taker in zip(plan, takers, strict=False):  # the last round may be a short one
        if taker == session.ranks.rank:
            mine.append([asdict(each) for each in answer(session, [prompts[row] for row in rows])])
            session.tick()
    told = [iter(json.loads(data)) for data in agreement.gather(json.dumps(mine).encode(), session.ranks)]
    return [next(told[taker]) for _, taker in zip(plan, takers, strict=False)]


def _say_progress(session: Session, condition: str, before: int, after: int, total: int) -> None:
    """Tell of every tenth of a long evaluation."""
    if total >= TOLD and before * TOLD // total < after * TOLD // total:
        _say(session, f"{condition}: {after} of {total} batches answered")


def _say(session: Session, line: str) -> None:
    if session.ranks.rank == 0:
        print(line, flush=True)


CODE = 1
"""Raise it when the same inputs get other answers: kept ones are then made again."""
CONDITIONS = ("base", "adapter")
Answers = dict[str, list[Answer]]
"""By condition, in the order of the test rows."""


def evaluate(task: Task, adapter: Path, group: Ranks, tick: Callable[[], None]) -> tuple[dict[str, Any], Answers]:
    """(what losses.json holds, the answers), the same on every rank. adapter: its folder; tick: tells of progress."""
    told = identity(task, adapter)
    ranks.check_identity(told, group, "evaluate")
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    splits = {name: tokens.read_all(path, tokenizer, cache=task.token_cache) for name, path in read_for(task).items()}
    most = task.max_tokens or cap([*splits["train"], *splits["valid"]])
    kept = Kept(task.partial if group.rank == 0 else None, told)
    session = Session(network, tokenizer, most, task.batch_size, group, kept, tick)
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
        said[condition] = answer_all(session, splits["test"], condition)
    return found, said


def identity(task: Task, adapter: Path) -> dict[str, str]:
    """The evaluation in words: all that decides its numbers. The number of ranks does not."""
    rows = {f"--{name}-data": path for name, path in read_for(task).items()}
    for flag, path in rows.items():
        files.require(path, hint=f"run `./doit data`, or correct {flag}")
    return ranks.identity(
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
        return files.digest(files.read_json(task.model_lock, hint="run `./doit model`").get("files"))[:16]
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
