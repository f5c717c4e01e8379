"""caffeinate as a script that writes down how it was called. Untested on a Mac."""

import os
import sys
from pathlib import Path

import pytest

from tests.helpers.mac_tools import caffeinate
from tests.helpers.processes import alive
from tests.helpers.project_copy import wait_for
from thunder_train.core import awake


def test_a_mac_stays_awake_exactly_as_long_as_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An idle Mac sleeps in the middle of a training. No -d: a display that sleeps is the watchdog's cure.
    """
    pid, flags = caffeinate(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "platform", "darwin")

    with awake.kept_awake():
        wait_for(flags.exists)
        assert f"-is -w {os.getpid()}\n" == flags.read_text()
        assert alive(pid)

    assert not alive(pid)


def test_another_system_starts_no_program_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Linux has other programs called caffeinate.
    """
    caffeinate(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "platform", "linux")

    with awake.kept_awake() as process:
        assert process is None


def test_a_mac_without_it_trains_nevertheless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A PATH may lack /usr/bin.
    """
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", str(tmp_path))

    with awake.kept_awake() as process:
        assert process is None
