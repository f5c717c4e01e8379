"""Greedy answers, in batches that do not depend on how many ranks share them: the same rows give the same bytes.

A batch's numbers depend a little on which rows share it, so batches are made of all rows at once and dealt whole. In a
round each rank answers one batch, a faster one more, then all tell theirs, and rank 0 keeps them on disk.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.nn as nn
from mlx_lm.generate import batch_generate

from thunder_train.worker import agreement
from thunder_train.worker.batching.tokens import Example
from thunder_train.worker.kept import Kept
from thunder_train.worker.ranks import Ranks

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
