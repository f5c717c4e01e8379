"""Projects for tests that run the real doit: built once, copied for each test."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.project_copy import Copy, copy_sources
from thunder_train.worker.bootstrap import preload

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a busy machine must not fail a test
preload()  # before any test imports mlx
os.environ.pop("PYTHONSAFEPATH", None)  # of ./doit test; programs under test find modules beside them


@pytest.fixture(scope="session", autouse=True)
def terminal_signals() -> Iterator[None]:
    """Handle signals as under a terminal: a job under nohup or in the background ignores some, and its children too."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project whose smoke recipe has been built from nothing. Tests copy it and never change it."""
    project = copy_sources(tmp_path_factory.mktemp("built"))
    done = project.doit()
    assert 0 == done.status, done.output
    return project


@pytest.fixture
def project(built: Copy, tmp_path: Path) -> Copy:
    """A copy of the built project, with new times and inodes."""
    shutil.copytree(built.path, tmp_path / "project")
    return Copy(tmp_path / "project")


@pytest.fixture
def fresh(tmp_path: Path) -> Copy:
    """A project in which nothing has been built."""
    return copy_sources(tmp_path / "fresh")
