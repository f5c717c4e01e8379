"""The tasks of this project, which is Thunder Train's own: its graph, and four for its developers."""

from typing import Any

from thunder_train.build.stage import utility
from thunder_train.dodo import *


def task_test() -> dict[str, Any]:
    """Run the test suite, three files at a time: doit test [-- pytest's arguments]."""
    return utility("pytest -n 3 --dist loadfile --no-loadscope-reorder")  # tests mostly wait; conftest.py orders files


def task_lint() -> dict[str, Any]:
    """Check format, lint and types."""
    return utility("ruff format --check", "ruff check", "mypy")


def task_lock() -> dict[str, Any]:
    """Write the locks of all packages from pyproject.toml: doit lock [-- arguments of `uv lock`, as --upgrade]."""
    return utility("locks")


def task_reference() -> dict[str, Any]:
    """Write docs/recipe.md and the editors' JSON schemas from the configuration's tables."""
    return utility("thunder_train.config.reference")
