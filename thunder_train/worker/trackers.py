"""wandb and swanlab on rank 0, through mlx-lm's callbacks. Outside worker/train, because it changes no number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from thunder_train import ThunderError

Tracker = Callable[[dict[str, Any]], None]
"""Takes each event of metrics.jsonl."""


def tracker(names: tuple[str, ...], project: str, folder: Path, flags: dict[str, Any]) -> Tracker | None:
    """A function that passes events on to the named trackers; None without names.

    project: its name there. folder: for their own logs; its name is the run's. flags: logged as the run's
    configuration. Raises ThunderError when a package is missing.
    """
    if not names:
        return None
    from mlx_lm.tuner.callbacks import get_reporting_callbacks  # late: it imports the trackers

    try:
        callback = get_reporting_callbacks(",".join(names), project_name=project, log_dir=str(folder), config=flags)
    except ImportError as error:
        raise ThunderError(str(error), where="--report-to", hint=f"pip install {' '.join(names)}") from error
    except ValueError as error:
        raise ThunderError(str(error), where="--report-to", hint="use wandb or swanlab") from error

    def report(event: dict[str, Any]) -> None:
        info = {"iteration": event["step"], **{key: event[key] for key in event if key not in ("event", "step")}}
        if event["event"] == "train":
            callback.on_train_loss_report({**info, "train_loss": event["loss"]})
        elif event["event"] == "valid":
            callback.on_val_loss_report({**info, "val_loss": event["loss"]})

    return report
