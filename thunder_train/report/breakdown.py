"""Error rates of parts of the test rows: by partition, length, source and group.

Input: the rows of a page, or the lines of eval.json.  Output: rows, rates before and after.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from thunder_train.config.profiles import Profile
from thunder_train.evaluate import error_rates
from thunder_train.evaluate.conditions import ALL
from thunder_train.report.page_rows import Row

LENGTHS = 5
"""Maximum number of ranges of lengths."""
MOST = 20
"""Maximum number of lines of a table."""


@dataclass(frozen=True)
class Slice:
    """Rows with something in common. before, after: error rates as shares, None where the references are empty."""

    name: str
    rows: int
    before: float | None
    after: float | None
    worse: int
    """Rows that have more edits than before."""

    @property
    def change(self) -> float | None:
        """In percentage points."""
        return None if self.before is None or self.after is None else 100 * (self.after - self.before)


def by_length(rows: Sequence[Row], profile: Profile) -> list[Slice]:
    """Ranges of lengths with about equally many rows, in code points."""
    scored = _scored(rows)
    if not scored:
        return []
    lengths = sorted(row.length for row in scored)
    starts = sorted({lengths[len(lengths) * part // LENGTHS] for part in range(LENGTHS)})
    ranges: list[list[Row]] = [[] for _ in starts]
    for row in scored:
        ranges[bisect_right(starts, row.length) - 1].append(row)
    return [_slice(_range([row.length for row in each]), each, profile) for each in ranges]


def by(rows: Sequence[Row], profile: Profile, key: Callable[[Row], str]) -> list[Slice]:
    """A slice for each value of a key, those that gained the most edits first; empty if no slice has two rows."""
    groups: dict[str, list[Row]] = {}
    for row in _scored(rows):
        groups.setdefault(key(row), []).append(row)
    if all(len(each) < 2 for each in groups.values()):
        return []
    ordered = sorted(groups, key=lambda name: (-sum(row.added for row in groups[name]), name))
    return [_slice(name, groups[name], profile) for name in ordered]


def pivot(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of eval.json's conditions -> {"partition", "lines": condition -> line}, a line per partition."""
    table: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["partition"] != ALL:
            table.setdefault(line["partition"], {})[line["condition"]] = line
    return [{"partition": name, "lines": by_condition} for name, by_condition in table.items()]


def _scored(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.before and row.after]


def _slice(name: str, rows: Sequence[Row], profile: Profile) -> Slice:
    before = error_rates.rate((row.before for row in rows if row.before), profile)
    after = error_rates.rate((row.after for row in rows if row.after), profile)
    return Slice(name, len(rows), before, after, sum(row.added > 0 for row in rows))


def _range(lengths: list[int]) -> str:
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f"{low} to {high}"
