"""wandb and swanlab on rank 0, through mlx-lm's callbacks. Outside worker/train, because it changes no number."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import extras

Tracker = Callable[[dict[str, Any]], None]
"""Takes each event of metrics.jsonl."""


def tracker(names: tuple[str, ...], project: str, name: str, folder: Path, flags: dict[str, Any]) -> Tracker | None:
    """A function that passes events on to the named trackers; None without names.

    project, name: those of the run there; without a name it is the folder's. folder: of the run, for the trackers' own
    logs. flags: logged as the run's configuration. Raises ThunderError when a package is missing.
    """
    if not names:
        return None
    if name:
        folder = folder / "trackers" / name  # the callbacks name a run after the folder of its logs
        folder.mkdir(parents=True, exist_ok=True)
    from mlx_lm.tuner import callbacks  # late: it imports the trackers

    hidden = [each for each in names if each in sys.modules and sys.modules[each] is None]
    for each in hidden:
        del sys.modules[each]  # hidden by bootstrap.hide_trackers
    if hidden:
        importlib.reload(callbacks)
    try:
        callback = callbacks.get_reporting_callbacks(
            ",".join(names), project_name=project, log_dir=str(folder), config=flags
        )
    except ImportError as error:
        raise ThunderError(str(error), where="--report-to", hint=extras.install(names)) from error
    except ValueError as error:
        raise ThunderError(str(error), where="--report-to", hint="use wandb or swanlab") from error

    def report(event: dict[str, Any]) -> None:
        info = {"iteration": event["step"], **{key: event[key] for key in event if key not in ("event", "step")}}
        if event["event"] == "train":
            callback.on_train_loss_report({**info, "train_loss": event["loss"]})
        elif event["event"] == "valid":
            callback.on_val_loss_report({**info, "val_loss": event["loss"]})

    return report
