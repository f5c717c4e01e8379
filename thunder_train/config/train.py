"""The keys of [train], in the order of launch.sh: type, bounds, unit, default and help of each, stated only here.

The loader checks recipes with them, and worker/args.py makes the worker's flags from them. The code hash of `train`
covers this file, so it holds what a training reads and nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from thunder_train.config.fields import LAYER, NAME, SEED_MAX, real, switch, text, texts, whole

MAX_STEPS = 10_000_000
ALL = "all"
"""Of num_layers."""
DAY_S = 86_400


@dataclass(frozen=True, eq=False, kw_only=True)
class Train:
    """The [train] table of a recipe."""

    strategy: str = text(
        help="data: each rank holds the whole model and trains on its own rows; tensor: each rank holds a part of "
        "every layer",
        choices=("data", "tensor"),
        default="data",
    )
    num_iters: int = whole(
        help="Optimizer steps; a recipe gives these or epochs", unit="steps", low=0, high=MAX_STEPS, default=0
    )
    epochs: float = real(
        help="Instead of num_iters: how often each row is read, as 3 or 1.5 (0 = not given)",
        unit="epochs",
        low=0.0,
        high=100_000.0,
        default=0.0,
        later=True,
    )
    batch_size: int = whole(help="Rows per rank and batch", unit="rows per rank", low=1, high=65_536, default=1)
    num_layers: Any = whole(  # noqa: RUF009
        help='Last layers of the model that get LoRA, or "all"', unit="layers", low=1, high=1024, default=4, word=ALL
    )
    lora_rank: int = whole(help="Rank of the LoRA matrices", low=1, high=4096, default=8)
    learning_rate: float = real(
        help="Step size of the optimizer, at its highest in the schedule",
        unit="per step",
        low=1e-9,
        high=1.0,
        default=1e-5,
    )
    log_every: int = whole(help="Steps between training losses", unit="steps", low=1, high=MAX_STEPS, default=10)
    eval_every: int = whole(
        help="Steps between validations; the base (step 0) and the last step are always validated",
        unit="steps",
        low=1,
        high=MAX_STEPS,
        default=100,
    )
    save_every: int = whole(
        help="Steps between checkpoints; the last step always has one",
        unit="steps",
        low=1,
        high=MAX_STEPS,
        default=100,
        operational=True,
    )
    max_seq_len: int = whole(
        help="Longest row, prompt and answer together", unit="tokens", low=8, high=1_048_576, default=512
    )
    fine_tune_type: str = text(
        help="lora, or dora: LoRA with a trained magnitude per output; dora is slower and needs strategy data",
        choices=("lora", "dora"),
        default="lora",
    )
    lora_scale: float = real(help="Factor of the LoRA product", low=0.0, above=True, high=1000.0, default=20.0)
    lora_alpha: float = real(
        help="Instead of lora_scale: lora_scale is lora_alpha / lora_rank (0 = not given)",
        low=0.0,
        high=100_000.0,
        default=0.0,
        later=True,
    )
    lora_dropout: float = real(
        help="Share of the LoRA inputs that are zeroed in training", unit="share", low=0.0, high=0.9, default=0.0
    )
    lora_keys: tuple[str, ...] = texts(
        help="Layers of a block that get LoRA, as self_attn.q_proj, q_proj or *.mlp.*, and lm_head; empty: all",
        pattern=LAYER,
        default=(),
    )
    global_batch_size: int = whole(
        help="Rows of all ranks together in each step, for any number of ranks "
        "(0 = batch_size x ranks x grad_accumulation)",
        unit="rows",
        low=0,
        high=1_000_000,
        default=0,
    )
    grad_accumulation: int = whole(
        help="Batches whose gradients are added in one step", unit="batches", low=1, high=65_536, default=1
    )
    micro_tokens: int = whole(
        help="Tokens per forward pass, padding included; a longer row gets a pass of its own",
        unit="tokens per rank",
        low=8,
        high=10_000_000,
        default=8192,
    )
    packing: str = text(
        help="auto: several rows share a sequence without attending to each other, if the model supports it; "
        "never: rows are padded",
        choices=("auto", "never"),
        default="auto",
    )
    keep_prefix: str = text(
        help="auto: the output of the frozen layers below the adapter is computed once for each row and kept, if rows "
        "are read at least twice and the model supports it; never: it is computed at every step",
        choices=("auto", "never"),
        default="auto",
        later=True,
    )
    train_on: str = text(
        help="What of a row counts in the loss: the last answer, all assistant turns, or everything, prompts too, as "
        "mlx-lm does by default",
        choices=("last", "all", "everything"),
        default="last",
    )
    too_long: str = text(
        help="What to do with a row whose answer exceeds max_seq_len: refuse stops the training; drop leaves the row "
        "out and counts it; split continues the answer in another row",
        choices=("refuse", "drop", "split"),
        default="refuse",
    )
    optimizer: str = text(
        help="What turns gradients into updates (docs/optimizers.md); muon trains matrices alone, so no dora",
        choices=("adamw", "adam", "sgd", "muon", "adafactor", "lion"),
        default="adamw",
        later=True,
    )
    start_from: str = text(
        help='Adapter to begin with instead of a new one: "recipe:NAME" for that of another recipe, or its folder in '
        "the project, in mlx-lm's form",
        default="",
        later=True,
    )
    schedule: str = text(
        help="Learning rate after the warm-up: constant, or linear or cosine decay to 0 at the last step",
        choices=("constant", "linear", "cosine"),
        default="constant",
    )
    warmup_steps: int = whole(
        help="Steps during which the learning rate rises to its highest value",
        unit="steps",
        low=0,
        high=MAX_STEPS,
        default=0,
    )
    warmup_ratio: float = real(
        help="Instead of warmup_steps: their share of all steps",
        unit="share",
        low=0.0,
        high=0.9,
        default=0.0,
        later=True,
    )
    weight_decay: float = real(
        help="Weight decay: decoupled with adamw, adafactor and lion, added to the gradient with sgd and muon; adam "
        "has none, so 0 there",
        unit="per step",
        low=0.0,
        high=1.0,
        default=0.01,
    )
    max_grad_norm: float = real(help="Gradients are clipped to this norm (0 = off)", low=0.0, high=1e6, default=1.0)
    grad_checkpoint: bool = switch(help="Recompute activations in the backward pass to save memory", default=False)
    choose: str = text(
        help="Adapter that is the result: the one with the best validation loss, that of step 0 without effect "
        "included, or the last one",
        choices=("best", "last"),
        default="best",
    )
    eval_rows: int = whole(
        help="Validation rows that are used, evenly spread over valid.jsonl and always the same (0 = all)",
        unit="rows",
        low=0,
        high=10_000_000,
        default=0,
        later=True,
    )
    patience: int = whole(
        help="Early stopping: stop after this many validations that improve on none before, the base's at step 0 "
        "included (0 = off)",
        unit="validations",
        low=0,
        high=10_000,
        default=0,
    )
    max_skipped: int = whole(
        help="Stop after this many consecutive steps with non-finite gradients, or validations with a non-finite loss",
        unit="steps",
        low=1,
        high=10_000,
        default=10,
    )
    keep_checkpoints: int = whole(
        help="Number of checkpoints to keep", unit="checkpoints", low=1, high=1000, default=2, operational=True
    )
    stall_timeout_s: int = whole(
        help="Seconds allowed between two steps; then the run is stopped (0 = no limit)",
        unit="s",
        low=0,
        high=DAY_S,
        default=600,
        operational=True,
    )
    start_timeout_s: int = whole(
        help="Seconds allowed until the first step completes; then the run is stopped (0 = no limit)",
        unit="s",
        low=0,
        high=DAY_S,
        default=1800,
        operational=True,
    )
    max_restarts: int = whole(
        help="Number of times a failed run is restarted from its last checkpoint",
        low=0,
        high=1000,
        default=0,
        operational=True,
    )
    report_to: tuple[str, ...] = texts(
        help="Experiment trackers that rank 0 reports to", choices=("wandb", "swanlab"), default=(), operational=True
    )
    report_project: str = text(
        help="Project of the experiment trackers",
        pattern=NAME,
        default="thunder-train",
        operational=True,
    )
    report_name: str = text(
        help="Name of the run in the experiment trackers; without it that of its folder, its recipe's",
        pattern=NAME.replace("^", "^(", 1)[:-1] + ")?$",
        default="",
        operational=True,
        later=True,
    )
    seed: int = whole(help="Seed of the LoRA weights, dropout and row order", low=0, high=SEED_MAX, default=0)

    def rows_per_step(self, row_ranks: int) -> int:
        """Rows of one optimizer step. row_ranks: ranks that take rows of their own; 1 with the tensor strategy."""
        return self.global_batch_size or self.batch_size * row_ranks * self.grad_accumulation

    def steps(self, rows: int, row_ranks: int) -> int:
        """Optimizer steps for so many training rows. The last step of an epoch may have fewer rows than the others."""
        return self.num_iters or math.ceil(round(self.epochs * math.ceil(rows / self.rows_per_step(row_ranks)), 6))

    def warmup(self, steps: int) -> int:
        """Steps of the warm-up, of so many."""
        return self.warmup_steps or round(self.warmup_ratio * steps)

    @property
    def scale(self) -> float:
        """Factor of the LoRA product."""
        return self.lora_alpha / self.lora_rank if self.lora_alpha else self.lora_scale


def implied(table: dict[str, Any]) -> dict[str, Any]:
    """A [train] table with the values that its other keys imply where it gives none."""
    return {"weight_decay": 0.0, **table} if table.get("optimizer") == "adam" else table


def flag_of(key: str) -> str:
    """The flag of launch.sh for a key."""
    return f"--{key.removesuffix('_s').replace('_', '-')}"


DEFAULTS = {key.name: key.default for key in fields(Train)}


class Contradiction(NamedTuple):
    """Two keys of [train] that exclude each other; key: the one to name in an error."""

    key: str
    what: str
    hint: str


def contradictions(train: Train, spelled: Callable[..., str]) -> list[Contradiction]:
    """Keys that are valid alone and exclude each other.

    spelled: writes a key, or a key and its value, as the user gave it: `strategy = "data"` or `--strategy data`.
    """
    problems = [
        Contradiction(key, f"is given, and so is {spelled(other)}", "leave one of them out")
        for key, other in (("epochs", "num_iters"), ("lora_alpha", "lora_scale"), ("warmup_ratio", "warmup_steps"))
        if getattr(train, key) and getattr(train, other) != DEFAULTS[other]
    ]
    if not train.num_iters and not train.epochs:
        hint = f"give {spelled('num_iters')} or {spelled('epochs')}"
        problems.append(Contradiction("num_iters", "is missing", hint))
    if train.global_batch_size and (train.batch_size > 1 or train.grad_accumulation > 1):
        others = f"{spelled('batch_size')} and {spelled('grad_accumulation')}"
        what = f"sets the rows of a step, and so do {others}"
        problems.append(Contradiction("global_batch_size", what, "leave the other two out"))
    if train.fine_tune_type == "dora" and train.strategy == "tensor":
        what = f"DoRA is not supported with {spelled('strategy', 'tensor')}"
        hint = f"use {spelled('fine_tune_type', 'lora')}, or {spelled('strategy', 'data')}"
        problems.append(Contradiction("fine_tune_type", what, hint))
    if train.strategy == "tensor" and any(key.split(".")[-1] == "lm_head" for key in train.lora_keys):
        hint = f"leave it out, or use {spelled('strategy', 'data')}"
        what = f"names lm_head, which is not supported with {spelled('strategy', 'tensor')}"
        problems.append(Contradiction("lora_keys", what, hint))
    if train.warmup_steps >= train.num_iters > 0:
        what = f"is {train.warmup_steps} of {train.num_iters} steps"
        problems.append(Contradiction("warmup_steps", what, "warm up for fewer steps than there are"))
    if train.optimizer == "adam" and train.weight_decay:
        what = f"is {train.weight_decay}, and adam has no weight decay"
        hint = f"set it to 0, or use {spelled('optimizer', 'adamw')}"
        problems.append(Contradiction("weight_decay", what, hint))
    if train.optimizer == "muon" and train.fine_tune_type == "dora":
        what = "muon trains matrices, and the magnitudes of DoRA are none"
        hint = f"use {spelled('optimizer', 'adamw')}, or {spelled('fine_tune_type', 'lora')}"
        problems.append(Contradiction("optimizer", what, hint))
    return problems
