"""Bootstrap intervals: what they must show, and what they must not depend on."""

import time

from thunder_train.evaluate.error_rates import Interval, paired


def test_equal_rows_have_no_spread():
    """Whatever rows are drawn, the rate is the same: half of the baseline's 0.5."""
    assert [Interval(0.5, 0.5, 0.0, 0.0), Interval(0.25, 0.25, -25.0, -25.0)] == paired(
        [[2.0] * 9, [1.0] * 9], [4] * 9, samples=100, seed=0
    )


def test_pairing_sees_a_small_gain_on_rows_that_differ_much():
    """One edit less on every row is sure, though rows of 1 and of 99 edits make the rate itself unsure."""
    before = [float(edits) for edits in range(1, 100)]
    baseline, better = paired([before, [edits - 1 for edits in before]], [100] * 99, samples=1000, seed=0)

    assert (-1.0, -1.0) == (better.delta_low, better.delta_high)
    assert baseline.cer_high - baseline.cer_low > 0.05


def test_ends_agree_with_the_normal_approximation():
    """400 rows of one unit, half of them wrong: 0.5 plus and minus 1.96 x 0.025."""
    interval = paired([[0.0, 1.0] * 200], [1] * 400, samples=4000, seed=1)[0]

    assert abs(interval.cer_low - 0.451) < 0.004
    assert abs(interval.cer_high - 0.549) < 0.004


def test_a_seed_gives_the_same_samples_on_every_numpy():
    """The intervals are compared to the byte when a run is made again; these come from the generator's raw bits."""
    errors = [[float(row % 7) for row in range(50)], [float(row % 5) for row in range(50)]]

    assert [
        Interval(0.341071, 0.5, 0.0, 0.0),
        Interval(0.242857, 0.335786, -23.007143, -5.4),
    ] == paired(errors, [7] * 50, samples=100, seed=0)
    assert paired(errors, [7] * 50, 100, seed=0) != paired(errors, [7] * 50, 100, seed=1)


def test_no_end_is_a_negative_nothing():
    """JSON would tell -0.0, and a page show a loss where there is none."""
    assert "-0.0" not in str(paired([[1e7, 1e7], [1e7 - 0.01, 1e7 - 0.01]], [10**8, 10**8], samples=100, seed=0))


def test_thirty_thousand_rows_take_seconds():
    """The users' test split has 29,060 rows; five conditions of it must not hold up a report."""
    errors = [[float((row * step) % 11) for row in range(30_000)] for step in range(1, 6)]
    start = time.process_time()
    paired(errors, [40] * 30_000, samples=1000, seed=0)

    assert time.process_time() - start < 3
