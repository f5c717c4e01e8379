"""Lines of several stages at once."""

import sys

import pytest

from thunder_train import ThunderError
from thunder_train.core import process, speaker
from thunder_train.core.console import counted, print_table

CHILD = "import sys; print('step 1/4'); print('odd \\x80'); print('broken', file=sys.stderr); sys.exit(3)"


def test_lines_of_a_child_carry_the_name_of_their_stage(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Two trainings write to one terminal; each keeps its streams, and its status.
    """
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    with pytest.raises(ThunderError), speaker.named("smoke"):
        process.tool([sys.executable, "-c", CHILD], where="x", hint="y")

    assert ("smoke | step 1/4\nsmoke | odd \N{REPLACEMENT CHARACTER}\n", "smoke | broken\n") == capfd.readouterr()


def test_without_a_name_a_child_has_the_output_of_its_parent(capfd: pytest.CaptureFixture[str]) -> None:
    """
    A single training keeps its terminal, and so its progress bar.
    """
    process.tool([sys.executable, "-c", "print('step 1/4')"], where="x", hint="y")
    speaker.say("done")

    assert "step 1/4\ndone\n" == capfd.readouterr().out


def test_tables_and_counters_follow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On a terminal too: two live displays would overwrite each other.
    """
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("thunder_train.core.console.COUNTER_AFTER_S", -1.0)
    with speaker.named("smoke"):
        print_table(("host", "ms"), [("mac4", "1")])
        assert 9000 == len(list(counted(range(9000), "data:nko")))

    assert ("smoke | host  ms\nsmoke | mac4  1\n", "") == capsys.readouterr()
