"""A mark in the state tells a stage that runs from one that was interrupted."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thunder_train.build import running


def progress_of(recipe: str, **facts: object) -> Path:
    """What the launcher of a recipe's training keeps of its progress."""
    file = Path("runs") / recipe / "logs/progress.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(facts))
    return file


def test_a_stage_of_a_living_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With the step, the rate and the time left that its launcher keeps beside the log.
    """
    monkeypatch.chdir(tmp_path)
    mark = running.mark()
    since = time.strftime("%H:%M:%S", time.localtime(json.loads(mark)["since"]))
    assert f"running since {since}" == running.describe(mark, "train:a")

    progress_of("a", step=12, steps=40, steps_per_s=0.5, seconds_left=56.0)

    assert f"running since {since}, step 12/40, 2 s/step, 56 s left" == running.describe(mark, "train:a")
    assert f"running since {since}" == running.describe(mark, "report:a")


def test_the_steps_of_an_earlier_run_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Until rank 0 has named its steps, the file is that of the run before.
    """
    monkeypatch.chdir(tmp_path)
    mark = running.mark()
    os.utime(progress_of("a", step=4, steps=4, steps_per_s=1.0, seconds_left=0.0), (1, 1))

    assert "step" not in running.describe(mark, "train:a")


@pytest.mark.parametrize("facts", [{}, {"step": "\x1b", "steps": 1, "steps_per_s": None, "seconds_left": None}])
def test_a_damaged_progress_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, object]
) -> None:
    """
    It is a hint for people, and the stage runs whatever it says.
    """
    monkeypatch.chdir(tmp_path)
    mark = running.mark()
    progress_of("a", **facts)

    assert "step" not in running.describe(mark, "train:a")


def test_a_stage_of_an_ended_process_was_interrupted() -> None:
    """
    After kill -9 nobody can write so, so the reader finds out.
    """
    code = "from thunder_train.build import running; print(running.mark())"
    mark = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "was interrupted" == running.describe(mark, "train:a")


def test_a_number_that_was_given_again_is_another_process() -> None:
    """
    Process numbers come round; the time at which the process began does not.
    """
    other = json.dumps({**json.loads(running.mark()), "began": "1"})

    assert "was interrupted" == running.describe(other, "train:a")


@pytest.mark.parametrize("mark", ["{", "{}", '{"process": "x", "began": "1", "since": 1}'])
def test_a_damaged_mark_is_no_traceback(mark: str) -> None:
    """
    The stage has no record, so it is not fresh whatever the mark says.
    """
    assert "was interrupted" == running.describe(mark, "train:a")


@pytest.mark.parametrize("mark", ["", "was interrupted", "failed: x"])
def test_words_stay_as_they_are(mark: str) -> None:
    """
    Failures, and marks of earlier versions.
    """
    assert mark == running.describe(mark, "train:a")
