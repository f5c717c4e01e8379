"""The training loop: optimizer steps, validations, the best adapter so far, checkpoints, early stopping.

Every decision follows from numbers that all ranks share, so that none of them leaves a sum that the others wait in.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from thunder_train import ThunderError
from thunder_train.worker import optimizer as optimizers
from thunder_train.worker.batching import broken_rows
from thunder_train.worker.batching.batch import Batch
from thunder_train.worker.batching.loader import DataLoader
from thunder_train.worker.frozen_prefix import FrozenPrefix
from thunder_train.worker.model import adapter_tensors
from thunder_train.worker.ranks import Ranks, check_parity, raising_lost_ranks
from thunder_train.worker.train.checkpoint import Checkpoint, Progress, Tensors
from thunder_train.worker.train.metrics_log import MetricsLog, memory_bytes
from thunder_train.worker.train.step import Totals, local_sums, schedule, sum_over_ranks, update
from thunder_train.worker.train.validation import Validation, validate


@dataclass(frozen=True)
class Plan:
    """Optimizer steps, the optimizer and its values, how often to log, validate and save, and when to stop early.

    patience: stop after this many validations without improvement; 0: off. max_skipped: stop after this many
    consecutive steps that were skipped, or validations.
    """

    steps: int
    seed: int
    optimizer: str
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
    """Everything that a training needs.

    model: frozen except for its adapter. rows: of train.jsonl. validation: this rank's batches of valid.jsonl; None if
    that has no row, so that no adapter is better than another. row_ranks: the ranks that share the rows of a step; a
    single one with strategy "tensor", where every rank computes all rows. save: writes a checkpoint. beat: tells the
    watchdog which step has ended. stop_asked: whether this rank asks all ranks to stop. kept: by split, the output of
    the frozen blocks; empty when it is not kept.
    """

    model: nn.Module
    rows: DataLoader
    validation: list[Batch] | None
    plan: Plan
    ranks: Ranks
    row_ranks: Ranks
    log: MetricsLog
    identity: dict[str, str]
    save: Callable[[Checkpoint], None]
    beat: Callable[[int], None]
    stop_asked: Callable[[], bool]
    kept: Mapping[str, FrozenPrefix] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """True if this rank adds its loss and targets to the all-reduce (strategy "tensor": rank 0 only)."""
        return self.row_ranks.size == self.ranks.size or self.ranks.rank == 0


@dataclass
class State:
    """What changes during a run. best: the adapter of the best validation; empty before the first.

    The numbers below progress are of the steps since the last training line.
    """

    optimizer: Any
    progress: Progress
    best: Tensors
    seconds: float = 0.0
    """Without validation and saving."""
    exchange_s: float = 0.0
    """Seconds of the all-reduce, waiting for slower ranks included."""
    skew_s: float = 0.0
    """Seconds by which the slowest rank computed longer than the fastest."""
    computed_tokens: int = 0
    """Tokens that this rank computed, padding included."""
    memory_bytes: int = 0
    """Most that this process has needed so far."""
    grad_norm: float = 0.0
    """Of the last step, before clipping."""


def start(run: Run, checkpoint: Checkpoint | None) -> State:
    """The state of a new run, or of one that resumes from a checkpoint."""
    plan = run.plan
    rate = schedule(plan.schedule, plan.learning_rate, plan.steps, plan.warmup_steps)
    optimizer = optimizers.make(plan.optimizer, rate, plan.weight_decay)
    optimizer.init(run.model.trainable_parameters())
    if checkpoint is None:
        return State(optimizer, run.log.progress, {})
    run.model.update(tree_unflatten([(name, mx.array(tensor)) for name, tensor in checkpoint.adapter.items()]))
    # With its counter of updates, which schedule and bias correction follow: a skipped step made no update.
    optimizer.state = tree_unflatten([(name, mx.array(array)) for name, array in checkpoint.optimizer.items()])
    mx.eval(run.model.trainable_parameters(), optimizer.state)
    return State(optimizer, run.log.progress, checkpoint.best)


def train(run: Run, state: State) -> bool:
    """Train from the state's step to the plan's end. Returns whether a rank asked to stop before it.

    Raises ThunderError when too many steps or validations in a row are skipped, when no step was applied, and when the
    ranks' adapters differ.
    """
    progress, patience = state.progress, run.plan.patience or math.inf
    if run.validation is not None and progress.step == 0 and not progress.is_base_validated:
        # Without this loss the best of several adapters could be worse than none.
        progress.is_base_validated = True
        if problem := _validate(run, state):
            raise problem
    while progress.step < run.plan.steps and progress.without_gain < patience:
        totals = one_step(run, state)
        if totals.stop:
            return True  # on all ranks at the same step, for the request was part of the sum
        _after_step(run, state)
        run.beat(progress.step)
    _report_end(run, state)
    return False


def one_step(run: Run, state: State) -> Totals:
    """Forward, backward, sum over ranks, update. A step that is stopped changes nothing and is not counted."""
    progress, plan = state.progress, run.plan
    began = time.perf_counter()
    # Dropout depends on seed, step and rank only: a resumed run needs no random state, a validation cannot change it,
    # and ranks drop different inputs. (With strategy "tensor" all ranks compute the same rows and must drop the same.)
    # A factor above the numbers of steps and ranks gives each triple its own seed (until it wraps at 2^63).
    mx.random.seed(((plan.seed * 1_000_003 + progress.step + 1) * 1_000_003 + run.row_ranks.rank) % 2**63)
    batches = run.rows.step(progress.step)
    with raising_lost_ranks(run.ranks):
        sums = local_sums(run.model, batches, run.kept.get("train"))
    busy_s = time.perf_counter() - began
    totals = sum_over_ranks(sums, run.stop_asked(), busy_s, run.ranks, run.counts)
    if totals.stop:
        return totals
    norm = update(run.model, state.optimizer, totals, plan.max_grad_norm)
    progress.step += 1
    state.seconds += time.perf_counter() - began
    state.memory_bytes = max(state.memory_bytes, memory_bytes())
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


def checkpoint(run: Run, state: State) -> Checkpoint:
    """Everything that the next step depends on, the same on every rank."""
    remembered = {name: np.array(leaf) for name, leaf in tree_flatten(state.optimizer.state)}
    return Checkpoint(run.identity, state.progress, adapter_tensors(run.model), remembered, state.best)


def _skip(run: Run, state: State, totals: Totals) -> None:
    """Count and log a skipped step. One update with a NaN would make every later weight a NaN."""
    progress = state.progress
    progress.skipped, progress.skipped_in_a_row = progress.skipped + 1, progress.skipped_in_a_row + 1
    ranks = ", ".join(str(rank) for rank, finite in enumerate(totals.finite) if not finite) or "all"
    ids = [run.rows.examples[row].row_id for row in run.rows.rows(progress.step - 1)]
    rows = broken_rows.named(ids)
    why = "has no target" if not totals.tokens else f"is not finite on rank {ranks}"
    line = f"step {progress.step}/{run.plan.steps}  skipped: the gradient {why}; rows {rows}"
    run.log.event("skip", progress.step, line, rows=ids)
    if progress.skipped_in_a_row >= run.plan.max_skipped:
        raise ThunderError(
            f"{progress.skipped_in_a_row} steps in a row had a gradient that {why}; the last one's rows: {rows}",
            where=f"step {progress.step}",
            hint="lower the learning rate, or look at these rows and the base model",
        )


def _after_step(run: Run, state: State) -> None:
    """A training line, a validation and a checkpoint, where they are due; all three after the last step."""
    plan, step = run.plan, state.progress.step
    is_last = step == plan.steps
    if is_last or step % plan.log_every == 0:
        _report_training(run, state)
    problem = _validate(run, state) if is_last or step % plan.eval_every == 0 else None
    if is_last or problem or step % plan.save_every == 0:
        # Ranks exchange gradients, never weights, so a wrong sum or a flipped bit would go unnoticed until here.
        check_parity(adapter_tensors(run.model), run.ranks, step)
        # Before saving, so that the event is in the checkpoint, and a resumed run has it exactly once.
        run.log.event("save", step, f"step {step}/{plan.steps}  saving")
        run.save(checkpoint(run, state))
    if problem:
        raise problem


def _validate(run: Run, state: State) -> ThunderError | None:
    """Validate, and keep the adapter if it is the best so far. Returns why the run must end, after a checkpoint."""
    progress = state.progress
    if run.validation is None:
        return None
    with raising_lost_ranks(run.ranks):
        # The watchdog's limit is that of a step, and a validation may take longer.
        tick = partial(run.beat, progress.step)
        found = validate(run.model, run.validation, run.ranks, run.row_ranks, tick, run.kept.get("valid"))
    if not found.is_finite:
        return _skip_validation(run, state, found)
    progress.skipped_validations_in_a_row = 0
    if progress.best_loss is None or found.loss < progress.best_loss:
        progress.best_loss, progress.best_step, progress.without_gain = found.loss, progress.step, 0
        state.best = adapter_tensors(run.model)
    else:
        progress.without_gain += 1
    line = f"step {progress.step}/{run.plan.steps}  valid loss {found.loss:.4f}"
    run.log.loss("valid", progress.step, found.loss, found.targets, line)
    return None


def _skip_validation(run: Run, state: State, found: Validation) -> ThunderError | None:
    """Count and log a validation that says nothing; the best adapter so far stays. An error after too many in a row."""
    progress = state.progress
    progress.skipped_validations += 1
    progress.skipped_validations_in_a_row += 1
    rows = f" for {broken_rows.counted(found.broken)}" if found.broken else ""
    line = f"step {progress.step}/{run.plan.steps}  validation skipped: the loss is not finite{rows}"
    run.log.event("skip_valid", progress.step, line, rows=list(found.broken))
    if progress.skipped_validations_in_a_row < run.plan.max_skipped:
        return None
    return ThunderError(
        f"{progress.skipped_validations_in_a_row} validations in a row had a loss that is not finite{rows}",
        where=f"step {progress.step}",
        hint="look at these rows and the base model; with a higher max_skipped the run goes on from its checkpoint",
    )


def _report_end(run: Run, state: State) -> None:
    """Say whether the training stopped early. Raises ThunderError when it changed nothing."""
    plan, progress = run.plan, state.progress
    if progress.step == progress.skipped:
        raise ThunderError(
            f"no step was applied: all {progress.step} were skipped",
            where="training",
            hint="lower the learning rate, or look at the rows named above and at the base model",
        )
    if progress.step < plan.steps:
        line = f"step {progress.step}/{plan.steps}  stopped early: the best validation loss was at step "
        line += f"{progress.best_step}, and {progress.without_gain} validations since then were no better "
        run.log.event("stop", progress.step, line + f"(patience {plan.patience})")


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
            "peak_memory_gb": round(state.memory_bytes / 1e9, 3),
        }
        run.log.loss("train", progress.step, loss, progress.window_tokens, line, **more)
    progress.window_loss, progress.window_tokens = 0.0, 0
    state.seconds = state.exchange_s = state.skew_s = 0.0
    state.computed_tokens = 0
