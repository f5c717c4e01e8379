"""Training: each rank sums, all ranks add up, everyone makes the same update.

Shapes: B rows of a rank, T tokens, V vocabulary, P trained numbers. Sums, never means, cross ranks: ranks hold unequal
token counts, so the result does not depend on how rows are spread.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from thunder_train import ThunderError
from thunder_train.worker.batches import pad, shares
from thunder_train.worker.journal import Journal
from thunder_train.worker.model import trainable
from thunder_train.worker.ranks import Ranks
from thunder_train.worker.tokens import Example

LONGEST_SKIP = 10
"""Steps in a row that may be skipped before the run stops."""


@dataclass(frozen=True)
class Plan:
    """steps, rows per rank and step, seed of the order, AdamW's values, and how often to log, validate and save."""

    steps: int
    batch_size: int
    seed: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    log_every: int
    eval_every: int
    save_every: int


@dataclass(frozen=True)
class Totals:
    """One step summed over ranks. gradient: (P,) of the loss sum; loss: nats; tokens: targets; stop: a rank asks to."""

    gradient: mx.array
    loss: float
    tokens: int
    finite: bool
    stop: bool


@dataclass(frozen=True)
class Run:
    """All that a training needs. model: frozen but for its adapter; save: called with the step."""

    model: nn.Module
    train: Sequence[Example]
    valid: Sequence[Example]
    plan: Plan
    ranks: Ranks
    journal: Journal
    save: Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """skipped: steps without an update; stopped: whether a rank asked to stop before the plan's end."""

    skipped: int
    stopped: bool


@dataclass
class Window:
    """What was trained since the last training line."""

    loss: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    """Of steps alone, without validation and saving."""


def loss_sum(model: nn.Module, tokens: mx.array, mask: mx.array) -> mx.array:
    """Summed cross-entropy of the targets in nats. tokens: (B, T); mask: (B, T - 1), 1 where token j + 1 counts."""
    logits = model(tokens[:, :-1]).astype(mx.float32)
    return (nn.losses.cross_entropy(logits, tokens[:, 1:]) * mask).sum()


def evaluate(model: nn.Module, examples: Sequence[Example], batch_size: int, ranks: Ranks) -> tuple[float, int]:
    """(mean loss per target token over all rows, target tokens). Rows are split over ranks; no random state is used.

    Raises ThunderError when the loss is not finite.
    """
    model.eval()
    mine = sorted(examples, key=lambda each: (len(each.tokens), each.row_id))[ranks.rank :: ranks.size]
    loss, tokens = mx.array(0.0), 0
    for start in range(0, len(mine), batch_size):
        batch = mine[start : start + batch_size]
        loss = loss + loss_sum(model, *pad(batch))
        mx.eval(loss)
        tokens += sum(each.targets for each in batch)
    total = ranks.sum(mx.stack([loss, mx.array(float(tokens))]))
    loss_total, token_total = numbers(total)
    if not math.isfinite(loss_total):
        raise ThunderError("the loss is not finite", where="validation", mend="look for a broken model or adapter")
    return loss_total / token_total, int(token_total)


def local_sums(model: nn.Module, batch: Sequence[Example]) -> tuple[mx.array, mx.array, int]:
    """This rank's (P,) gradient of the loss sum, the loss sum and its target tokens; zeros for a rank without a row."""
    if not batch:
        return mx.zeros(sum(leaf.size for leaf in trainable(model).values())), mx.array(0.0), 0
    model.train()
    loss, gradients = nn.value_and_grad(model, loss_sum)(model, *pad(batch))
    return flatten(gradients), loss, sum(each.targets for each in batch)


def flatten(gradients: Any) -> mx.array:
    """A tree of gradients as one (P,) float32 array, in order of name."""
    leaves = [leaf.reshape(-1).astype(mx.float32) for _, leaf in sorted(tree_flatten(gradients), key=lambda kv: kv[0])]
    return mx.concatenate(leaves)


def unflatten(flat: mx.array, like: dict[str, mx.array]) -> Any:
    """The tree that `flatten` took apart; like: the trained parameters by name."""
    pieces, start = [], 0
    for name, leaf in sorted(like.items()):
        pieces.append((name, flat[start : start + leaf.size].reshape(leaf.shape).astype(leaf.dtype)))
        start += leaf.size
    return tree_unflatten(pieces)


def add_up(gradient: mx.array, loss: mx.array, tokens: int, stop: bool, ranks: Ranks) -> Totals:
    """Sum one step over all ranks in a single message; the flags ride along so that all ranks decide alike."""
    finite = (mx.isfinite(gradient).all() & mx.isfinite(loss)).astype(mx.float32)
    tail = mx.stack([loss.astype(mx.float32), mx.array(float(tokens)), finite, mx.array(float(stop))])
    total = ranks.sum(mx.concatenate([gradient, tail]))
    loss_total, token_total, finite_ranks, stopping = numbers(total[-4:])
    return Totals(total[:-4], loss_total, int(token_total), int(finite_ranks) == ranks.size, stopping > 0)


def numbers(values: mx.array) -> list[float]:
    """A one-dimensional array as Python numbers."""
    return [float(value) for value in np.array(values)]


def update(model: nn.Module, optimizer: Any, totals: Totals, max_grad_norm: float) -> bool:
    """Divide by the tokens, clip, step. False, and no change, when the step is not finite or had no target."""
    if not (totals.finite and totals.tokens):
        return False
    gradient = totals.gradient / totals.tokens
    norm = mx.linalg.norm(gradient)
    if not mx.isfinite(norm).item():
        return False
    if max_grad_norm:
        gradient = gradient * mx.minimum(max_grad_norm / (norm + 1e-6), 1.0)
    optimizer.update(model, unflatten(gradient, trainable(model)))
    mx.eval(model.trainable_parameters(), optimizer.state)
    return True


def train(run: Run, stop_asked: Callable[[], bool] = lambda: False) -> Outcome:
    """Run the plan's steps. stop_asked: whether this rank asks all to stop after the step at hand.

    Raises ThunderError when ten steps in a row are not finite.
    """
    plan = run.plan
    optimizer = optimizers.AdamW(plan.learning_rate, weight_decay=plan.weight_decay, bias_correction=True)
    skipped, in_a_row, window = 0, 0, Window()
    for step in range(1, plan.steps + 1):
        start = time.perf_counter()
        totals = one_step(run, step, stop_asked())
        updated = update(run.model, optimizer, totals, plan.max_grad_norm)
        window.seconds += time.perf_counter() - start
        if updated:
            in_a_row, window.loss, window.tokens = 0, window.loss + totals.loss, window.tokens + totals.tokens
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            run.journal.event("skip", step, f"step {step}/{plan.steps}  skipped: the gradient is not finite")
        if in_a_row == LONGEST_SKIP:
            raise _hopeless(step)
        if totals.stop:
            return Outcome(skipped, stopped=True)
        _report(run, step, window)
    return Outcome(skipped, stopped=False)


def one_step(run: Run, step: int, stop: bool) -> Totals:
    """Forward and backward over this rank's rows of a step (counted from 1), summed over ranks."""
    # Dropout depends on seed, step and rank alone, so no random state needs to be carried from step to step.
    mx.random.seed(((run.plan.seed * 1_000_003 + step) * 1_000_003 + run.ranks.rank) % 2**63)
    indices = shares(len(run.train), step - 1, run.plan.seed, run.plan.batch_size, run.ranks.rank, run.ranks.size)
    return add_up(*local_sums(run.model, [run.train[i] for i in indices]), stop, run.ranks)


def _hopeless(step: int) -> ThunderError:
    return ThunderError(
        f"{LONGEST_SKIP} steps in a row had a gradient that is not finite",
        where=f"step {step}",
        mend="lower the learning rate, or look for a broken base model",
    )


def _report(run: Run, step: int, window: Window) -> None:
    plan, counter = run.plan, f"step {step}/{run.plan.steps}"
    due = {every for every in (plan.log_every, plan.eval_every, plan.save_every) if step % every == 0}
    last = step == plan.steps
    if last or plan.log_every in due:
        _report_training(run, step, window)
    if last or plan.eval_every in due:
        loss, tokens = evaluate(run.model, run.valid, plan.batch_size, run.ranks)
        run.journal.loss("valid", step, loss, tokens, f"{counter}  valid loss {loss:.4f}")
    if last or plan.save_every in due:
        run.save(step)
        run.journal.event("save", step, f"{counter}  saved")
    if last or plan.log_every in due:
        window.loss, window.tokens, window.seconds = 0.0, 0, 0.0


def _report_training(run: Run, step: int, window: Window) -> None:
    if not window.tokens:
        return
    loss, rate = window.loss / window.tokens, window.tokens / window.seconds
    line = f"step {step}/{run.plan.steps}  train loss {loss:.4f}  {rate:.0f} target tokens/s"
    more = {
        "learning_rate": run.plan.learning_rate,
        "target_tokens_per_second": round(rate, 1),
        "peak_memory_gb": round(mx.get_peak_memory() / 1e9, 3),
    }
    run.journal.loss("train", step, loss, window.tokens, line, **more)
