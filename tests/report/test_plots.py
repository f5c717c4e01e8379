"""Figures: their lines and bars, and their texts for screen readers."""

import re

import pytest

from thunder_train.report.plots import (
    Bin,
    Interval,
    Labels,
    Mark,
    Series,
    bars,
    binned,
    intervals,
    lines,
    log_ticks,
    short,
    thinned,
    ticks,
)

LABELS = Labels("loss", "Loss <b>", "step", "nats")


@pytest.mark.parametrize(
    ("low", "high", "is_whole", "expected"),
    [
        (0.0, 1.0, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.36, False, [0.31, 0.32, 0.33, 0.34, 0.35, 0.36]),
        (1, 4, True, [1.0, 2.0, 3.0, 4.0]),
        (7, 7, True, [6.0, 8.0]),
        (0.0, 0.0, False, [0.0, 0.2]),
        (0.0, 1294.3, False, [0.0, 500.0, 1000.0, 1500.0]),
    ],
)
def test_axes_have_round_numbers_that_enclose_the_values(
    low: float, high: float, is_whole: bool, expected: list[float]
) -> None:
    """
    A value outside the axis would be drawn outside the figure; a training step is never 2.5.
    """
    assert expected == ticks(low, high, is_whole=is_whole)


def test_a_line_joins_its_points_and_describes_itself() -> None:
    """
    A screen reader reads the start, the end and the range of the loss.
    """
    svg = lines(LABELS, [Series("training", [(1, 4.0), (3, 2.0)]), Series("validation", [(3, 3.0)])])

    assert re.search(r'<path class="line s0" d="M52.0 26.0L310.0 102.0"/>', svg)
    assert "training: from 4 at 1 to 2 at 3, between 2 and 4. validation: from 3 at 3 to 3 at 3" in svg
    assert "<title>validation, step 3: 3</title>" in svg
    assert '<title id="loss-title">Loss &lt;b&gt;</title>' in svg


def test_a_logarithmic_axis_shows_small_losses_apart_and_has_no_zero() -> None:
    """
    A loss falls by powers of ten; on a linear axis the last nine tenths of a training are one flat line.
    """
    svg = lines(LABELS, [Series("training", [(0, 10.0), (1, 1.0), (2, 0.0), (3, 0.1)])], is_log=True)

    assert re.search(r'<path class="line s0" d="M52.0 26.0L138.0 102.0L310.0 178.0"/>', svg)


def test_a_marked_step_is_a_line_with_a_name_on_the_side_that_has_space() -> None:
    """
    The adapter is that of one step, and a name must not leave the figure.
    """
    series = [Series("training", [(0, 2.0), (4, 1.0)])]

    late, early = (lines(LABELS, series, mark=Mark(step, "adapter of step")) for step in (4, 0))
    assert '<path class="measure" d="M310.0 26V178"/><text x="305.0" y="38" text-anchor="end">adapter of step<' in late
    assert 'text-anchor="start">adapter of step</text>' in early
    assert "adapter of step.</desc>" in late
    assert "measure" not in lines(LABELS, series, mark=Mark(9, "elsewhere"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 1.0, [0.1, 0.2, 0.5, 1.0]),
        (0.0087, 1.06, [0.005, 0.01, 0.1, 1.0, 2.0]),
        (0.3, 0.31, [0.3, 0.302, 0.304, 0.306, 0.308, 0.31]),
        (5.0, 5.0, [5.0, 6.0]),
        (1e-9, 10.0, [1e-9, 1e-7, 1e-5, 1e-3, 0.1, 10.0]),
    ],
)
def test_a_logarithmic_axis_has_few_round_numbers_that_enclose_the_values(
    low: float, high: float, expected: list[float]
) -> None:
    """
    A loss that hardly moves needs an axis, too, and one over ten powers of ten no thirty labels.
    """
    assert expected == log_ticks(low, high)


def test_an_interval_is_a_bar_from_its_low_end_to_its_high_end() -> None:
    """
    A rate without its interval looks more certain than it is; a rate may have none.
    """
    svg = intervals(LABELS, [Interval("baseline", 0.5, 0.4, 1.0), Interval("adapter gated", 0.25)])

    assert 'd="M171.2 22H272.0M171.2 17v10M272.0 17v10"' in svg
    assert "baseline 0.5000 (from 0.4000 to 1.0000); adapter gated 0.2500." in svg
    assert 1 == svg.count('class="line s0"')


def test_a_histogram_counts_each_group_in_the_same_bins() -> None:
    """
    Before and after can be compared bar by bar, and every row is counted.
    """
    assert [Bin(0, 2, (2, 1)), Bin(3, 5, (0, 0)), Bin(6, 8, (1, 2))] == binned([[0, 1, 8], [2, 7, 8]], most=3)
    assert [Bin(4, 4, (1, 0))] == binned([[4], []])
    assert [] == binned([[], []])
    svg = bars(LABELS, ("before", "after"), binned([[0, 1, 8], [2, 7, 8]], most=3))
    assert "<title>before: 2 rows with 0 to 2</title>" in svg
    assert "before: most rows, 2, at 0. after: most rows, 2, at 6." in svg


def test_a_long_line_is_thinned_and_keeps_its_last_point() -> None:
    """
    A page with 100,000 points would be too large to open.
    """
    points = [(step, 0.0) for step in range(1000)]

    assert [0, 250, 500, 750, 999] == [step for step, _ in thinned(points, most=4)]
    assert points == thinned(points, most=1000)


def test_nothing_to_draw_is_no_figure() -> None:
    """
    An empty frame has no use.
    """
    assert ["", "", ""] == [lines(LABELS, [Series("a", [])]), intervals(LABELS, []), bars(LABELS, ("a",), [])]


def test_numbers_are_short() -> None:
    """
    Four digits are enough in a figure.
    """
    assert ["0.3105", "12.35", "1,234", "0"] == [short(value) for value in (0.31049, 12.345678, 1234.4, 0.0)]
