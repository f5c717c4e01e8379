"""Assigns rows to splits, and drops duplicates and rows that would leak between splits.

The split of a row depends on the seed and its group alone, so appended rows move no other row. Where a recording or a
text is in two splits all the same, the rows of the less protected split are dropped: train before valid before test.
Rows are numbers here; n of them.
"""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thunder_train.data.near_duplicates import LEFT_OUT

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("train", "valid", "test")
"""From the least protected to the most."""
RULE = (
    "sha256('{seed}:{group}') as a fraction: below valid is valid, below valid + test is test, the rest is train; "
    "a row that shares a group key with a row of a later split of train, valid, test is dropped"
)
"""Stands in every dataset's manifest."""
DUPLICATE = "exact duplicate"


@dataclass(frozen=True)
class Assignment:
    """The split of each row, and which rows are kept."""

    order: "Numbers"
    """(n,) rows sorted by id."""
    splits: "Numbers"
    """(n,) index into SPLITS of each row, also of those not kept."""
    kept: "Numbers"
    """(n,) bool."""
    reasons: dict[int, str]
    """Row -> why it is not kept."""

    def rows(self, split: int) -> "Numbers":
        """(n,) bool: the rows kept in a split, given as an index into SPLITS."""
        rows: Numbers = self.kept & (self.splits == split)
        return rows

    def kept_splits(self) -> "Numbers":
        """(n,) the split of each row, LEFT_OUT for those not kept."""
        import numpy as np

        return np.where(self.kept, self.splits, LEFT_OUT).astype(np.uint8)


def fraction(seed: int, group: str) -> float:
    """The place of a group in [0, 1), fixed by seed and name alone: the first 52 bits of a sha256."""
    return int(hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(place: float, valid: float, test: float) -> int:
    """The split of a group at this fraction, as an index into SPLITS."""
    return 1 if place < valid else 2 if place < valid + test else 0


def assign(
    ids: Sequence[str], splits: "array[int]", contents: "array[int]", keys: "Mapping[str, array[int]]"
) -> Assignment:
    """splits: (n,) from `split_of`; contents: (n,) equal for rows that differ in nothing but their id; keys: for each
    group key (n,) a hash of the row's value, 0 for none.

    Of equal rows the one with the smallest id is kept, so the order of the input decides nothing.
    """
    import numpy as np  # late: a no-op build needs none

    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    split, content = np.asarray(splits, np.uint8), np.asarray(contents, np.int64)
    kept, reasons = np.ones(len(ids), bool), {}
    for row in _repeats(content, position).tolist():
        kept[row], reasons[row] = False, DUPLICATE
    # A row dropped for one key still protects its other keys: only duplicates take no part.
    unique = kept.copy()
    for key, values in keys.items():
        highest = _most_protected(np.asarray(values, np.int64), split, unique)
        for row in np.flatnonzero(kept & (highest > split)).tolist():
            kept[row], reasons[row] = False, f"its {key} is also in the {SPLITS[highest[row]]} split"
    return Assignment(order, split, kept, reasons)


def repeated_ids(ids: Sequence[str], assigned: Assignment) -> dict[str, int]:
    """Ids of several different rows, and the number of these rows. Duplicates do not count."""
    counts: dict[str, int] = {}
    last = ""
    for row in assigned.order.tolist():
        if assigned.reasons.get(row) == DUPLICATE:
            continue
        if ids[row] == last:
            counts[last] = counts.get(last, 1) + 1
        last = ids[row]
    return counts


def _repeats(content: "Numbers", position: "Numbers") -> "Numbers":
    """Rows whose content also belongs to a row with a smaller id. position: (n,) rank of each row by id."""
    import numpy as np

    by_content = np.lexsort((position, content))
    same = np.flatnonzero(content[by_content][1:] == content[by_content][:-1]) + 1
    return by_content[same]


def _most_protected(values: "Numbers", splits: "Numbers", unique: "Numbers") -> "Numbers":
    """(n,) the highest split that holds a row's value among the unique rows; 0 for a row without a value."""
    import numpy as np

    most = np.zeros(len(values), np.uint8)
    rows = np.flatnonzero(unique & (values != 0))
    if not len(rows):
        return most
    rows = rows[np.argsort(values[rows], kind="stable")]
    starts = np.flatnonzero(np.r_[True, values[rows][1:] != values[rows][:-1]])
    highest = np.maximum.reduceat(splits[rows], starts)
    most[rows] = np.repeat(highest, np.diff(np.r_[starts, len(rows)]))
    return most
