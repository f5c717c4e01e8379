"""Step, rate and time left of a training, from heartbeats."""

import json
from pathlib import Path

import pytest

from thunder_train.core.progress import Progress, in_words


def of(beats: list[tuple[int, float]], steps: int = 100, folder: Path | None = None) -> Progress:
    """The progress after heartbeats: (step, time in seconds)."""
    progress = Progress(folder)
    progress.line(f"step 0/{steps}  valid loss 5.1")
    for step, now_s in beats:
        progress.beat(step, now_s)
    return progress


def test_the_rate_is_that_of_the_steps_between_two_heartbeats() -> None:
    """
    Loading the model before the first step takes none of a step's time.
    """
    progress = of([(0, 0.0), (0, 60.0), (1, 90.0), (1, 91.0), (2, 92.0), (5, 98.0)])

    assert 0.5 == progress.steps_per_s
    assert 190.0 == progress.seconds_left


def test_nothing_is_promised_before_two_steps_have_ended() -> None:
    """
    A rate of one step would count the start.
    """
    assert (None, None) == (of([(0, 0.0), (1, 50.0)]).steps_per_s, of([(1, 50.0)]).seconds_left)


def test_a_restart_begins_again_at_its_checkpoint() -> None:
    """
    The steps that are done again must not make the rate negative.
    """
    progress = of([(40, 40.0), (50, 50.0), (0, 60.0), (41, 70.0), (43, 71.0)])

    assert (43, 2.0) == (progress.step, progress.steps_per_s)


def test_the_rate_follows_a_machine_that_slows_down() -> None:
    """
    A laptop that grows hot is slower after an hour than in its first minutes.
    """
    progress = of(
        [(step, float(step)) for step in range(1, 100)] + [(99 + step, 99.0 + 4 * step) for step in range(60)]
    )

    assert 0.25 == progress.steps_per_s


def test_whoever_looks_from_another_terminal_reads_it(tmp_path: Path) -> None:
    """
    `doit status` and programs poll the file; a launch whose rank 0 names no steps leaves none.
    """
    of([(1, 1.0), (2, 2.0)], folder=tmp_path)

    assert {"step": 2, "steps": 100, "steps_per_s": 1.0, "seconds_left": 98.0} == json.loads(
        (tmp_path / "progress.json").read_text()
    )
    Progress(tmp_path / "none").beat(1, 1.0)
    assert ["progress.json"] == [path.name for path in tmp_path.iterdir()]


def test_a_full_disk_ends_no_training(tmp_path: Path) -> None:
    """
    The file is a hint for people.
    """
    assert 3 == of([(3, 1.0)], folder=tmp_path / "no such folder").step


@pytest.mark.parametrize(
    ("steps_per_s", "seconds_left", "text"),
    [
        (1.534, 99.4, "1.53 steps/s, 99 s left"),
        (0.1234, 720.0, "8.1 s/step, 12 min left"),
        (2.0, 11_100.0, "2 steps/s, 3 h 5 min left"),
        (None, None, ""),
    ],
)
def test_rate_and_time_left_are_read_at_a_glance(
    steps_per_s: float | None, seconds_left: float | None, text: str
) -> None:
    """
    Seconds for a step where a step takes more than one.
    """
    assert text == in_words(steps_per_s, seconds_left)
