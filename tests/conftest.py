"""Projects for tests that run the real doit: built once, copied for each test."""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.project_copy import Copy, copy_sources, warm
from thunder_train.worker.bootstrap import preload

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a busy machine must not fail a test
preload()  # before any test imports mlx
os.environ.pop("PYTHONSAFEPATH", None)  # of ./doit test; programs under test find modules beside them


PROCESSES = ("cluster", "browser", "ranks")
"""Marks of tests that start other processes, and take long."""


@pytest.hookimpl(trylast=True)  # folders mark their tests in hooks of their own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes come first: the last file of a run should be short, for one core waits for it."""
    first = {item.path for item in items if any(map(item.get_closest_marker, PROCESSES))}
    items.sort(key=lambda item: item.path not in first)


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
    """A project whose smoke recipe has been built from nothing. Tests copy it and never change it.

    The processes of pytest-xdist share one: the first that needs it builds it, and another waits.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    with open(place / "built.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "built").exists():
            project = copy_sources(place / "unbuilt")
            done = project.doit()
            assert 0 == done.status, done.output
            project.path.rename(place / "built")
    return Copy(place / "built")


@pytest.fixture
def project(built: Copy, tmp_path: Path) -> Copy:
    """A copy of the built project, with new times and inodes."""
    shutil.copytree(built.path, tmp_path / "project")
    return Copy(tmp_path / "project")


@pytest.fixture
def fresh(built: Copy, tmp_path: Path) -> Copy:
    """A project in which nothing has been built."""
    return warm(copy_sources(tmp_path / "fresh"), built)
