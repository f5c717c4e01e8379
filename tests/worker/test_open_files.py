"""A hard limit of open files that is lower than mlx_lm's wish ends no program."""

import resource
from collections.abc import Iterator

import pytest

from thunder_train.worker import open_files


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """What the system was asked for; its hard limit is 1000."""
    calls: list[tuple[int, int]] = []

    def set_limits(kind: int, limits: tuple[int, int]) -> None:
        if limits[1] > 1000:
            raise ValueError("not allowed to raise maximum limit")
        calls.append(limits)

    original = resource.setrlimit
    monkeypatch.setattr(open_files, "_set_limits", set_limits)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 1000))
    open_files.allow_a_lower_limit()
    yield calls
    resource.setrlimit = original


@pytest.mark.parametrize(
    ("limits", "expected"), [((2048, 4096), (1000, 1000)), ((100, 4096), (100, 1000)), ((512, 800), (512, 800))]
)
def test_a_limit_is_raised_as_far_as_allowed(
    asked: list[tuple[int, int]], limits: tuple[int, int], expected: tuple[int, int]
) -> None:
    """
    mlx_lm asks for (2048, 4096) as it is imported; under `ulimit -n 1000` that is a ValueError.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert [expected] == asked
