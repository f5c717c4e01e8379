"""The sum of a step over two ranks; the other rank's message is given as numbers."""

from typing import Any

import pytest

pytestmark = pytest.mark.mlx


class Pair:
    """Two ranks of which the other one has sent its message already."""

    rank, size = 0, 2

    def __init__(self, other: Any) -> None:
        self.other = other

    def sum(self, values: Any) -> Any:
        """Add the other's message."""
        return values + self.other


@pytest.mark.parametrize(
    ("finite", "stop", "expected"),
    [(1.0, 0.0, ((True, True), False)), (0.0, 0.0, ((True, False), False)), (1.0, 1.0, ((True, True), True))],
)
def test_flags_of_any_rank_reach_all(finite: float, stop: float, expected: Any) -> None:
    """
    A NaN on one rank skips the step on every rank, and a rank that must stop stops all of them.
    """
    import mlx.core as mx

    from thunder_train.worker.train.step import sum_over_ranks

    # gradient of 3 numbers, loss, tokens, stop, then finite and seconds of both ranks
    other = mx.array([1.0, 2.0, 3.0, 5.0, 7.0, stop, 0.0, finite, 0.0, 0.25])
    totals = sum_over_ranks((mx.array([1.0, 1.0, 1.0]), mx.array(2.0), 4), False, 0.5, Pair(other), counts=True)

    assert expected == (totals.finite, totals.stop)
    assert ([2.0, 3.0, 4.0], 7.0, 11) == (totals.gradient.tolist(), totals.loss, totals.tokens)
    assert (0.5, 0.25) == totals.busy_s


def test_under_tensor_parallelism_the_first_rank_alone_counts() -> None:
    """
    Every rank has the loss and the tokens of the whole step, and none may be counted twice.
    """
    import mlx.core as mx

    from thunder_train.worker.train.step import sum_over_ranks

    other = mx.array([1.0, 5.0, 7.0, 0.0, 0.0, 1.0, 0.0, 0.25])
    totals = sum_over_ranks((mx.array([1.0]), mx.array(5.0), 7), False, 0.5, Pair(other), counts=False)

    assert (5.0, 7, [2.0]) == (totals.loss, totals.tokens, totals.gradient.tolist())
