"""Assigns rows to splits, and drops duplicates and rows that would leak between splits.

The split of a row depends on the seed and its group alone, so appended rows move no other row. Where a recording or a
text is in two splits all the same, the rows of the less protected split are dropped: train before valid before test.
Rows that were given to valid or test (given_splits.py) are never dropped for that. Rows are numbers here; n of them.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from thunder_train.data.near_duplicates import LEFT_OUT

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

SPLITS = ("train", "valid", "test")
"""From the least protected to the most."""
TRAIN, VALID, TEST = range(len(SPLITS))
GIVEN = 2
"""Added to the rank of a row that was given to valid or test: only unprotected rows are dropped."""
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
    partners: dict[int, int] = field(default_factory=dict)
    """Row that is not kept -> the row because of which."""
    overlaps: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Row given to valid -> (the key that it shares with a row given to test, that row)."""
    new_ids: dict[int, str] = field(default_factory=dict)
    """Row -> its id, where several equal rows were given to one split."""

    def rows(self, split: int) -> "Numbers":
        """(n,) bool: the rows kept in a split, given as an index into SPLITS."""
        rows: Numbers = self.kept & (self.splits == split)
        return rows

    def drop(self, row: int, reason: str, partner: int) -> None:
        """Do not keep a row because of another."""
        self.kept[row], self.reasons[row], self.partners[row] = False, reason, partner

    def kept_splits(self) -> "Numbers":
        """(n,) the split of each row, LEFT_OUT for those not kept."""
        import numpy as np

        return np.where(self.kept, self.splits, LEFT_OUT).astype(np.uint8)


def fraction(seed: int, group: str) -> float:
    """The place of a group in [0, 1), fixed by seed and name alone: the first 52 bits of a sha256."""
    return (int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:7], "big") >> 4) / 16**13


def assign(
    ids: Sequence[str],
    splits: "Numbers",
    contents: "array[int]",
    keys: "Mapping[str, array[int]]",
    given: "Numbers",
    unfit: Mapping[int, str],
) -> Assignment:
    """splits: (n,) index into SPLITS; contents: (n,) equal for rows that differ in nothing but their id; keys: for each
    group key (n,) a hash of the row's value, 0 for none; given: (n,) bool, rows of valid and test that stay whole;
    unfit: row -> why it cannot be in train and valid.

    Of equal rows the one with the smallest id is kept, so the order of the input decides nothing.
    """
    import numpy as np  # late: a no-op build needs none

    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    content = np.asarray(contents, np.int64)
    result = Assignment(order, splits, np.ones(len(ids), bool), {})
    for row, reason in unfit.items():
        if splits[row] != TEST:
            result.kept[row], result.reasons[row] = False, reason
    for row, first in _repeats(content, given, position, result.kept):
        is_elsewhere = given[first] and splits[first] != splits[row]
        result.drop(row, f"{DUPLICATE} of a row of {SPLITS[splits[first]]}" if is_elsewhere else DUPLICATE, first)
    # A row dropped for one key still protects its other keys: only duplicates and unfit rows take no part.
    unique, rank = result.kept.copy(), (splits + GIVEN * given).astype(np.uint8)
    for key, values in keys.items():
        _drop_leaks(result, key, np.asarray(values, np.int64), rank, unique)
    if not given.any():
        return result
    _drop_leaks(result, "whole content", content, rank, unique & given)  # drops none: equal rows are all given ones
    return _with_own_ids(result, ids, content, given)


def _drop_leaks(result: Assignment, key: str, values: "Numbers", rank: "Numbers", unique: "Numbers") -> None:
    """Drop the rows that share a value with a better protected row of another split."""
    import numpy as np

    highest = _most_protected(values, rank, unique)
    split_of_highest = np.where(highest > TEST, highest - GIVEN, highest)
    is_shared = result.kept & (highest > rank) & (split_of_highest != result.splits)
    rows = np.flatnonzero(is_shared)
    if not len(rows):
        return
    # The best protected row of each of these values; of several the one with the smallest id.
    others = result.order[(unique & np.isin(values, values[rows]))[result.order]]
    partners: dict[tuple[int, int], int] = {}
    for value, other_rank, other in zip(values[others].tolist(), rank[others].tolist(), others.tolist(), strict=True):
        partners.setdefault((value, other_rank), other)
    for row, value, most in zip(rows.tolist(), values[rows].tolist(), highest[rows].tolist(), strict=True):
        partner = partners[value, most]
        if rank[row] > TEST:
            result.overlaps.setdefault(row, (key, partner))
        else:
            result.drop(row, f"its {key} is also in the {SPLITS[result.splits[partner]]} split", partner)


def _with_own_ids(result: Assignment, ids: Sequence[str], content: "Numbers", given: "Numbers") -> Assignment:
    """Equal rows that were given to a split all stay, so the second of an id is called ID#2."""
    import numpy as np

    last, number = -1, 1
    for row in result.order[(result.kept & given)[result.order]].tolist():
        if last >= 0 and ids[row] == ids[last] and content[row] == content[last]:
            number += 1
            result.new_ids[row] = f"{ids[row]}#{number}"
        else:
            last, number = row, 1
    if not result.new_ids:
        return result
    names = {**dict(enumerate(ids)), **result.new_ids}
    return replace(result, order=np.array(sorted(range(len(ids)), key=names.__getitem__), np.int64))


def repeated_ids(ids: Sequence[str], assigned: Assignment) -> dict[str, int]:
    """Ids of several rows that are kept, and the number of these rows."""
    counts: dict[str, int] = {}
    last = ""
    for row in assigned.order[assigned.kept[assigned.order]].tolist():
        name = assigned.new_ids.get(row, ids[row])
        if name == last:
            counts[last] = counts.get(last, 1) + 1
        last = name
    return counts


def _repeats(content: "Numbers", given: "Numbers", position: "Numbers", kept: "Numbers") -> Iterator[tuple[int, int]]:
    """Kept rows with the content of another, which are not given; and that other row, a given one or the first by id.

    position: (n,) rank of each row by id.
    """
    import numpy as np

    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((position[rows], ~given[rows], content[rows]))]
    starts = np.r_[True, content[rows][1:] != content[rows][:-1]][: len(rows)]
    firsts = rows[np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))] if len(rows) else rows
    is_repeat = ~starts & ~given[rows]
    yield from zip(rows[is_repeat].tolist(), firsts[is_repeat].tolist(), strict=True)


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
