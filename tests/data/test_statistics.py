"""A dataset in numbers."""

from typing import Any

import numpy as np
import pytest

from thunder_train.data.examples import Example
from thunder_train.data.rows import Row
from thunder_train.data.splits import Assignment
from thunder_train.data.statistics import BINS, Statistics, histogram


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


def test_more_words_than_two_bytes_count_are_counted() -> None:
    """
    A column of a file that is a number of its own in each row, read as the partition.
    """
    counted, rows = Statistics(), 70_000
    example = Example(asr_text="", group="", id="", messages=(), partition="", reference_text="", source="", text="a")
    given: dict[str, Any] = {
        "row_id": "",
        "source": "s",
        "file": "",
        "line": 1,
        "evidence_kind": "smoke",
        "target_text": "a",
    }
    for number in range(rows):
        counted.add(number, Row(**given, partition=f"{number}", is_text=True), example)
    splits = np.zeros(rows, np.uint8)
    splits[0] = 2

    counts = counted.counts(Assignment(np.arange(rows), splits, np.arange(rows) != 1, {}))

    assert {"s": {"train": rows - 2, "valid": 0, "test": 1}} == counts["source"]
    assert (rows - 1, {"train": 0, "valid": 0, "test": 1}) == (len(counts["partition"]), counts["partition"]["0"])
    assert "1" not in counts["partition"]
