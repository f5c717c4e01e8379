"""A reason against an adapter, and the numbers and intervals that reasons are made of.

Input: values of files, which may be missing or no numbers.  Output: sentences.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from thunder_train.evaluate import looks
from thunder_train.evaluate.intervals import MIN_GROUPS

Facts = dict[str, Any]
"""The content of a JSON file."""


class Reason(NamedTuple):
    """Why an adapter is not promoted, and the ids of the rows behind that."""

    text: str
    rows: Iterable[str] = ()


def ends(facts: Facts, name: str, ends: str, look: int) -> tuple[float, float] | None:
    """The interval of a change at a look, from its 95 % interval; None where one is missing or groups are few."""
    value, low, high = (number(facts.get(key)) for key in (name, f"{ends}_low", f"{ends}_high"))
    groups = count(facts.get("groups"))
    if value is None or low is None or high is None or groups is None or groups < MIN_GROUPS:
        return None
    return looks.widened(value, low, high, groups, look)


def interval(
    name: str, ends: tuple[float, float] | None, facts: Facts, look: int, is_rise: bool = False
) -> Iterator[Reason]:
    """Whether a change is one for sure, in the direction that is wanted. facts: those with the number of groups."""
    unit = "points" if is_rise else "percentage points"
    if facts.get("too_few_groups"):
        few = f"Groups of test rows (recordings, speakers): {shown(facts.get('groups'))}; fewer than {MIN_GROUPS}"
        yield Reason(f"{few} give no interval of the change of {name}.")
    elif ends is None:
        yield Reason(f"The change of {name} has no 95 % interval.")
    elif ends[0] <= 0 if is_rise else ends[1] >= 0:
        level = f"{100 * (1 - looks.doubt(look)):.6g} % interval"
        which = f" at look {look} at these test rows" if look > 1 else ""
        text = f"its {level}{which} is {ends[0]:+.2f} to {ends[1]:+.2f} {unit}"
        yield Reason(f"The change of {name} may be none: {text}.")


def number(value: Any) -> float | None:
    """A finite number, else None: NaN would pass every limit, because its comparisons are false."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def count(value: Any) -> int | None:
    """A whole number of at least 0, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def shown(count: Any) -> str:
    """A number for a sentence; unknown if there is none."""
    return "unknown" if count is None else str(count)
