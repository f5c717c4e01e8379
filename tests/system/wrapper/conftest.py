"""A clone for each test of ./doit."""

from pathlib import Path

import pytest

from tests.helpers.wrapper import make_clone


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A project folder with the wrapper, an empty home, and fake interpreters."""
    return make_clone(tmp_path)
