"""A run of the nano base on eight rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import TEXTS, row

Make = Callable[..., Any]
"""Makes a run; some values of its plan may be given."""


@pytest.fixture
def run(folder: Path, nano_chat: Any, tmp_path: Path) -> Make:
    """A function that makes a run of the nano base on eight rows, two of them a step."""
    from thunder_train.worker import model
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.batching.loader import DataLoader, costs_of
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.train import loop
    from thunder_train.worker.train.checkpoint import Progress
    from thunder_train.worker.train.metrics_log import MetricsLog

    rows = tuple(tokens.example(row(i, text), nano_chat, where=f"x:{i}") for i, text in enumerate(TEXTS))

    def make(
        metrics: Path | None = None, dropout: float = 0.0, stop: bool = False, valid: Any = rows[:3], **plan: Any
    ) -> Any:
        loaded, _ = model.load(str(folder / "nano"), "")
        model.add_lora(loaded, model.Lora(num_layers=2, rank=4, dropout=dropout), seed=0)
        values: dict[str, Any] = {
            "steps": 2,
            "seed": 0,
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "schedule": "constant",
            "warmup_steps": 0,
        }
        values |= {"weight_decay": 0.01, "max_grad_norm": 1.0, "log_every": 1, "eval_every": 1, "save_every": 99}
        values |= {"patience": 0, "max_skipped": 10, **plan}
        costs, saved = costs_of(loaded, [len(each.tokens) for each in rows], 512), list[Any]()
        return loop.Run(
            model=loaded,
            rows=DataLoader(rows, 2, seed=0, rank=0, world=1, costs=costs),
            validation=DataLoader(valid, 2, seed=0, rank=0, world=1, costs=costs).validation(),
            plan=loop.Plan(**values),
            ranks=Ranks(0, 1),
            row_ranks=Ranks(0, 1),
            log=MetricsLog(metrics, Progress()),
            identity={},
            save=saved.append,
            beat=lambda step: None,
            stop_asked=lambda: stop,
        )

    return make


def trained(one: Any) -> Any:
    """The state of a run after its last step."""
    from thunder_train.worker.train import loop

    state = loop.start(one, None)
    loop.train(one, state)
    return state


def digest(one: Any) -> str:
    """The adapter's tensors in one hash."""
    from thunder_train.worker import adapter, model

    return adapter.tensor_digest(model.adapter_tensors(one.model))
