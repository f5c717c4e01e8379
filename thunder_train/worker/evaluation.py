"""The evaluation of a base model and an adapter: losses of both, and greedy answers of both for the host to score.

The same inputs give the same bytes for any number of ranks. Which rows share a batch changes the last bits of their
logits, so the batches are made first, from all rows, and whole batches are dealt to the ranks. In a round each rank
answers one batch, a faster one more, then all ranks exchange their answers; rank 0 keeps them on disk.

generate.py passes in what cannot change an answer (watchdog, BLAS loading): this module and everything that it imports
are the evaluation's code hash.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import batch_generate

from thunder_train.core import files, shipped
from thunder_train.worker import answer_text, chat, eval_loss, frozen_prefix, model, ranks, saved_adapter
from thunder_train.worker.answer_text import Answer, Marks
from thunder_train.worker.batching import tokens
from thunder_train.worker.batching.examples import Example, Examples
from thunder_train.worker.evaluate_args import Task
from thunder_train.worker.frozen_prefix import FrozenPrefix
from thunder_train.worker.kept_answers import BatchAnswers, KeptAnswers
from thunder_train.worker.ranks import Ranks

CODE = 2
"""Part of the identity of kept answers. Raise it when the same inputs get other answers."""
CONDITIONS = ("base", "adapter")
TARGET = "target"
"""Name under which the rows' own answers stand beside those of the models."""
TEXTS = ("asr_text", "reference_text")
PROGRESS_LINES = 10
"""Progress lines of a condition, if it has that many batches."""
LONGEST = 4
"""Most batches per rank, on average, in a round of unequal ranks: a kill loses no more than a round."""

Rows = tuple[int, ...]
"""Positions of the rows of a batch."""


@dataclass(frozen=True)
class Question:
    """A test row that is answered. reference: marks of thoughts in it are text. target: its own answer in tokens."""

    row: dict[str, Any]
    prompt: list[int]
    target: list[int]

    @property
    def own_answer(self) -> tuple[list[int], str]:
        """The row's answer in tokens and as text; that of a call of tools is "", as the template writes the call."""
        answer = self.row["messages"][-1]
        return self.target, "" if answer.get("tool_calls") else str(answer.get("content") or "")

    @property
    def reference(self) -> str:
        """The right answer, as far as the row has one."""
        return str(self.row.get("reference_text") or self.row["messages"][-1].get("content") or "")


Answers = dict[str, list[Answer]]
"""By condition or TARGET, in the order of the questions."""


@dataclass(frozen=True)
class Session:
    """What answers. marks: what its tokenizer may write around answers. max_tokens: of an answer. batch_size: rows
    answered together. tick: called after each batch.
    """

    network: nn.Module
    tokenizer: Any
    marks: Marks
    max_tokens: int
    batch_size: int
    ranks: Ranks
    kept: KeptAnswers
    tick: Callable[[], None]


@dataclass(frozen=True)
class Opened:
    """A base model that can answer, and what the dataset's rows decide of its answers.

    splits: the rows in tokens. asked: the test rows that have a prompt. marks, max_tokens: as in `Session`.
    """

    network: nn.Module
    tokenizer: Any
    spoken: chat.Chat
    splits: dict[str, Examples]
    asked: list[Question]
    marks: Marks
    max_tokens: int

    def session(self, batch_size: int, group: Ranks, kept: KeptAnswers, tick: Callable[[], None]) -> Session:
        """The model, ready to answer. kept: where the answers stand that were given before."""
        return Session(self.network, self.tokenizer, self.marks, self.max_tokens, batch_size, group, kept, tick)


def opened(task: Task) -> Opened:
    """Load the base model of a task, and read its rows."""
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    spoken = chat.of(tokenizer, task)
    splits = {name: tokens.read_all(path, spoken, cache=task.token_cache) for name, path in read_for(task).items()}
    asked = questions(files.read_jsonl(task.test_data), splits["test"])
    max_tokens = task.max_tokens or cap(itertools.chain(splits["train"], splits["valid"]))
    marks = answer_text.marks_of(tokenizer, [each.own_answer for each in asked])
    return Opened(network, tokenizer, spoken, splits, asked, marks, max_tokens)


def evaluate(task: Task, adapter: Path, group: Ranks, tick: Callable[[], None]) -> tuple[dict[str, Any], Answers]:
    """(content of losses.json, answers), the same on every rank. adapter: its folder. tick: called on progress."""
    inputs = identity(task, adapter)
    ranks.check_identity(inputs, group, "evaluate")
    ready = opened(task)
    network, splits, asked, marks = ready.network, ready.splits, ready.asked, ready.marks
    session = ready.session(
        task.batch_size, group, KeptAnswers(task.partial if group.rank == 0 else None, inputs), tick
    )
    losses: dict[str, Any] = {
        "max_tokens": ready.max_tokens,
        "adapter_sha256": files.sha256(adapter / saved_adapter.NAMES[0]),
    }
    if unasked := len(splits["test"]) - len(asked):
        losses["text_rows"] = unasked
    answers: Answers = {
        TARGET: [answer_text.read(each.target, each.prompt, each.reference, marks) for each in asked],
    }
    kept = _kept(task, ready, adapter)
    for condition in CONDITIONS:
        if condition == "adapter":
            saved_adapter.put_on(network, adapter)
        losses[condition] = {
            name: eval_loss.measure(
                network, splits[name], task.max_seq_len, task.batch_size, group, tick, kept.get(name)
            )
            for name in ("valid", "test")
        }
        answers[condition] = answer_all(session, asked, condition)
        _say_thinking(session, condition, answers[condition])
    return losses, answers


def _kept(task: Task, ready: Opened, adapter: Path) -> dict[str, FrozenPrefix]:
    """By split: what keeps the output of the blocks below the adapter, which base and adapter have in common."""
    tensors: Any = mx.load(str(adapter / saved_adapter.NAMES[0]))
    layers = frozen_prefix.first_block(list(tensors), len(ready.network.layers))
    if frozen_prefix.problem(ready.network, layers):
        return {}
    tokens = {name: sum(ready.splits[name].lengths) for name in ("valid", "test")}
    return frozen_prefix.keepers(ready.network, layers, tokens, (task.token_cache or task.losses).parent / "prefix")


def questions(rows: Sequence[dict[str, Any]], examples: Sequence[Example]) -> list[Question]:
    """The rows that have a prompt; a row of plain text has a loss only. examples: the rows in tokens, in order."""
    return [
        Question(row, list(each.tokens[: each.first_target]), list(each.tokens[each.first_target :]))
        for row, each in zip(rows, examples, strict=True)
        if "text" not in row
    ]


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
    paths = sorted(path for path in shipped.place(task.model).glob("*") if path.is_file())
    return files.digest({path.name: files.sha256(path) for path in paths})[:16] if paths else task.model


def read_for(task: Task) -> dict[str, Path]:
    """The files of rows that a task reads, by split; training rows only where they decide the length of answers."""
    train = {"train": task.train_data} if task.train_data and not task.max_tokens else {}
    return {**train, "valid": task.valid_data, "test": task.test_data}


def cap(examples: Iterable[Example]) -> int:
    """Most tokens of an answer: 3/2 of the longest answer in these rows, plus 8 for very short ones.

    Not taken from the test rows, which stand for rows whose answers are not known yet. Rows of plain text answer
    nothing: they have no prompt, so their targets begin with the first token, or after the one that opens every text.
    """
    return max((each.targets for each in examples if each.first_target > 1), default=0) * 3 // 2 + 8


def answer_all(session: Session, asked: Sequence[Question], condition: str) -> list[Answer]:
    """The answer to each question, in their order, on every rank.

    Kept batches are not answered again. condition: the name under which they are kept.
    """
    plan = batches([len(each.prompt) for each in asked], session.batch_size)
    done = _kept_batches(session, condition)
    missing = [number for number in range(len(plan)) if number not in done]
    if done:
        _say(session, f"{condition}: {len(done)} of {len(plan)} batches were answered before")
    takers = turns(session.ranks.weights or (1.0,) * session.ranks.size)
    for start in range(0, len(missing), len(takers)):
        numbers = missing[start : start + len(takers)]
        answered = _round(session, asked, [plan[number] for number in numbers], takers)
        done |= dict(zip(numbers, answered, strict=True))
        session.kept.add(condition, {number: done[number] for number in numbers})
        session.tick()
        _say_progress(session, condition, len(done) - len(numbers), len(done), len(plan))
    by_row = {row: each for number, rows in enumerate(plan) for row, each in zip(rows, done[number], strict=True)}
    return [Answer(**by_row[row]) for row in range(len(asked))]


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
    session: Session, asked: Sequence[Question], plan: Sequence[Rows], takers: Sequence[int]
) -> list[BatchAnswers]:
    """The answers of each batch of a plan, each made by its taker. All ranks wait for each other at the end."""
    mine = []
    for rows, taker in zip(plan, takers, strict=False):  # the last round may have fewer batches than takers
        if taker == session.ranks.rank:
            mine.append([asdict(each) for each in answer(session, [asked[row] for row in rows])])
            session.tick()
    by_rank = [iter(json.loads(data)) for data in ranks.all_gather(json.dumps(mine).encode(), session.ranks)]
    return [next(by_rank[taker]) for _, taker in zip(plan, takers, strict=False)]


def answer(session: Session, asked: Sequence[Question]) -> list[Answer]:
    """The greedy answers to a batch of questions."""
    tokenizer, count = session.tokenizer, len(asked)
    # The whole batch in one piece: mlx-lm's own sizes would divide it, and so change what is computed together.
    sizes = {"prefill_batch_size": count, "completion_batch_size": count}
    prompts = [each.prompt for each in asked]
    response = batch_generate(
        session.network, tokenizer, prompts, max_tokens=session.max_tokens, return_token_ids=True, **sizes
    )
    return [
        # The tokens hold no end of turn.
        answer_text.read(made, each.prompt, each.reference, session.marks, is_cut=len(made) >= session.max_tokens)
        for made, each in zip(response.token_ids, asked, strict=True)
    ]


def _say_progress(session: Session, condition: str, before: int, after: int, total: int) -> None:
    """Print a line for each tenth of a long evaluation."""
    if total >= PROGRESS_LINES and before * PROGRESS_LINES // total < after * PROGRESS_LINES // total:
        _say(session, f"{condition}: {after} of {total} batches answered")


def _say_thinking(session: Session, condition: str, answers: Sequence[Answer]) -> None:
    """Say how many answers never came because the model was still thinking: their empty texts are scored."""
    count = sum(each.finish == answer_text.THINKING for each in answers)
    if count:
        hint = "set enable_thinking = false in [models.NAME.template] or raise evaluate.max_tokens"
        _say(session, f"{condition}: {count} of {len(answers)} answers were still thinking when they ended; {hint}")


def _say(session: Session, line: str) -> None:
    if session.ranks.rank == 0:
        print(line, flush=True)


def write(task: Task, losses: dict[str, Any], answers: Answers) -> None:
    """Write predictions.jsonl and losses.json; called on rank 0. losses: content of losses.json."""
    rows = [row for row in files.read_jsonl(task.test_data) if "text" not in row]
    lines = [prediction(row, {name: each[number] for name, each in answers.items()}) for number, row in enumerate(rows)]
    files.write_text(task.predictions, "".join(map(files.json_line, lines)))
    files.write_json(task.losses, losses)


def prediction(row: dict[str, Any], answers: dict[str, Answer]) -> dict[str, Any]:
    """A line of predictions.jsonl. Blanks around a text are in `raw` only, for error rates of raw texts.

    A row of a chat, without hypothesis and reference, has its question and its own answer. Rows of one group (a
    recording, say) are alike, so intervals draw them together.
    """
    line: dict[str, Any] = {name: row.get(name, "") for name in ("id", "group", "partition", *TEXTS, "source")}
    raw = {name: row.get("raw", {}).get(name, line[name]) for name in TEXTS}
    line |= {name: line[name].strip() for name in TEXTS}
    line["witness"] = row.get("witness") or {}
    for name in CONDITIONS:
        answer = answers[name]
        line |= {name: answer.text, f"{name}_finish": answer.finish, f"{name}_special": answer.special}
        raw[name] = answer.text if answer.raw is None else answer.raw
    if raw := {name: text for name, text in raw.items() if text != line[name]}:
        line["raw"] = raw
    if row.get("silent"):
        line["silent"] = True
    elif not line["asr_text"] and not line["reference_text"]:
        *before, _ = row["messages"]
        line |= {"question": before[-1]["content"] if before else "", "answer": answers[TARGET].text}
    return line
