"""Which rows go to which split, and which cannot: duplicates, and rows that share something with a better kept split.

A row's own split depends on the seed and its group alone, so appended rows move nobody. Where a recording or a text is
in two splits all the same, the rows of the less protected split are dropped: train before valid before test.
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
DUPLICATE = "exact duplicate"


@dataclass(frozen=True)
class Parted:
    """order: rows by id; splits: (n,) of each row, an index of SPLITS; kept: (n,) bool; reasons: of those not kept."""

    order: "Numbers"
    splits: "Numbers"
    kept: "Numbers"
    reasons: dict[int, str]

    def placed(self) -> "Numbers":
        """(n,) the split of each row, LEFT_OUT for those not kept."""
        import numpy as np

        return np.where(self.kept, self.splits, LEFT_OUT).astype(np.uint8)


def fraction(seed: int, group: str) -> float:
    """Where a group falls in [0, 1): fixed by seed and name alone."""
    return int(hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(place: float, valid: float, test: float) -> int:
    """The split of a group at this fraction, as an index of SPLITS."""
    return 1 if place < valid else 2 if place < valid + test else 0


def part(ids: Sequence[str], splits: "array[int]", contents: "array[int]", keys: "Mapping[str, array[int]]") -> Parted:
    """contents: (n,) equal for rows that are the same but for their id; keys: (n,) of each group key, 0 for none.

    Of equal rows the one with the smallest id is kept, so the order of the input decides nothing.
    """
    import numpy as np  # late: a no-op imports this module's neighbours

    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    own, content = np.asarray(splits, np.uint8), np.asarray(contents, np.int64)
    kept, reasons = np.ones(len(ids), bool), {}
    for row in _repeats(content, position).tolist():
        kept[row], reasons[row] = False, DUPLICATE
    alive = kept.copy()
    for key, values in keys.items():
        most = _most_protected(np.asarray(values, np.int64), own, alive)
        for row in np.flatnonzero(kept & (most > own)).tolist():
            kept[row], reasons[row] = False, f"its {key} is also in the {SPLITS[most[row]]} split"
    return Parted(order, own, kept, reasons)


def repeated(ids: Sequence[str], parted: Parted) -> dict[str, int]:
    """Ids that several rows have, duplicates apart, and how many."""
    found: dict[str, int] = {}
    last = ""
    for row in parted.order.tolist():
        if parted.reasons.get(row) == DUPLICATE:
            continue
        if ids[row] == last:
            found[last] = found.get(last, 1) + 1
        last = ids[row]
    return found


def _repeats(content: "Numbers", position: "Numbers") -> "Numbers":
    """Rows whose content an earlier one in order of id has."""
    import numpy as np

    by_content = np.lexsort((position, content))
    same = np.flatnonzero(content[by_content][1:] == content[by_content][:-1]) + 1
    return by_content[same]


def _most_protected(values: "Numbers", splits: "Numbers", alive: "Numbers") -> "Numbers":
    """(n,) the highest split in which a row's value occurs among rows alive; 0 for a row without a value."""
    import numpy as np

    most = np.zeros(len(values), np.uint8)
    rows = np.flatnonzero(alive & (values != 0))
    if not len(rows):
        return most
    rows = rows[np.argsort(values[rows], kind="stable")]
    starts = np.flatnonzero(np.r_[True, values[rows][1:] != values[rows][:-1]])
    highest = np.maximum.reduceat(splits[rows], starts)
    most[rows] = np.repeat(highest, np.diff(np.r_[starts, len(rows)]))
    return most
