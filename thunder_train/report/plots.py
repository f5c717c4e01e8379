"""Figures as SVG text: lines over steps, values with intervals, histograms.

Input: numbers and labels, no text of rows.  Output: SVG elements for the report, the same bytes on every machine.  They
use the colours of the page; the classes s0 and s1 tell two series apart by colour and by form.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 328, 220
"""Size of a figure in CSS pixels, that of a phone. A page shows it so everywhere: then all texts have one size."""
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 26, 42
"""Margins in SVG units."""
NAMES, VALUES, ROW = 104, 56, 28
"""Intervals: space for a row's name on the left and for its value on the right, and the height of a row."""
DOTS = 40
"""Maximum number of points of a line that get a marker each."""


@dataclass(frozen=True)
class Series:
    """A line. points: (x, y), sorted by x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval, if it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bin:
    """Bars of a histogram for the values from low to high. counts: one for each group."""

    low: int
    high: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Labels:
    """Title and axis labels of a figure. key: unique on its page."""

    key: str
    title: str
    x: str
    y: str = ""


@dataclass(frozen=True)
class Mark:
    """A value of the x axis that a line across the figure marks, and what it is."""

    at: float
    name: str


@dataclass(frozen=True)
class Scale:
    """Map from values to positions along one axis, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> str:
        """The position of a value, to a tenth of a unit."""
        low, high, at = map(math.log, (self.low, self.high, value)) if self.is_log else (self.low, self.high, value)
        return f"{self.start + (self.end - self.start) * (at - low) / (high - low):.1f}"


def lines(labels: Labels, series: Sequence[Series], is_log: bool = False, mark: Mark | None = None) -> Markup:
    """Lines over training steps, whose numbers are whole. "" without points.

    The y axis begins at 0, or is logarithmic: then points at 0 or below, which it has not, are left out.
    """
    series = [Series(each.name, [(x, y) for x, y in each.points if y > 0 or not is_log]) for each in series]
    points = [point for each in series for point in each.points]
    if not points:
        return Markup("")
    (lowest, highest), steps = _ends(y for _, y in points), _ends(x for x, _ in points)
    x_ticks = ticks(*steps, is_whole=True)
    y_ticks = log_ticks(lowest, highest) if is_log else ticks(min(0.0, lowest), highest)
    across = Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    up = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, is_log)
    parts = [*_grid(labels, across, x_ticks, up, y_ticks), *_legend([each.name for each in series])]
    parts += _mark(mark, across) if mark and x_ticks[0] <= mark.at <= x_ticks[-1] else []
    for number, each in enumerate(series):
        positions = [(across.at(x), up.at(y)) for x, y in each.points]
        path = "M" + "L".join(f"{x} {y}" for x, y in positions) if positions else ""
        parts.append(f'<path class="line s{number}" d="{path}"/>')
        if len(positions) <= DOTS:
            for (x, y), (step, value) in zip(positions, each.points, strict=True):
                title = f"{each.name}, {labels.x} {step:g}: {short(value)}"
                parts.append(f'<circle class="s{number}" cx="{x}" cy="{y}" r="2.5">{_titled(title)}</circle>')
    notes = [_described_line(each) for each in series if each.points] + ([f"{mark.name}."] if mark else [])
    return _figure(labels, HEIGHT, parts, " ".join(notes))


def intervals(labels: Labels, rows: Sequence[Interval]) -> Markup:
    """A row per value: a dot, and a bar over its interval. A vertical line marks the value of the first row.

    "" without rows.
    """
    if not rows:
        return Markup("")
    marks = ticks(0.0, max(max(each.value, each.high or 0.0) for each in rows), most=4)
    across = Scale(marks[0], marks[-1], NAMES, WIDTH - VALUES)
    bottom = 8 + ROW * len(rows)
    parts = [
        f'<path class="grid" d="M{across.at(mark)} 8V{bottom}"/>'
        f'<text x="{across.at(mark)}" y="{bottom + 16}" text-anchor="middle">{_tick(mark, marks)}</text>'
        for mark in marks
    ]
    parts.append(f'<path class="measure" d="M{across.at(rows[0].value)} 8V{bottom}"/>')
    for number, row in enumerate(rows):
        y = 8 + ROW * number + ROW / 2
        parts.append(f'<text x="0" y="{y + 4:g}">{escape(row.name)}</text>')
        if row.low is not None and row.high is not None:
            low, high = across.at(row.low), across.at(row.high)
            parts.append(f'<path class="line s0" d="M{low} {y:g}H{high}M{low} {y - 5:g}v10M{high} {y - 5:g}v10"/>')
        parts.append(
            f'<circle class="s0" cx="{across.at(row.value)}" cy="{y:g}" r="4">{_titled(_described_row(row))}</circle>'
        )
        parts.append(f'<text x="{WIDTH}" y="{y + 4:g}" text-anchor="end">{row.value:.4f}</text>')
    middle = (NAMES + WIDTH - VALUES) / 2
    parts.append(f'<text x="{middle:g}" y="{bottom + 34}" text-anchor="middle">{escape(labels.x)}</text>')
    return _figure(labels, bottom + 40, parts, "; ".join(map(_described_row, rows)) + ".")


def bars(labels: Labels, groups: Sequence[str], bins: Sequence[Bin]) -> Markup:
    """A histogram with the bars of the groups side by side. "" without bins."""
    if not bins:
        return Markup("")
    marks = ticks(0.0, max(max(each.counts) for each in bins), is_whole=True)
    up = Scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)
    bin_width = (WIDTH - RIGHT - LEFT) / len(bins)
    bar_width = bin_width * 0.84 / len(groups)  # 8 % of a bin stay empty on each side
    parts = [*_grid(labels, None, [], up, marks), *_legend(groups)]
    every = math.ceil(len(bins) / 8)  # there is space for 8 labels
    for index, each in enumerate(bins):
        start = LEFT + bin_width * index + bin_width * 0.08
        span = str(each.low) if each.low == each.high else f"{each.low} to {each.high}"
        for number, count in enumerate(each.counts):
            top = up.at(count)
            title = _titled(f"{groups[number]}: {count} rows with {span}")
            parts.append(
                f'<rect class="bar s{number}" x="{start + bar_width * number:.1f}" y="{top}" width="{bar_width:.1f}" '
                f'height="{HEIGHT - BOTTOM - float(top):.1f}">{title}</rect>'
            )
        if index % every == 0:
            middle = LEFT + bin_width * (index + 0.5)
            parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{each.low}</text>')
    most = [
        f"{name}: most rows, {max(counts)}, at {bins[counts.index(max(counts))].low}."
        for name, counts in zip(groups, zip(*(each.counts for each in bins), strict=True), strict=True)
    ]
    return _figure(labels, HEIGHT, parts, " ".join(most))


def binned(groups: Sequence[Sequence[int]], most: int = 16) -> list[Bin]:
    """Whole numbers counted in at most `most` bins of equal width, the same for each group; [] without numbers."""
    values = [value for group in groups for value in group]
    if not values:
        return []
    low, high = min(values), max(values)
    width = math.ceil((high - low + 1) / most)
    counts = [[0] * len(groups) for _ in range((high - low) // width + 1)]
    for number, group in enumerate(groups):
        for value in group:
            counts[(value - low) // width][number] += 1
    return [Bin(low + width * at, low + width * (at + 1) - 1, tuple(each)) for at, each in enumerate(counts)]


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """Every n-th point and the last one, about `most` at most: a page need not have each of 100,000 steps."""
    every = math.ceil(len(points) / most) or 1
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def ticks(low: float, high: float, most: int = 5, is_whole: bool = False) -> list[float]:
    """About `most` round numbers, at least two, whose range contains low and high."""
    raw = (high - low or abs(high) or 1.0) / most  # an empty range gets a step that fits its value
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    step = max(1.0, step) if is_whole else step
    # 1e-9: an end that is a multiple of step but for rounding needs no further tick.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Ticks of a logarithmic axis, at least two, whose range contains low and high, both above 0.

    Below three times the lowest value they are as on a linear axis; up to four powers of ten they are of the form 1, 2,
    5 at the ends, and between these where there is space; beyond, powers of ten.
    """
    if high < 3 * low:
        return ticks(low, high)
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 4:
        every = math.ceil((last - first) / most)
        return [float(f"1e{power}") for power in range(first, last + every, every)]
    values = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in (1, 2, 5)]
    start = max(value for value in values if value <= low * (1 + 1e-9))
    end = min(value for value in values if value >= high * (1 - 1e-9))
    inside = [value for value in values if start <= value <= end]
    is_full = len(inside) > most
    return [value for value in inside if not is_full or value in (start, end) or f"{value:e}".startswith("1.0")]


def short(value: float) -> str:
    """Four significant digits: 0.3105, 12.35, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _grid(labels: Labels, across: Scale | None, x_ticks: list[float], up: Scale, y_ticks: list[float]) -> Iterable[str]:
    """Grid lines, numbers and labels of the axes."""
    base = HEIGHT - BOTTOM
    for tick in y_ticks:
        y = up.at(tick)
        yield f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
        label = short(tick) if up.is_log else _tick(tick, y_ticks)
        yield f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{label}</text>'
    if across:
        for tick in x_ticks:
            yield f'<text x="{across.at(tick)}" y="{base + 16}" text-anchor="middle">{_tick(tick, x_ticks)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:g}" y="{HEIGHT - 6}" text-anchor="middle">{escape(labels.x)}</text>'
    yield f'<text x="0" y="12">{escape(labels.y)}</text>'


def _mark(mark: Mark, across: Scale) -> list[str]:
    """A line over the whole height, its name beside it on the side that has more space."""
    x = float(across.at(mark.at))
    anchor, place = ("end", x - 5) if x > WIDTH / 2 else ("start", x + 5)
    text = f'<text x="{place:.1f}" y="{TOP + 12}" text-anchor="{anchor}">{escape(mark.name)}</text>'
    return [f'<path class="measure" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>{text}']


def _legend(names: Sequence[str]) -> Iterable[str]:
    """Names of the series at the top right; nothing for a single series, which the title names."""
    for number, name in enumerate(names if len(names) > 1 else ()):
        x = WIDTH - 112 * (len(names) - number) + 12
        yield f'<path class="line s{number}" d="M{x} 8h18"/><text x="{x + 23}" y="12">{escape(name)}</text>'


def _figure(labels: Labels, height: int, parts: Iterable[str], description: str) -> Markup:
    key = escape(labels.key)
    return Markup(  # noqa: S704 - every text in it was escaped where it was inserted
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" aria-labelledby="{key}-title {key}-text">'
        f'<title id="{key}-title">{escape(labels.title)}</title><desc id="{key}-text">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _ends(values: Iterable[float]) -> tuple[float, float]:
    listed = [*values]
    return min(listed), max(listed)


def _described_line(series: Series) -> str:
    """Start, end and range of a line in words, for screen readers."""
    (first, start), (last, end) = series.points[0], series.points[-1]
    low, high = _ends(y for _, y in series.points)
    course = f"{short(start)} at {first:g} to {short(end)} at {last:g}"
    return f"{series.name}: from {course}, between {short(low)} and {short(high)}."


def _described_row(row: Interval) -> str:
    """A value and its interval in words, for screen readers."""
    ends = "" if row.low is None or row.high is None else f" (from {row.low:.4f} to {row.high:.4f})"
    return f"{row.name} {row.value:.4f}{ends}"


def _titled(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _tick(value: float, all_ticks: list[float]) -> str:
    """A tick's label with as many decimals as the step between two ticks needs."""
    decimals = max(0, -math.floor(math.log10(all_ticks[1] - all_ticks[0]) + 1e-9))
    return f"{value:,.{decimals}f}"
