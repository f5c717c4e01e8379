"""Whose turn it is while doit runs several tasks at once."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.project_copy import wait_for
from thunder_train import ThunderError
from thunder_train.build.turns import Turns
from thunder_train.core import process

Start = Callable[..., threading.Event]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, threading.Event]]:
    """What lets each stage end; at the end of the test all of them do."""
    monkeypatch.setattr(process, "is_interrupted", threading.Event())  # another test may have interrupted this process
    events: dict[str, threading.Event] = {}
    yield events
    for event in events.values():
        event.set()


def begin(turns: Turns, ends: dict[str, threading.Event], stage: str, *machines: str) -> threading.Event:
    """Start a stage in a thread; the event says whether it runs."""
    runs, end = threading.Event(), ends.setdefault(stage, threading.Event())

    def work() -> None:
        with turns.of(stage, machines):
            runs.set()
            end.wait(30)

    threading.Thread(target=work, daemon=True).start()
    return runs


def test_one_stage_at_a_time_has_ranks_on_a_machine(
    ends: dict[str, threading.Event], capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Two trainings at once are slower than one after the other, and may not fit. The waiting one says for whom it waits.
    """
    turns = Turns()
    assert begin(turns, ends, "train:one", "mac4", "mac5").wait(5)
    second = begin(turns, ends, "train:two", "mac5", "mac6")
    said: list[str] = []
    wait_for(lambda: bool(said.append(capsys.readouterr().out) or "".join(said)))

    assert "train:two waits until train:one has ended\n" == "".join(said)
    assert not second.is_set()
    ends["train:one"].set()
    assert second.wait(5)


def test_other_machines_and_stages_without_ranks_do_not_wait(ends: dict[str, threading.Event]) -> None:
    """
    Two clusters train side by side, and data, reports and manifests go on meanwhile.
    """
    turns = Turns()
    assert begin(turns, ends, "train:one", "mac4", "mac5").wait(5)
    assert begin(turns, ends, "train:two", "mac6").wait(5)
    assert begin(turns, ends, "report:three").wait(5)


def test_the_project_may_allow_more_at_once(ends: dict[str, threading.Event]) -> None:
    """
    A machine with much memory holds two small models: trainings_at_once = 2.
    """
    turns = Turns(at_once=2)
    assert all(begin(turns, ends, f"train:{name}", "localhost").wait(5) for name in ("one", "two"))
    third = begin(turns, ends, "train:three", "localhost")

    assert not third.wait(0.3)
    ends["train:two"].set()
    assert third.wait(5)


def test_a_failed_stage_gives_its_turn_back() -> None:
    """
    One training that fails must not stop all others.
    """
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.of("train:one", ("localhost",)):
        _ = 1 / 0
    with turns.of("train:two", ("localhost",)):
        pass


def test_a_signal_ends_the_wait(ends: dict[str, threading.Event]) -> None:
    """
    Otherwise Ctrl-C, which ends the training that runs, would start the next one.
    """
    turns = Turns()
    assert begin(turns, ends, "train:one", "localhost").wait(5)
    process.is_interrupted.set()
    try:
        with pytest.raises(ThunderError, match="train:two: interrupted before it began"):
            turns.of("train:two", ("localhost",)).__enter__()
    finally:
        process.is_interrupted.clear()
