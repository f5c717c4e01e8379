"""Text on a terminal: a counter only when a read takes long, a bar that follows the steps, plain lines in a pipe."""

import io
import sys

import pytest

from thunder_train.core import console, terminal
from thunder_train.core.progress import Progress


class FakeTerminal(io.StringIO):
    """Stands for a stream on a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_short_work_and_logs_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A build that takes a second needs no counter, and a log file wants none.
    """
    for stream in (FakeTerminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)

        assert 10_000 == sum(1 for _ in console.counted(range(10_000), "data:x"))
        assert "" == stream.getvalue()


def test_long_work_shows_rows_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After two seconds a user wonders whether it hangs.
    """
    stream = FakeTerminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(console, "COUNTER_AFTER_S", -1.0)

    assert 9000 == len(list(console.counted(range(9000), "data:x")))
    assert "data:x: 8,192 rows" in stream.getvalue()


def test_a_terminal_gets_a_bar_that_follows_the_heartbeats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A log line every hundred steps would leave it still for minutes. In a pipe or a log the lines come out plain.
    """
    with console.Terminal() as plain:
        plain.line("step 1/4  train loss 5.1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with console.Terminal() as terminal:
        terminal.line("step 2/4  train loss 5.0")
        pace = Progress()
        pace.line("step 0/4  valid loss 5.2")
        for step in (1, 2, 3):
            pace.beat(step, 2.0 * step)
            terminal.step(pace)
        task = terminal.progress.tasks[0]

    assert (3, 4, "2 s/step, 2 s left") == (task.completed, task.total, task.fields["pace"])
    assert "step 1/4  train loss 5.1\n" == capsys.readouterr().out.splitlines(keepends=True)[0]


def test_the_bar_counts_the_answers_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    First those of the base, then those of the adapter.
    """
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with console.Terminal() as terminal:
        for text in ("base: 65 of 65 batches answered", "adapter: 7 of 65 batches answered"):
            terminal.line(text)
        task = terminal.progress.tasks[0]

    assert ("adapter", 7, 65) == (task.description, task.completed, task.total)


def test_bars_of_a_download_pass_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    They move the cursor to the start of their line; the guard would make each step a line of its own.
    """
    stream = FakeTerminal()
    monkeypatch.setattr("sys.stderr", terminal.safe(stream))

    with console.download_bars()(total=3, desc="bytes", mininterval=0, disable=None) as bar:
        bar.update(1)

    assert "\rbytes:" in stream.getvalue()
    assert "\N{REPLACEMENT CHARACTER}" not in stream.getvalue()
