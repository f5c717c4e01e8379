"""Writes what a finished training leaves: the chosen adapter, last/ with the last adapter, and done.json."""

from dataclasses import asdict
from typing import Any

from thunder_train.core import files
from thunder_train.worker import adapter, frozen_prefix
from thunder_train.worker.args import Settings
from thunder_train.worker.model import adapter_tensors
from thunder_train.worker.train.loop import Run, State
from thunder_train.worker.train.setup import Setup


def write(settings: Settings, ready: Setup, run: Run, state: State, environment: dict[str, str]) -> None:
    """Rank 0 writes the adapters and, last of all, done.json, without times and paths: equal runs give equal bytes.

    environment: versions, platform and BLAS that computed the training.
    """
    if run.ranks.rank != 0:
        return  # all ranks hold the same adapter
    last = adapter_tensors(run.model)
    rule = settings.choose if run.validation is not None else "last"
    is_best = rule == "best" and bool(state.best)
    chosen = state.best if is_best else last
    adapter.write_adapter(settings.adapter_path.parent / "last", last, ready.lora, settings.model)
    adapter.write_adapter(settings.adapter_path, chosen, ready.lora, settings.model)
    progress = state.progress
    if rule == "best":
        _say_which(run, state, settings.start_from)
    done: dict[str, Any] = {
        "steps": progress.step,
        "rows_per_step": settings.rows_per_step(run.row_ranks.size),
        "world_size": run.ranks.size,
        "strategy": settings.strategy,
        "packed": ready.not_packed == "",
        "frozen_layers_kept": 0 if ready.not_kept else frozen_prefix.depth(run.model),
        "skipped_steps": progress.skipped,
        "skipped_validations": progress.skipped_validations,
        "losses": progress.losses,
        "best": None
        if progress.best_loss is None
        else {"step": progress.best_step, "loss": round(progress.best_loss, 6)},
        "chosen": {"rule": rule, "step": progress.best_step if is_best else progress.step},
        "adapter": adapter.describe(settings.adapter_path, chosen),
        "environment": environment,
        **_inputs(ready, settings.start_from),
        **asdict(ready.counts),
    }
    adapter.write_done(settings.adapter_path, done)


def _inputs(ready: Setup, start_from: str) -> dict[str, Any]:
    """The rows that the training read, and the adapter that it began with. A sha256 by its first digits."""
    validated = len(ready.splits["valid"].examples)
    begun = {"path": files.portable(start_from), "sha256": ready.identity["--start-from"]} if start_from else {}
    return {
        "rows": {"train": len(ready.splits["train"].examples), "valid": ready.valid_rows},
        "rows_sha256": {name: ready.identity[f"--{name}-data"] for name in ready.splits},
        **({"validated_rows": validated} if validated < ready.valid_rows else {}),
        "dropped": {name: split.dropped for name, split in ready.splits.items()},
        "split": {name: split.split for name, split in ready.splits.items()},
        "tokens": {name: split.tokens for name, split in ready.splits.items()}
        | {f"{name}_targets": split.targets for name, split in ready.splits.items()},
        **({"start": begun} if begun else {}),
    }


def _say_which(run: Run, state: State, start_from: str) -> None:
    """One line where the best adapter is not what a reader expects."""
    loss, step = state.progress.best_loss, state.progress.best_step
    if loss is None:
        run.log.say("no validation had a finite loss, so nothing says which adapter is best: this is the last step's")
    elif step == 0 and start_from:
        run.log.say(
            f"no step improved the validation loss of {loss:.4f} of the adapter in {start_from}: it is the result"
        )
    elif step == 0:
        run.log.say(
            f"no step improved the base's validation loss of {loss:.4f}: the adapter is that of step 0, without effect"
        )
