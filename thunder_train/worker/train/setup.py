"""From flags to a run that can begin: ranks agreed, model and rows read, the last checkpoint found."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import adapter, model, ranks, tensor_parallel
from thunder_train.worker.args import Settings
from thunder_train.worker.batching import batch, tokens
from thunder_train.worker.batching.loader import DataLoader, costs_of
from thunder_train.worker.batching.tokens import Split
from thunder_train.worker.model import Lora
from thunder_train.worker.ranks import Ranks
from thunder_train.worker.train import checkpoint as resume
from thunder_train.worker.train.checkpoint import Checkpoint, Progress
from thunder_train.worker.train.loop import Plan, Run
from thunder_train.worker.train.metrics_log import Journal, Tracker


@dataclass(frozen=True)
class Counts:
    """Numbers of the model and of its adapter, whole."""

    parameters: int
    trainable_parameters: int


@dataclass(frozen=True)
class Setup:
    """What the flags stand for. not_packed: why rows are not packed; "" when they are."""

    ranks: Ranks
    identity: dict[str, str]
    model: nn.Module
    lora: Lora
    counts: Counts
    splits: dict[str, Split]
    not_packed: str


def prepare(settings: Settings, group: Ranks) -> Setup:
    """Check that the joined ranks agree, load model and rows. Raises ThunderError for what cannot be trained."""
    is_data = settings.strategy == "data"
    told = identity(settings, group)
    ranks.check_identity(told, group)
    group = ranks.weighted(group, settings.weights)
    base, tokenizer = model.load(settings.model, model.pinned_commit(settings.model_lock), lazy=not is_data)
    policy = tokens.Policy(settings.max_seq_len, settings.too_long, settings.train_on)
    splits = {
        name: tokens.read(path, tokenizer, policy, settings.token_cache)
        for name, path in (("train", settings.train_data), ("valid", settings.valid_data))
    }
    rows = settings.rows_per_step(group.size if is_data else 1)
    _check_rows(len(splits["train"].examples), rows, settings.train_data)
    lora = Lora(
        num_layers=settings.num_layers,
        rank=settings.lora_rank,
        scale=settings.lora_scale,
        dropout=settings.lora_dropout,
        keys=settings.lora_keys,
        kind=settings.fine_tune_type,
    )
    total = model.parameters(base)
    model.add_lora(base, lora, settings.seed)
    counts = Counts(total, model.trainable_parameters(base))
    not_packed = batch.packing_problem(base) if settings.packing == "auto" else "packing is off"
    if settings.grad_checkpoint:
        model.checkpoint_blocks(base)
    if not is_data:
        tensor_parallel.shard(base, group)
        mx.eval(base.parameters())
    return Setup(group, told, base, lora, counts, splits, not_packed)


def assemble(
    settings: Settings, ready: Setup, beat: Callable[[int], None], stop_asked: Callable[[], bool], track: Tracker | None
) -> tuple[Run, Checkpoint | None]:
    """The run, and the checkpoint that it goes on from. Rank 0 alone writes, but each host keeps checkpoints.

    beat: called after each step; stop_asked: whether this rank asks all to stop; track: takes rank 0's events.
    """
    group, first = ready.ranks, ready.ranks.rank == 0
    row_ranks = group if settings.strategy == "data" else Ranks(0, 1)
    found = _last_checkpoint(settings, ready)
    progress = found.progress if found else Progress()
    metrics = settings.adapter_path.parent / "metrics.jsonl" if first else None
    journal = Journal(metrics, progress, track)
    if first:
        adapter.begin(settings.adapter_path)
        journal.say(f"rows are not packed: {ready.not_packed}" if ready.not_packed else "rows are packed")
    if found:
        journal.event("resume", progress.step, f"step {progress.step}/{settings.num_iters}  goes on from here")

    keeps = ranks.is_first_on_host(settings.hostfile, group.rank)

    def save(state: Checkpoint) -> None:
        if keeps:  # on every host, since all ranks hold the same state: no lost host costs more than a step
            resume.write(settings.checkpoint_path, state, settings.keep_checkpoints)

    feeds = {name: _feed(settings, ready, name, row_ranks) for name in ("train", "valid")}
    run = Run(
        model=ready.model,
        rows=feeds["train"],
        validation=feeds["valid"].validation(),
        plan=_plan(settings),
        ranks=group,
        row_ranks=row_ranks,
        journal=journal,
        identity=ready.identity,
        save=save,
        beat=beat,
        stop_asked=stop_asked,
    )
    return run, found


def identity(settings: Settings, group: Ranks) -> dict[str, str]:
    """The training in words: flags that decide numbers, ranks, data and model by content, versions."""
    paths = {"--train-data": settings.train_data, "--valid-data": settings.valid_data}
    for flag, path in paths.items():
        files.require(path, hint=f"run `./doit data`, or correct {flag}")
    return ranks.identity(
        flags={**settings.numeric(), "ranks": group.size},
        paths=paths,
        model=_model_digest(settings),
        versions={"mlx": version("mlx"), "mlx-lm": version("mlx-lm"), "device": mx.default_device().type.name},
    )


def _model_digest(settings: Settings) -> str:
    """The model by the hashes of its lock; without one by its config and the sizes of its files."""
    if settings.model_lock:
        lock = files.read_json(settings.model_lock, hint="run `./doit model`")
        return files.digest(lock.get("files"))[:16]
    folder = Path(settings.model)
    if not folder.is_dir():
        return settings.model
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}
    config = folder / "config.json"
    return files.digest([sizes, files.sha256(config) if config.is_file() else ""])[:16]


def _check_rows(rows: int, needed: int, path: Path) -> None:
    if needed > rows:
        what = f"has {rows} rows, fewer than the {needed} of one step"
        raise ThunderError(what, where=str(path), hint="lower --batch-size or --global-batch-size, or use fewer ranks")


def _last_checkpoint(settings: Settings, ready: Setup) -> Checkpoint | None:
    """The newest whole checkpoint that any rank has, on every rank; of several the first rank's.

    Raises ThunderError for one of another training.
    """
    mine = resume.latest(settings.checkpoint_path)
    step = resume.decode(mine).progress.step if mine else -1
    steps = [int(told) for told in ranks.gather(str(step).encode(), ready.ranks)]
    holder = steps.index(max(steps))
    data = ranks.share(mine, ready.ranks, holder)
    if data is None:
        return None
    found = resume.decode(data)
    where = f"{settings.checkpoint_path} of rank {holder}" if holder else str(settings.checkpoint_path)
    resume.check_identity(found.identity, ready.identity, where)
    return found


def _feed(settings: Settings, ready: Setup, name: str, row_ranks: Ranks) -> DataLoader:
    examples = ready.splits[name].examples
    costs = replace(costs_of(ready.model, examples, settings.micro_tokens), is_packed=not ready.not_packed)
    rows = settings.rows_per_step(row_ranks.size)
    return DataLoader(examples, rows, settings.seed, row_ranks.rank, row_ranks.size, costs, settings.weights)


def _plan(settings: Settings) -> Plan:
    names: tuple[str, ...] = tuple(Plan.__dataclass_fields__)
    values: dict[str, Any] = {name: getattr(settings, name) for name in names if name != "steps"}
    return Plan(steps=settings.num_iters, **values)
