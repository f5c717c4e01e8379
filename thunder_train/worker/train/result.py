"""What a finished training leaves: the chosen adapter, the last one, and done.json."""

from dataclasses import asdict
from typing import Any

from thunder_train.worker import adapter as checkpoint
from thunder_train.worker.args import Settings
from thunder_train.worker.model import adapter_tensors
from thunder_train.worker.train.loop import Run, State
from thunder_train.worker.train.setup import Setup


def write(settings: Settings, ready: Setup, run: Run, state: State, environment: dict[str, str]) -> None:
    """Rank 0 writes the adapters and, last of all, done.json. It holds no time and no path: equal runs, equal bytes.

    environment: versions, platform and BLAS that computed it.
    """
    last = adapter_tensors(run.model)
    if run.ranks.rank != 0:
        return
    is_best = settings.choose == "best" and bool(state.best)
    chosen = state.best if is_best else last
    lora = ready.lora
    checkpoint.write_adapter(settings.adapter_path.parent / "last", last, lora)
    checkpoint.write_adapter(settings.adapter_path, chosen, lora)
    progress = state.progress
    done: dict[str, Any] = {
        "steps": progress.step,
        "rows_per_step": settings.rows_per_step(run.row_ranks.size),
        "world_size": run.ranks.size,
        "strategy": settings.strategy,
        "packed": ready.not_packed == "",
        "rows": {name: len(split.examples) for name, split in ready.splits.items()},
        "dropped": {name: split.dropped for name, split in ready.splits.items()},
        "split": {name: split.split for name, split in ready.splits.items()},
        "tokens": {name: split.tokens for name, split in ready.splits.items()}
        | {f"{name}_targets": split.targets for name, split in ready.splits.items()},
        "skipped_steps": progress.skipped,
        "losses": progress.losses,
        "best": {"step": progress.best_step, "loss": round(progress.best_loss or 0.0, 6)},
        "chosen": {"rule": settings.choose, "step": progress.best_step if is_best else progress.step},
        "adapter": checkpoint.describe(settings.adapter_path, chosen),
        "environment": environment,
        **asdict(ready.counts),
    }
    checkpoint.write_done(settings.adapter_path, done)
