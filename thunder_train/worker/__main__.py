"""Train a LoRA adapter: one process per rank, started by thunder_train.launch (or mlx.launch) with launch.sh's flags.

Reads the model, train.jsonl and valid.jsonl; rank 0 writes the adapter folder, metrics.jsonl beside it, and at the very
end done.json.
"""

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from thunder_train.worker.entry import enter
from thunder_train.worker.settings import Settings, parse

if TYPE_CHECKING:
    from thunder_train.worker.tokens import Split
    from thunder_train.worker.loop import Outcome, Run

STOPPED = 128 + signal.SIGTERM
"""Exit status after SIGTERM."""


def main(argv: list[str]) -> None:
    """Train as the flags say."""
    settings = parse(argv)
    # Below the flags: mlx and mlx-lm take two seconds to import, and BLAS had to be loaded first.
    from thunder_train.worker.loop import train

    stop = threading.Event()
    run, splits, facts = prepare(settings)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    outcome = train(run, stop.is_set)
    if outcome.stopped:
        sys.exit(STOPPED)
    finish(settings, run, splits, facts, outcome)


def prepare(settings: Settings) -> "tuple[Run, dict[str, Split], dict[str, int]]":
    """Join the ranks, load model and rows, clear the output folder. Raises ThunderError for what cannot be trained."""
    from thunder_train.worker import feed, model, ranks, tokens

    group = ranks.join(settings.hostfile)  # first: a rank that connects 31 s later than another finds nobody
    base, tokenizer = model.load(settings.model, model.pinned_commit(settings.model_lock))
    splits = {
        name: tokens.read(path, tokenizer, tokens.Policy(settings.max_seq_len, settings.too_long))
        for name, path in (("train", settings.train_data), ("valid", settings.valid_data))
    }
    feed.check_batch(len(splits["train"].examples), settings.batch_size, group.size, settings.train_data)
    total = model.parameters(base)
    model.add_lora(base, lora_of(settings), settings.seed)
    facts = {"parameters": total, "trainable_parameters": model.trainable_parameters(base)}
    return assemble(settings, base, group, splits), splits, facts


def lora_of(settings: Settings) -> Any:
    """The adapter that the flags describe."""
    from thunder_train.worker.model import Lora

    return Lora(settings.num_layers, settings.lora_rank, settings.lora_scale, settings.lora_dropout, settings.lora_keys)


def assemble(settings: Settings, base: Any, group: Any, splits: "dict[str, Split]") -> "Run":
    """The run that the loop takes; rank 0 alone gets a journal that writes and a save that saves."""
    from thunder_train.worker import checkpoint, loop, model
    from thunder_train.worker.journal import Journal

    first = group.rank == 0
    if first:
        checkpoint.begin(settings.adapter_path)

    def save(step: int) -> None:
        if first:
            numbered = step % settings.save_every == 0
            checkpoint.write_adapter(
                settings.adapter_path, step, model.adapter(base), lora_of(settings), numbered=numbered
            )

    plan = loop.Plan(
        steps=settings.num_iters,
        batch_size=settings.batch_size,
        seed=settings.seed,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        log_every=settings.log_every,
        eval_every=settings.eval_every,
        save_every=settings.save_every,
    )
    journal = Journal(settings.adapter_path.parent / "metrics.jsonl" if first else None)
    return loop.Run(base, splits["train"].examples, splits["valid"].examples, plan, group, journal, save)


def finish(
    settings: Settings, run: "Run", splits: "dict[str, Split]", facts: dict[str, int], outcome: "Outcome"
) -> None:
    """Rank 0 writes done.json, last of all. It holds no time and no path, so equal runs write equal bytes."""
    from thunder_train.worker import checkpoint, model
    from thunder_train.worker.environment import environment

    if run.ranks.rank != 0:
        return
    done = {
        "steps": settings.num_iters,
        "world_size": run.ranks.size,
        "strategy": settings.strategy,
        "rows": {name: len(split.examples) for name, split in splits.items()},
        "dropped": {name: split.dropped for name, split in splits.items()},
        "tokens": {name: split.tokens for name, split in splits.items()}
        | {f"{name}_targets": split.targets for name, split in splits.items()},
        "skipped_steps": outcome.skipped,
        "losses": run.journal.losses,
        "adapter": checkpoint.describe(settings.adapter_path, model.adapter(run.model)),
        "environment": environment(),
        **facts,
    }
    checkpoint.write_done(settings.adapter_path, done)


if __name__ == "__main__":
    enter(main)
