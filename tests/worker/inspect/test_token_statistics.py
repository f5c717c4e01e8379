"""Quantiles and histogram of row lengths; test_tokens.py tests the statistics as parts of the report."""

import pytest

pytestmark = pytest.mark.mlx


def test_quantiles_are_lengths_of_rows() -> None:
    """
    No row is 43.5 tokens long, so there is no interpolation between two rows.
    """
    from thunder_train.worker.inspect.token_statistics import quantiles

    assert {"min": 1, "median": 10, "p95": 19, "max": 20} == quantiles(range(1, 21))
    assert {"min": 7, "median": 7, "p95": 7, "max": 7} == quantiles([7])
    assert {"min": 0, "median": 0, "p95": 0, "max": 0} == quantiles([])


def test_a_histogram_counts_every_row_in_at_most_ten_bins() -> None:
    """
    A single long row must be visible: its bin has a bar, however low the count.
    """
    from thunder_train.worker.inspect.token_statistics import histogram
    from thunder_train.worker.inspect.tokens import bars

    bins = histogram([3] * 500 + [4, 25])

    assert [(3, 5, 501), *((low, low + 2, 0) for low in range(6, 24, 3)), (24, 26, 1)] == bins
    assert f"   3 to  5  {'█' * 40}  501" == bars(bins)[0]
    assert f"  24 to 26  █{' ' * 39}  1" == bars(bins)[-1]
