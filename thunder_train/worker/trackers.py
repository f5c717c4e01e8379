"""wandb and swanlab, through mlx-lm's own callbacks, on rank 0."""

from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.worker.train.metrics_log import Tracker


def tracker(names: tuple[str, ...], folder: Path, flags: dict[str, Any]) -> Tracker | None:
    """What takes each event; None without names. Raises ThunderError when a package is missing."""
    if not names:
        return None
    from mlx_lm.tuner.callbacks import get_reporting_callbacks  # late: it imports the trackers

    try:
        callback = get_reporting_callbacks(
            ",".join(names), project_name="thunder-train", log_dir=str(folder), config=flags
        )
    except ImportError as error:
        raise ThunderError(str(error), where="--report-to", hint=f"pip install {' '.join(names)}") from error
    except ValueError as error:
        raise ThunderError(str(error), where="--report-to", hint="use wandb or swanlab") from error

    def report(event: dict[str, Any]) -> None:
        told = {"iteration": event["step"], **{key: event[key] for key in event if key not in ("event", "step")}}
        if event["event"] == "train":
            callback.on_train_loss_report({**told, "train_loss": event["loss"]})
        elif event["event"] == "valid":
            callback.on_val_loss_report({**told, "val_loss": event["loss"]})

    return report
