"""Fixtures: labs of two and of four hosts. Without root or a Debian package these tests are skipped with the reason."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.project_copy import Copy, warm
from tests.system.cluster import training
from tests.system.cluster.lab import Lab, lab, missing

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is a cluster test."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def can_have_hosts() -> None:
    """Skip where no lab can be made."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def two(can_have_hosts: None, built: Copy) -> Iterator[Lab]:
    """Two hosts and a head for one test."""
    with lab(hosts=2) as it:
        warm(Copy(it.head.project), built)
        yield it


@pytest.fixture
def four(can_have_hosts: None, built: Copy) -> Iterator[Lab]:
    """Four hosts and a head for one test."""
    with lab(hosts=4) as it:
        warm(Copy(it.head.project), built)
        yield it


@pytest.fixture(scope="session")
def smoke(can_have_hosts: None, built: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project with the smoke recipe's model, rows and scripts, and the adapter that two local ranks trained."""
    folder = tmp_path_factory.mktemp("smoke") / "project"
    shutil.copytree(built.path, folder)
    return Copy(folder)


@pytest.fixture(scope="session")
def long_adapter(smoke: Copy) -> bytes:
    """The adapter that two local ranks train with training.LONG, without a fault."""
    return training.local(smoke, *training.LONG)
