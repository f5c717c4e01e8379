"""From flags to a run that can begin: checks that the ranks agree, loads model, rows and the last checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, shipped
from thunder_train.worker import adapter, chat, frozen_prefix, model, optimizer, ranks, start, tensor_parallel
from thunder_train.worker.args import Settings
from thunder_train.worker.batching import batch, tokens
from thunder_train.worker.batching.loader import DataLoader, costs_of
from thunder_train.worker.batching.tokens import Split
from thunder_train.worker.frozen_prefix import FrozenPrefix
from thunder_train.worker.model import Lora
from thunder_train.worker.ranks import Ranks
from thunder_train.worker.train import checkpoint
from thunder_train.worker.train.checkpoint import Checkpoint, Progress
from thunder_train.worker.train.loop import Plan, Run
from thunder_train.worker.train.metrics_log import MetricsLog


@dataclass(frozen=True)
class Counts:
    """Sizes of the whole model and its adapter."""

    parameters: int
    trainable_parameters: int


@dataclass(frozen=True)
class Setup:
    """Everything that the flags name, loaded. not_packed: why rows are not packed; "" when they are. not_kept: the same
    of the output of the frozen blocks.
    """

    ranks: Ranks
    identity: dict[str, str]
    model: nn.Module
    lora: Lora
    counts: Counts
    splits: dict[str, Split]
    not_packed: str
    not_kept: str
    steps: int
    """Of the whole training."""
    valid_rows: int
    """Of valid.jsonl that fit, of which --eval-rows may take a part."""


def prepare(settings: Settings, group: Ranks) -> Setup:
    """Check that the joined ranks agree, load model and rows. Raises ThunderError for what cannot be trained."""
    is_data = settings.strategy == "data"
    training = identity(settings, group)
    ranks.check_identity(training, group)  # before the minutes of loading
    group = ranks.weighted(group, settings.weights)
    # With strategy "tensor" the weights stay unread until the layers are split, below: the whole model may not fit.
    base, tokenizer = model.load(settings.model, model.pinned_commit(settings.model_lock), lazy=not is_data)
    policy = tokens.Policy(settings.max_seq_len, settings.too_long, settings.train_on)
    spoken, cache = chat.of(tokenizer, settings), settings.token_cache
    may_be_empty = settings.valid_data.stat().st_size == 0  # else all its rows are too long, which is a mistake
    splits = {
        "train": tokens.read(settings.train_data, spoken, policy, cache),
        "valid": tokens.read(settings.valid_data, spoken, policy, cache, may_be_empty),
    }
    begun = start.read(settings.start_from) if settings.start_from else None
    if identity(settings, group) != training:
        raise ThunderError("rows or model changed while they were read", "--train-data", "train again")
    rows = settings.rows_per_step(group.size if is_data else 1)
    _check_rows(len(splits["train"].examples), rows, settings.train_data)
    _check_patience(settings, len(splits["valid"].examples))
    steps = settings.steps(len(splits["train"].examples), group.size if is_data else 1)
    _check_warmup(settings, steps)
    valid_rows = len(splits["valid"].examples)
    splits["valid"] = splits["valid"].spread(settings.eval_rows)
    lora, total = model.resolved(base, _lora(settings)), model.parameters(base)
    # Before the layers are split: mlx-lm's function would find no layer to adapt in a split model.
    model.add_lora(base, lora, settings.seed)
    raise_all(optimizer.problems(settings.optimizer, base))
    if begun:
        start.put_on(base, begun, lora, settings.model)
    counts = Counts(total, model.trainable_parameters(base))
    not_packed = batch.packing_problem(base) if settings.packing == "auto" else "packing is off"
    not_kept = frozen_prefix.why_not_kept(settings.keep_prefix, base, _epochs(settings, splits["train"], group, steps))
    if settings.grad_checkpoint:
        model.checkpoint_blocks(base)
    if not is_data:
        tensor_parallel.shard(base, group)
        mx.eval(base.parameters())
    return Setup(group, training, base, lora, counts, splits, not_packed, not_kept, steps, valid_rows)


def _epochs(settings: Settings, train: Split, group: Ranks, steps: int) -> float:
    """How often each row is read in so many steps."""
    rows = settings.rows_per_step(group.size if settings.strategy == "data" else 1)
    return steps / -(-len(train.examples) // rows)


def _lora(settings: Settings) -> Lora:
    return Lora(
        num_layers=settings.num_layers,
        rank=settings.lora_rank,
        scale=settings.scale,
        dropout=settings.lora_dropout,
        keys=settings.lora_keys,
        kind=settings.fine_tune_type,
    )


def assemble(
    settings: Settings,
    ready: Setup,
    beat: Callable[[int], None],
    stop_asked: Callable[[], bool],
    track: Callable[[dict[str, Any]], None] | None,
) -> tuple[Run, Checkpoint | None]:
    """The run, and the checkpoint that it resumes from.

    beat: called after each step. stop_asked: whether this rank asks all ranks to stop. track: takes rank 0's events.
    """
    group, first = ready.ranks, ready.ranks.rank == 0
    row_ranks = group if settings.strategy == "data" else Ranks(0, 1)
    last, refused = _last_checkpoint(settings, ready)
    progress = last.progress if last else Progress()
    metrics = settings.adapter_path.parent / "metrics.jsonl" if first else None
    log = MetricsLog(metrics, progress, track)
    if first:
        adapter.remove_old(settings.adapter_path)
        for note in [*refused, *_notes(settings, ready)]:
            log.say(note)
    if last:
        log.event("resume", progress.step, _resumed(last, ready.steps))

    is_validated = bool(ready.splits["valid"].examples)
    run = Run(
        model=ready.model,
        rows=_loader(settings, ready, "train", row_ranks),
        validation=_loader(settings, ready, "valid", row_ranks).validation() if is_validated else None,
        plan=_plan(settings, ready.steps),
        ranks=group,
        row_ranks=row_ranks,
        log=log,
        identity=ready.identity,
        save=_saver(settings, group.rank),
        beat=beat,
        stop_asked=stop_asked,
        kept=_kept(settings, ready),
    )
    return run, last


def _kept(settings: Settings, ready: Setup) -> dict[str, FrozenPrefix]:
    """By split: what keeps the output of the frozen blocks; empty when it is not kept."""
    if ready.not_kept:
        return {}
    folder = (settings.token_cache or settings.checkpoint_path).parent / "prefix"
    tokens = {name: split.tokens for name, split in ready.splits.items()}
    return frozen_prefix.keepers(ready.model, frozen_prefix.depth(ready.model), tokens, folder)


def _kept_note(ready: Setup) -> str:
    if ready.not_kept:
        return f"the output of frozen layers is not kept: {ready.not_kept}"
    layers = frozen_prefix.depth(ready.model)
    tokens = sum(split.tokens for split in ready.splits.values())
    size = frozen_prefix.token_bytes(ready.model, layers) * tokens
    place = "memory" if size <= frozen_prefix.IN_MEMORY else "a file of each rank, below .thunder"
    return f"the output of the first {layers} layers, which are frozen, is kept: up to {size / 1e6:.1f} MB in {place}"


def _resumed(last: Checkpoint, steps: int) -> str:
    """What is said of the checkpoint that a training of so many steps goes on from."""
    whose = f", as a training of {last.steps} steps left it" if last.steps != steps else ""
    return f"step {last.progress.step}/{steps}  goes on from here{whose}"


def _notes(settings: Settings, ready: Setup) -> list[str]:
    """What is said of the start and of the rows before the first step."""
    packed = f"rows are not packed: {ready.not_packed}" if ready.not_packed else "rows are packed"
    begun = f"it begins with the adapter in {settings.start_from}, which the validation at step 0 is of"
    notes = [
        *[begun] * bool(settings.start_from),
        packed,
        _kept_note(ready),
        *dict.fromkeys(note for split in ready.splits.values() for note in split.notes),
    ]
    if len(ready.splits["valid"].examples) < ready.valid_rows:
        notes.append(f"validations use {len(ready.splits['valid'].examples)} of {ready.valid_rows} rows")
    if not ready.splits["valid"].examples:
        notes.append("no validation: valid.jsonl has no row, so the adapter is that of the last step")
    return notes


def identity(settings: Settings, group: Ranks) -> dict[str, str]:
    """What decides the training's numbers, each as text: flags, ranks, data and model by content, versions."""
    paths = {"--train-data": settings.train_data, "--valid-data": settings.valid_data}
    for flag, path in paths.items():
        files.require(path, hint=f"run `./doit data`, or correct {flag}")
    given = settings.chat_files() | settings.start_files()
    for flag, path in given.items():
        files.require(path, hint=f"correct {flag}")
    return ranks.identity(
        flags={**settings.numeric(), "ranks": group.size},
        paths=paths | given,
        model=_model_digest(settings),
        versions={"mlx": version("mlx"), "mlx-lm": version("mlx-lm"), "device": mx.default_device().type.name},
    )


def _model_digest(settings: Settings) -> str:
    """A digest of the model's lock; without a lock, of its config and the sizes of its files.

    Hashing the weights may take minutes, at each start.
    """
    if settings.model_lock:
        lock = files.read_json(settings.model_lock, hint="run `./doit model`")
        return files.digest(lock.get("files"))[:16]
    folder = shipped.place(settings.model)
    if not folder.is_dir():
        return settings.model
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}
    config = folder / "config.json"
    return files.digest([sizes, files.sha256(config) if config.is_file() else ""])[:16]


def _check_rows(rows: int, needed: int, path: Path) -> None:
    if needed > rows:
        fact = f"has {rows} rows, fewer than the {needed} of one step"
        raise ThunderError(fact, where=str(path), hint="lower --batch-size or --global-batch-size, or use fewer ranks")


def _check_patience(settings: Settings, validation_rows: int) -> None:
    if settings.patience and not validation_rows:
        hint = "leave it out, or give validation rows"
        raise ThunderError(f"counts validations, and {settings.valid_data} has no row", "--patience", hint)


def _check_warmup(settings: Settings, steps: int) -> None:
    if settings.warmup_steps >= steps:
        what = f"is {settings.warmup_steps} of {steps} steps"
        raise ThunderError(what, "--warmup-steps", "warm up for fewer steps than there are")


def _last_checkpoint(settings: Settings, ready: Setup) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, on every rank, and why one of another number of steps is not.

    Raises ThunderError for a checkpoint of another training in --checkpoint-path.
    """
    intervals = {"--log-every": settings.log_every}
    if ready.splits["valid"].examples:
        intervals = {"--eval-every": settings.eval_every, **intervals}
    refused = []
    for folder in filter(None, (settings.checkpoint_path, settings.extend_from)):
        last, where = _newest(folder, ready)
        if last is None:
            continue
        try:
            checkpoint.check_identity(last.identity, ready.identity, where)
            why = checkpoint.not_extended(last, ready.steps, settings.schedule, intervals)
            if not why and settings.warmup_ratio and last.steps != ready.steps:
                why = "the number of steps is part of the warm-up with --warmup-ratio"
            if not why and not ready.not_kept and _epochs(settings, ready.splits["train"], ready.ranks, last.steps) < 2:
                why = "it reads its rows less than twice, and so computes all layers of each of them again"
        except ThunderError as error:
            if folder == settings.checkpoint_path:
                raise
            why = error.what
        if not why:
            return last, []
        refused.append(f"does not go on from step {last.progress.step} of {where}: {why}")
        if folder == settings.checkpoint_path and _writes(settings, ready.ranks.rank):
            checkpoint.remove(folder)  # else it would outlive the first ones of this training, whose steps are fewer
    return None, refused


def _newest(folder: Path, ready: Setup) -> tuple[Checkpoint | None, str]:
    """The newest undamaged checkpoint of any rank, on every rank, and where it lies; of equally new ones the first
    rank's.
    """
    mine = checkpoint.latest(folder)
    step = checkpoint.decode(mine).progress.step if mine else -1
    steps = [int(text) for text in ranks.all_gather(str(step).encode(), ready.ranks)]
    source = steps.index(max(steps))
    data = ranks.broadcast(mine, ready.ranks, source)
    return checkpoint.decode(data) if data else None, f"{folder} of rank {source}" if source else str(folder)


def _writes(settings: Settings, rank: int) -> bool:
    # One rank of every host writes: all hold the same state, and the host that is lost may be the first rank's.
    return ranks.is_first_on_host(settings.hostfile, rank)


def _saver(settings: Settings, rank: int) -> Callable[[Checkpoint], None]:
    writes = _writes(settings, rank)

    def save(state: Checkpoint) -> None:
        if writes:
            checkpoint.write(settings.checkpoint_path, state, settings.keep_checkpoints)

    return save


def _loader(settings: Settings, ready: Setup, name: str, row_ranks: Ranks) -> DataLoader:
    examples = ready.splits[name].examples
    costs = replace(costs_of(ready.model, examples.lengths, settings.micro_tokens), is_packed=not ready.not_packed)
    rows = settings.rows_per_step(row_ranks.size)
    kept = 0.0 if ready.not_kept else frozen_prefix.share(ready.model, frozen_prefix.depth(ready.model))
    return DataLoader(examples, rows, settings.seed, row_ranks.rank, row_ranks.size, costs, settings.weights, kept)


def _plan(settings: Settings, steps: int) -> Plan:
    names: tuple[str, ...] = tuple(Plan.__dataclass_fields__)
    values: dict[str, Any] = {name: getattr(settings, name) for name in names if name not in ("steps", "warmup_steps")}
    return Plan(steps=steps, warmup_steps=settings.warmup(steps), **values)
