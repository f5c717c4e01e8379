"""Training: step after step, with validation, the best adapter kept apart, and a checkpoint to go on from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from thunder_train import ThunderError
from thunder_train.worker.batching.batch import Batch, loss_sum
from thunder_train.worker.batching.loader import DataLoader
from thunder_train.worker.model import adapter_tensors
from thunder_train.worker.ranks import Ranks, check_parity, losses_told
from thunder_train.worker.train.checkpoint import Checkpoint, Progress, Tensors
from thunder_train.worker.train.metrics_log import Journal
from thunder_train.worker.train.step import Totals, add_up, local_sums, numbers, schedule, update

NAMED_ROWS = 20
"""Rows of a broken step that its message names, at most."""


@dataclass(frozen=True)
class Plan:
    """Optimizer steps, AdamW's values and schedule, how often to log, validate and save, and when to give up.

    patience: validations without a better loss after which the run ends; 0: never. max_skipped: steps in a row that may
    be skipped because a number is not finite.
    """

    steps: int
    seed: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    log_every: int
    eval_every: int
    save_every: int
    patience: int
    max_skipped: int


@dataclass(frozen=True)
class Run:
    """All that a training needs. model: frozen but for its adapter; rows: the feed of train.jsonl.

    row_ranks: the ranks that rows are spread over, one alone when the model itself is (tensor). save: writes the
    checkpoint of a step, beat: tells the watchdog of it, stop_asked: whether this rank asks all to stop after a step.
    """

    model: nn.Module
    rows: DataLoader
    validation: list[Batch]
    plan: Plan
    ranks: Ranks
    row_ranks: Ranks
    journal: Journal
    identity: dict[str, str]
    save: Callable[[Checkpoint], None]
    beat: Callable[[int], None]
    stop_asked: Callable[[], bool]

    @property
    def counts(self) -> bool:
        """Whether this rank's loss and tokens are its own, and not those that the first rank has too."""
        return self.row_ranks.size == self.ranks.size or self.ranks.rank == 0


@dataclass
class State:
    """What changes while a run goes. best: the adapter of the best validation, whole."""

    optimizer: Any
    progress: Progress
    best: Tensors
    seconds: float = 0.0
    """Of the steps since the last training line, without validation and saving."""
    exchange_s: float = 0.0
    skew_s: float = 0.0
    computed_tokens: int = 0
    """Tokens that this rank's steps went through since the last training line, padding included."""
    grad_norm: float = 0.0


def start(run: Run, checkpoint: Checkpoint | None) -> State:
    """The state of a run that begins, or that goes on from a checkpoint."""
    plan = run.plan
    rate = schedule(plan.schedule, plan.learning_rate, plan.steps, plan.warmup_steps)
    optimizer = optimizers.AdamW(rate, weight_decay=plan.weight_decay, bias_correction=True)
    optimizer.init(run.model.trainable_parameters())
    if checkpoint is None:
        return State(optimizer, run.journal.progress, {})
    run.model.update(tree_unflatten([(name, mx.array(tensor)) for name, tensor in checkpoint.adapter.items()]))
    moments = {"m": checkpoint.first_moment, "v": checkpoint.second_moment}
    leaves = [(f"{name}.{key}", mx.array(array)) for key, arrays in moments.items() for name, array in arrays.items()]
    done = run.journal.progress.step - run.journal.progress.skipped
    kept = {"step": mx.array(done, mx.uint64), "learning_rate": optimizer.state["learning_rate"]}
    optimizer.state = {**tree_unflatten(leaves), **kept}
    mx.eval(run.model.trainable_parameters(), optimizer.state)
    return State(optimizer, run.journal.progress, checkpoint.best)


def train(run: Run, state: State) -> bool:
    """Run the plan's steps from where the state stands. Whether a rank asked to stop before the end.

    Raises ThunderError when too many steps in a row are not finite, and when the ranks' adapters part.
    """
    patience = run.plan.patience or math.inf
    while state.progress.step < run.plan.steps and state.progress.without_gain < patience:
        totals = one_step(run, state)
        if totals.stop:
            return True
        _after_step(run, state)
        run.beat(state.progress.step)
    return False


def one_step(run: Run, state: State) -> Totals:
    """Forward, backward, sum over ranks, update; counts what was skipped."""
    progress, plan = state.progress, run.plan
    began = time.perf_counter()
    # Dropout depends on seed, step and rank alone, so no random state needs to be carried from step to step.
    mx.random.seed(((plan.seed * 1_000_003 + progress.step + 1) * 1_000_003 + run.row_ranks.rank) % 2**63)
    batches = run.rows.step(progress.step)
    with losses_told(run.ranks):
        sums = local_sums(run.model, batches)
    busy_s = time.perf_counter() - began
    totals = add_up(sums, run.stop_asked(), busy_s, run.ranks, run.counts)
    if totals.stop:
        return totals
    norm = update(run.model, state.optimizer, totals, plan.max_grad_norm)
    progress.step += 1
    state.seconds += time.perf_counter() - began
    state.exchange_s += totals.exchange_s
    state.skew_s += max(totals.busy_s) - min(totals.busy_s)
    state.computed_tokens += sum(batch.padded_tokens for batch in batches)
    if norm is None:
        _skip(run, state, totals)
    else:
        state.grad_norm, progress.skipped_in_a_row = norm, 0
        progress.window_loss += totals.loss
        progress.window_tokens += totals.tokens
    return totals


def evaluate(
    model: nn.Module, batches: list[Batch], ranks: Ranks, tick: Callable[[], None] = lambda: None
) -> tuple[float, int]:
    """(mean loss per target token over all rows, target tokens). No random state is used.

    batches: this rank's part of the rows. tick: called after each. Raises ThunderError when the loss is not finite.
    """
    model.eval()
    loss, tokens = mx.array(0.0), 0
    for batch in batches:
        loss = loss + loss_sum(model, batch)
        mx.eval(loss)
        tokens += batch.targets
        tick()
    loss_total, token_total = numbers(ranks.sum(mx.stack([loss, mx.array(float(tokens))])))
    if not math.isfinite(loss_total):
        raise ThunderError("the loss is not finite", where="validation", hint="look for a broken model or adapter")
    return loss_total / token_total, int(token_total)


def checkpoint(run: Run, state: State) -> Checkpoint:
    """All that the next step depends on, whole, on every rank."""
    moments: dict[str, Tensors] = {"m": {}, "v": {}}
    for name, leaf in tree_flatten(state.optimizer.state):
        parameter, _, moment = name.rpartition(".")
        if moment in moments and parameter:
            moments[moment][parameter] = np.array(leaf)
    return Checkpoint(run.identity, state.progress, adapter_tensors(run.model), moments["m"], moments["v"], state.best)


def _skip(run: Run, state: State, totals: Totals) -> None:
    progress = state.progress
    progress.skipped, progress.skipped_in_a_row = progress.skipped + 1, progress.skipped_in_a_row + 1
    ranks = ", ".join(str(rank) for rank, finite in enumerate(totals.finite) if not finite) or "all"
    ids = [run.rows.examples[row].row_id for row in run.rows.rows(progress.step - 1)]
    rows = ", ".join(ids[:NAMED_ROWS]) + (f" and {len(ids) - NAMED_ROWS} more" if len(ids) > NAMED_ROWS else "")
    why = "has no target" if not totals.tokens else f"is not finite on rank {ranks}"
    line = f"step {progress.step}/{run.plan.steps}  skipped: the gradient {why}; rows {rows}"
    run.journal.event("skip", progress.step, line, rows=ids)
    if progress.skipped_in_a_row >= run.plan.max_skipped:
        raise ThunderError(
            f"{progress.skipped_in_a_row} steps in a row had a gradient that {why}; the last one's rows: {rows}",
            where=f"step {progress.step}",
            hint="lower the learning rate, or look at these rows and the base model",
        )


def _after_step(run: Run, state: State) -> None:
    """What is due after a step: a training line, a validation, a checkpoint; all of them after the last one."""
    plan, step = run.plan, state.progress.step
    is_last = step == plan.steps
    if is_last or step % plan.log_every == 0:
        _report_training(run, state)
    if is_last or step % plan.eval_every == 0:
        _validate(run, state)
    if is_last or step % plan.save_every == 0:
        check_parity(adapter_tensors(run.model), run.ranks, step)
        # Told first, so that the checkpoint knows of it and a run that goes on tells it once.
        run.journal.event("save", step, f"step {step}/{plan.steps}  saving")
        run.save(checkpoint(run, state))


def _validate(run: Run, state: State) -> None:
    progress = state.progress
    with losses_told(run.ranks):
        alive = partial(run.beat, progress.step)  # a validation may take longer than a step may
        loss, tokens = evaluate(run.model, run.validation, run.row_ranks, alive)
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_step, progress.without_gain = loss, progress.step, 0
        state.best = adapter_tensors(run.model)
    else:
        progress.without_gain += 1
    line = f"step {progress.step}/{run.plan.steps}  valid loss {loss:.4f}"
    run.journal.loss("valid", progress.step, loss, tokens, line)


def _report_training(run: Run, state: State) -> None:
    progress = state.progress
    if progress.window_tokens and state.seconds:
        loss, rate = progress.window_loss / progress.window_tokens, progress.window_tokens / state.seconds
        line = f"step {progress.step}/{run.plan.steps}  train loss {loss:.4f}  {rate:.0f} target tokens/s"
        more = {
            "learning_rate": float(state.optimizer.learning_rate.item()),
            "target_tokens_per_second": round(rate, 1),
            "computed_tokens_per_second": round(state.computed_tokens / state.seconds, 1),
            "exchange_share": round(state.exchange_s / state.seconds, 4),
            "skew_s": round(state.skew_s, 4),
            "grad_norm": round(state.grad_norm, 6),
            "peak_memory_gb": round(mx.get_peak_memory() / 1e9, 3),
        }
        run.journal.loss("train", progress.step, loss, progress.window_tokens, line, **more)
    progress.window_loss, progress.window_tokens = 0.0, 0
    state.seconds = state.exchange_s = state.skew_s = 0.0
    state.computed_tokens = 0
