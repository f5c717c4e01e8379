"""Trackers get what metrics.jsonl gets, through mlx-lm's callbacks."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


def test_no_tracker_is_asked_for_by_default(tmp_path: Path) -> None:
    """
    wandb and swanlab are no dependencies of the project.
    """
    from thunder_train.worker.trackers import tracker

    assert tracker((), "mine", "", tmp_path, {}) is None


@pytest.mark.parametrize(("device", "held", "expected"), [("cpu", 9, 5), ("gpu", 9, 9), ("gpu", 1, 5)])
def test_freed_memory_that_a_gpu_keeps_is_counted(
    monkeypatch: pytest.MonkeyPatch, device: str, held: int, expected: int
) -> None:
    """
    No other process can use it, so a peak without it would say less than the training needs.
    """
    import mlx.core as mx

    from thunder_train.worker.train.metrics_log import memory_bytes

    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=getattr(mx, device)))
    monkeypatch.setattr(mx, "get_peak_memory", lambda: 5)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1)
    monkeypatch.setattr(mx, "get_cache_memory", lambda: held - 1)

    assert expected == memory_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """
    As for a checkpoint; the training goes on from the last one when there is space again.
    """
    from thunder_train.worker.train.checkpoint import Progress
    from thunder_train.worker.train.metrics_log import MetricsLog

    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, Progress())
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(ThunderError) as caught:
        log.event("save", 1, "step 1/4  saving")

    assert f"{path}: cannot be written: No space left on device; free or unlock it" == str(caught.value)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The message has the command that installs it.
    """
    from mlx_lm.tuner import callbacks

    from thunder_train.worker.trackers import tracker

    monkeypatch.setattr(callbacks, "wandb", None)
    monkeypatch.setattr("thunder_train.core.extras.command", lambda name: f"EXTRA={name} ./doit")
    with pytest.raises(ThunderError) as caught:
        tracker(("wandb",), "mine", "", tmp_path, {})

    expected = (
        "--report-to: wandb is not installed. please install wandb via: pip install wandb; run `EXTRA=wandb ./doit`"
    )
    assert expected == str(caught.value)


def test_events_become_what_the_callbacks_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    mlx-lm's trainer calls them with `iteration`, `train_loss` and `val_loss`.
    """
    from mlx_lm.tuner import callbacks

    from thunder_train.worker.trackers import tracker

    reported: list[dict[str, Any]] = []

    class Recorder:
        def __init__(self, **_: Any) -> None:
            pass

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            reported.append(info)

        on_val_loss_report = on_train_loss_report

    monkeypatch.setitem(callbacks.SUPPORT_CALLBACK, "wandb", Recorder)
    report = tracker(("wandb",), "mine", "", tmp_path, {})
    report({"event": "train", "step": 3, "loss": 1.5, "tokens": 7})
    report({"event": "valid", "step": 3, "loss": 2.5})
    report({"event": "save", "step": 3})

    assert [
        {"iteration": 3, "loss": 1.5, "tokens": 7, "train_loss": 1.5},
        {"iteration": 3, "loss": 2.5, "val_loss": 2.5},
    ] == reported


@pytest.mark.parametrize(("name", "folder"), [("", "smoke"), ("third-try", "smoke/trackers/third-try")])
def test_a_run_has_the_name_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    """
    The callbacks name it after the folder of its logs, which must exist.
    """
    from mlx_lm.tuner import callbacks

    from thunder_train.worker.trackers import tracker

    made: list[dict[str, Any]] = []
    monkeypatch.setitem(callbacks.SUPPORT_CALLBACK, "wandb", lambda **given: made.append(given))
    (tmp_path / "smoke").mkdir()
    tracker(("wandb",), "mine", name, tmp_path / "smoke", {})

    assert [("mine", str(tmp_path / folder))] == [(each["project_name"], each["log_dir"]) for each in made]
    assert (tmp_path / folder).is_dir()
