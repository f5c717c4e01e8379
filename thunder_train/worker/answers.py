"""Greedy answers, in batches that do not depend on how many ranks share them: the same rows give the same bytes.

A batch's numbers depend a little on which rows share it, so batches are made of all rows at once and dealt whole. In a
round each rank answers one batch, then all tell theirs, and rank 0 keeps them on disk.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.nn as nn
from mlx_lm.generate import batch_generate

from thunder_train.worker import agreement
from thunder_train.worker.kept import Kept
from thunder_train.worker.ranks import Ranks
from thunder_train.worker.tokens import Example

Rows = tuple[int, ...]
"""Positions of the rows of a batch."""
TOLD = 10
"""Lines that tell of the progress of as many batches or more."""


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
    """Who answers. max_tokens: of an answer; batch_size: rows answered at once; tick: called after each round."""

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
    for start in range(0, len(missing), session.ranks.size):
        numbers = missing[start : start + session.ranks.size]
        made = _round(session, prompts, [plan[number] for number in numbers])
        done |= dict(zip(numbers, made, strict=True))
        session.kept.add(condition, {number: done[number] for number in numbers})
        session.tick()
        _say_progress(session, condition, len(done) - len(numbers), len(done), len(plan))
    made_of = {row: each for number, rows in enumerate(plan) for row, each in zip(rows, done[number], strict=True)}
    return [Answer(**made_of[row]) for row in range(len(examples))]


def answer(session: Session, prompts: Sequence[list[int]]) -> list[Answer]:
    """The greedy answers to a batch of prompts."""
    if not prompts:
        return []
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


def _round(session: Session, prompts: Sequence[list[int]], plan: Sequence[Rows]) -> list[list[dict[str, Any]]]:
    """The answers of one batch of each rank. The ranks wait for each other, so none waits longer than one batch."""
    rank = session.ranks.rank
    mine = [prompts[row] for row in plan[rank]] if rank < len(plan) else []
    told = agreement.gather(json.dumps([asdict(each) for each in answer(session, mine)]).encode(), session.ranks)
    return [json.loads(data) for data in told[: len(plan)]]


def _say_progress(session: Session, condition: str, before: int, after: int, total: int) -> None:
    """Tell of every tenth of a long evaluation."""
    if total >= TOLD and before * TOLD // total < after * TOLD // total:
        _say(session, f"{condition}: {after} of {total} batches answered")


def _say(session: Session, line: str) -> None:
    if session.ranks.rank == 0:
        print(line, flush=True)
