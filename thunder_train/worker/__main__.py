"""Train a LoRA adapter: one process per rank, started by thunder_train.launch (or mlx.launch) with launch.sh's flags.

Reads the model, train.jsonl and valid.jsonl, and the last checkpoint of the same training if there is one. Rank 0
writes checkpoints, the adapter folder, last/ and metrics.jsonl beside it, and at the very end done.json.
"""

import signal
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from thunder_train.worker.entry import enter
from thunder_train.worker.settings import Settings, parse
from thunder_train.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from thunder_train.worker.loop import Run, State
    from thunder_train.worker.setup import Setup

STOPPED = 128 + signal.SIGTERM
"""Exit status after SIGTERM."""


def main(argv: list[str]) -> None:
    """Train as the flags say, from the beginning or from the last checkpoint."""
    settings = parse(argv)
    # Below the flags: mlx and mlx-lm take two seconds to import, and BLAS had to be loaded first.
    from thunder_train.worker import loop, setup

    stop = threading.Event()
    with Watchdog(settings.stall_timeout_s, settings.start_timeout_s) as watchdog:
        ready = setup.prepare(settings, watchdog)
        run, checkpoint = setup.assemble(settings, ready, watchdog, stop.is_set)
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        state = loop.start(run, checkpoint)
        if loop.train(run, state):
            run.save(loop.checkpoint(run, state))
            sys.exit(STOPPED)
        finish(settings, ready, run, state)


def finish(settings: Settings, ready: "Setup", run: "Run", state: "State") -> None:
    """Rank 0 writes the adapters and, last of all, done.json. It holds no time and no path: equal runs, equal bytes."""
    from thunder_train.worker import checkpoint
    from thunder_train.worker.environment import environment
    from thunder_train.worker.model import adapter

    last = adapter(run.model)
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
        "environment": environment(),
        **asdict(ready.counts),
    }
    checkpoint.write_done(settings.adapter_path, done)


if __name__ == "__main__":
    enter(main)
