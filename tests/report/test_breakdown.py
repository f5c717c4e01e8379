"""Rates of parts of the test rows."""

import pytest

from tests.report.test_examples import row
from tests.report.test_page_rows import rows_of
from thunder_train.evaluate import error_rates
from thunder_train.report import breakdown, page_rows


def test_ranges_of_lengths_hold_every_row_once_and_about_as_many_each() -> None:
    """
    Equal widths would put all rows of a skewed set into one range.
    """
    lengths = [1, 1, 1, 2, 3, 4, 5, 6, 50, 400]
    rows, evaluation = rows_of([row(str(at), "x" * length, "y" * length, "") for at, length in enumerate(lengths)])
    slices = breakdown.by_length(rows, page_rows.profile_of(evaluation))

    assert ["1 to 2", "3 to 4", "5 to 6", "50 to 400"] == [each.name for each in slices]
    assert [4, 2, 2, 2] == [each.rows for each in slices]
    assert [] == breakdown.by_length([], page_rows.profile_of(evaluation))


def test_a_part_has_the_rates_of_its_rows_and_what_gained_least_comes_first() -> None:
    """
    A gain on average may hide a speaker who lost.
    """
    lines = [
        row("a", "abcdx", "abcde", "abcde") | {"group": "one"},
        row("b", "abcde", "abcde", "abcde") | {"group": "one"},
        row("c", "abcde", "abcde", "abcdx") | {"group": "two"},
        row("d", "abcde", "", "abcde") | {"group": "two"},
    ]
    rows, evaluation = rows_of(lines)
    profile = page_rows.profile_of(evaluation)
    two, one = breakdown.by(rows, profile, lambda each: each.group)

    assert ("two", 1, 0.0, 0.2, 1) == (two.name, two.rows, two.before, two.after, two.worse)
    assert ("one", 2, 0.1, 0.0, 0) == (one.name, one.rows, one.before, one.after, one.worse)
    assert [20.0, -10.0] == pytest.approx([two.change, one.change])
    scored = [each.after for each in rows if each.after]
    assert error_rates.rate(scored, profile) == pytest.approx((two.after + 2 * one.after) / 3)


def test_rows_that_have_nothing_in_common_are_no_parts() -> None:
    """
    A table of single rows says less than the table of all rows.
    """
    rows, evaluation = rows_of([row("a", "a", "b", "b"), row("b", "a", "c", "b")])

    assert [] == breakdown.by(rows, page_rows.profile_of(evaluation), lambda each: each.group)


def test_partitions_are_lines_and_conditions_columns() -> None:
    """
    Two numbers that a reader compares stand in one line.
    """
    lines = [row("a", "a", "b", "b") | {"partition": "stable"}, row("b", "a", "b", "b") | {"partition": "recovery"}]
    table = breakdown.pivot(rows_of(lines)[1]["conditions"])

    assert ["recovery", "stable"] == [each["partition"] for each in table]
    assert all(len(each["lines"]) == 5 and each["lines"]["baseline"]["n"] == 1 for each in table)
