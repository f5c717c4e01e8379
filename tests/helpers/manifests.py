"""Manifests changed for a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import Copy
from thunder_train import ThunderError
from thunder_train.core import files, process
from thunder_train.reproduce import manifest
from thunder_train.reproduce.compare import Verdict
from thunder_train.reproduce.reproduce import reproduce

RUN = "runs/smoke/manifest.json"
Change = Callable[[dict[str, Any]], Any]


def edited(project: Copy, change: Change) -> Path:
    """The project's manifest after a change, with a run_id that matches."""
    run = files.read_json(project.path / RUN)
    change(run)
    run["run_id"] = manifest.run_id_of(run)
    files.write_json(project.path / "edited.json", run)
    return project.path / "edited.json"


def stopped(project: Copy, change: Change, monkeypatch: pytest.MonkeyPatch, confirmed: str = "") -> Verdict:
    """The verdict on an edited manifest when the build itself fails to start."""

    def stop(argv: list[str], where: str, hint: str) -> None:
        raise ThunderError("was not started", where=where)

    monkeypatch.setattr(process, "tool", stop)
    return reproduce(edited(project, change), project.path, confirmed)
