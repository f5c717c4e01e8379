"""Projects for tests that run the real doit: built once, copied for each test."""

import shutil
from pathlib import Path

import pytest

from tests.project import Copy, copy_sources


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project whose smoke recipe has been built from nothing. Tests copy it and never change it."""
    project = copy_sources(tmp_path_factory.mktemp("built"))
    done = project.doit()
    assert 0 == done.status, done.output
    return project


@pytest.fixture
def project(built: Copy, tmp_path: Path) -> Copy:
    """A built project of the test's own, copied with new times and inodes."""
    shutil.copytree(built.path, tmp_path / "project")
    return Copy(tmp_path / "project")


@pytest.fixture
def fresh(tmp_path: Path) -> Copy:
    """A project in which nothing has been built."""
    return copy_sources(tmp_path / "fresh")
