"""A dataset in numbers."""

import numpy as np
import pytest

from thunder_train.data.statistics import BINS, histogram


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 4, 4], [[3, 3, 1], [4, 4, 2]]),
        ([0, 0, 0], [[0, 0, 3]]),
        ([40, 99, 100], [[40, 49, 1], [50, 59, 0], [60, 69, 0], [70, 79, 0], [80, 89, 0], [90, 99, 1], [100, 109, 1]]),
    ],
)
def test_histogram_has_round_edges_and_begins_where_values_do(values: list[int], expected: list[list[int]]) -> None:
    """
    Bars of 7 to 13 are read by nobody, and empty ones before the first value say nothing.
    """
    assert expected == histogram(np.array(values))


def test_histogram_counts_every_value_in_few_bars() -> None:
    """
    One row of a million letters must not make a million bars.
    """
    values = np.array([1, 5, 1_000_000])

    bars = histogram(values)

    assert (3, True) == (sum(count for _, _, count in bars), len(bars) <= BINS + 1)
