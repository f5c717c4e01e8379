"""Which split each row shall go to: as its source says, as the row itself says, or by a hash of its group.

Input: rows one by one, with their sources.  Output: a `Plan`, which splits.py carries out.

A source that says train, valid or test has all its rows there. Rows with a `split` of their own keep it if the source
says "row", or if it says nothing and the rows of the dataset have two splits or more. All others are divided by hash,
and a split that rows are given to takes none of those, so that a published test set stays as it is. Rows that the
recogniser was trained on are never divided into valid or test.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core.text import quoted
from thunder_train.data.rows import SPLIT_WORDS, Row
from thunder_train.data.splits import SPLITS, TEST, TRAIN, VALID, Assignment, fraction

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

WORDS = {word: SPLITS.index(split) for word, split in SPLIT_WORDS.items()}
ALIKE = re.compile(rf"\s*({'|'.join(WORDS)})(?![a-z])", re.IGNORECASE)
"""A word that must mean a split, such as train-clean-100: to divide its rows by hash would be wrong."""
DIVIDED, OWN, HEARD, NONE, UNKNOWN, HEARD_TEST = 3, 4, 7, 8, 9, 10
"""Codes of rows, after those of SPLITS for rows that are given to one: divided as the source says; OWN + split: a word
of the row's own, which may count or not; HEARD: the recogniser was trained on it; no word; another word; HEARD_TEST: as
HEARD, but given to test."""
NEVER_TEST = frozenset({TRAIN, VALID, HEARD, OWN + TRAIN, OWN + VALID})
RECOGNISED = ("rows", "nemo")
"""Kinds of sources in which `split` is that of the recogniser's training."""
TRIED = 8
"""Single groups that are tried for an empty split; a group may share its texts with all others."""
SHOWN_WORDS = 5
"""Most unknown words that are counted one by one."""


class Columns:
    """What decides the splits of n rows: 9 bytes of each."""

    def __init__(self, dataset: Dataset) -> None:
        self._seed = dataset.split_seed
        self._code_of: dict[tuple[str, ...], int] = {}
        self.places, self.codes = array("d"), array("B")
        """The place of each row's group in [0, 1), and a code of it."""
        self.words: Counter[str] = Counter()
        """Words of rows that mean no split, where they count if others do."""
        self.refused: Counter[str] = Counter()
        """Such words where the source says that they count, or that look as if they should."""

    def add(self, row: Row, source: Source, group: str) -> bool:
        """Note a row. Returns whether it may fall into the test split."""
        key = (row.given_split, row.own_split, source.split, source.kind)
        code = self._code_of.get(key)
        if code is None:
            code = self._code(row, source)
            if row.own_split in WORDS or (not row.own_split and source.split != "row"):  # other words are counted
                self._code_of[key] = code
        self.places.append(fraction(self._seed, group))
        self.codes.append(code)
        return code not in NEVER_TEST

    @property
    def has_too_many_words(self) -> bool:
        """Whether some words were counted together, so that these columns cannot be merged."""
        return "" in self.words or "" in self.refused

    def merge(self, other: "Columns") -> None:
        """Add the rows of another, which follow on these."""
        self.places.extend(other.places)
        self.codes.extend(other.codes)
        for words, more in ((self.words, other.words), (self.refused, other.refused)):
            for word, count in more.items():
                _add(words, word, count)

    def _code(self, row: Row, source: Source) -> int:
        split = WORDS.get(row.own_split.strip().casefold()) if row.own_split else None
        is_heard = split == TRAIN and source.kind in RECOGNISED
        if row.given_split or source.split in SPLITS:
            code = SPLITS.index(row.given_split or source.split)
            return HEARD_TEST if code == TEST and is_heard else code
        if source.split == "divide":
            return DIVIDED
        if source.split == "row":
            if split is None:
                _count(self.refused, row.own_split)
            return split or TRAIN
        if split is None:
            if row.own_split:
                _count(self.refused if ALIKE.match(row.own_split) else self.words, row.own_split)
            return UNKNOWN if row.own_split else NONE
        return HEARD if is_heard else OWN + split


def _count(words: Counter[str], word: str) -> None:
    """Count a word; "" for all beyond the first SHOWN_WORDS."""
    _add(words, quoted(word) if word else "none", 1)


def _add(words: Counter[str], word: str, count: int) -> None:
    words[word if word in words or len(words) < SHOWN_WORDS else ""] += count


@dataclass(frozen=True)
class Plan:
    """The split that each row shall go to."""

    splits: "Numbers"
    """(n,) index into SPLITS."""
    places: "Numbers"
    """(n,) of each row's group in [0, 1)."""
    given: "Numbers"
    """(n,) bool: rows that are given to valid or test, which stay whole."""
    divided: "Numbers"
    """(n,) bool: rows that are there by hash, and may be moved where a split would be empty."""
    spare: "Numbers"
    """(n,) bool: train rows that valid may be taken from where no other row can be there."""
    shares: dict[int, float]
    """Splits that shall not be empty -> the share of groups that each shall have."""
    notes: list[str] = field(default_factory=list)
    problems: list[ThunderError] = field(default_factory=list)


def plan(columns: Columns, dataset: Dataset) -> Plan:
    """The split of each row."""
    import numpy as np  # late: a no-op build needs none

    codes, places = np.array(columns.codes, np.uint8), np.array(columns.places, np.float64)
    counts = np.bincount(codes, minlength=HEARD_TEST + 1)
    codes[codes == HEARD_TEST] = TEST
    own = [split for split in range(len(SPLITS)) if counts[OWN + split] or (split == TRAIN and counts[HEARD])]
    is_own = len(own) > 1
    if is_own:
        codes = np.where(codes == HEARD, TRAIN, np.where((codes >= OWN) & (codes < HEARD), codes - OWN, codes))
    is_given = codes < len(SPLITS)
    given_to = set(np.unique(codes[is_given]).tolist())
    divided = ~is_given & (codes != HEARD)
    splits = np.where(is_given, codes, _by_place(places, codes, given_to, dataset)).astype(np.uint8)
    splits[codes == HEARD] = TRAIN
    spare = (is_given & (splits == TRAIN)) | (codes == HEARD)
    notes = _notes_of_words(columns, counts, own)
    if dataset.valid and VALID not in given_to and not divided.any() and spare.any():
        splits[spare & (places < dataset.valid)] = VALID
        is_heard = " (the recogniser was trained on them)" if counts[HEARD] else ""
        notes.append(f"no row is given to valid: it is taken from the rows of train, by hash{is_heard}")
    shares = {TRAIN: 1 - dataset.valid - dataset.test}
    if dataset.valid and VALID not in given_to:
        shares[VALID] = dataset.valid
    if dataset.test and TEST not in given_to and divided.any():
        shares[TEST] = dataset.test
    return Plan(
        splits=splits,
        places=places,
        given=is_given & (splits != TRAIN) & (codes != TRAIN),
        divided=divided,
        spare=spare,
        shares=shares,
        notes=notes,
        problems=_refused(columns, is_own, f"thunder.toml: datasets.{dataset.name}.sources"),
    )


def _by_place(places: "Numbers", codes: "Numbers", given_to: set[int], dataset: Dataset) -> "Numbers":
    """(n,) the split of each row by its place. Only rows whose source says "divide" go to a split that is given."""
    import numpy as np

    splits = np.where(places < dataset.valid, VALID, np.where(places < dataset.valid + dataset.test, TEST, TRAIN))
    for split in given_to - {TRAIN}:
        splits[(splits == split) & (codes != DIVIDED)] = TRAIN
    return splits


def _notes_of_words(columns: Columns, counts: "Numbers", own: list[int]) -> list[str]:
    """What became of the splits that rows carry themselves."""
    rows = {split: int(counts[OWN + split] + (counts[HEARD] if split == TRAIN else 0)) for split in own}
    notes = []
    if len(own) > 1:
        each = ", ".join(f"{count:,} in {SPLITS[split]}" for split, count in rows.items())
        notes.append(f'rows keep their own splits ({each}); split = "divide" in a source divides its rows by hash')
        if counts[NONE]:
            notes.append(f"{int(counts[NONE]):,} rows without a split of their own are divided by hash")
    elif own and own[0] == TRAIN and counts[HEARD]:
        notes.append(f"{int(counts[HEARD]):,} rows that the recogniser was trained on stay in train")
    if len(own) == 1 and counts[OWN + own[0]]:
        notes.append(
            f"rows that have a split of their own are all {SPLITS[own[0]]}: it is not used, they are divided by hash; "
            'split = "row" in a source keeps it'
        )
    if counts[HEARD_TEST]:
        rows_heard = f"{int(counts[HEARD_TEST]):,} rows given to test"
        notes.append(f"{rows_heard} are rows that the recogniser was trained on: it errs less there")
    if columns.words and len(own) < 2:
        notes.append(
            f"the split of rows is not used where it is no word for train, valid or test: {_listed(columns.words)}"
        )
    return notes


def _refused(columns: Columns, is_own: bool, where: str) -> list[ThunderError]:
    """Words of rows that mean no split, though they shall count."""
    words = columns.refused + (columns.words if is_own else Counter())
    if not words:
        return []
    meant = {word: ALIKE.match(word.strip("'")) for word in words if word}
    enum = ", ".join(
        f"{word} = {quoted(SPLIT_WORDS[match[1].lower()])}" for word, match in sorted(meant.items()) if match
    )
    example = f"enums.split = {{ {enum} }}" if enum else "enums.split"
    hint = f'list all words of the file in {example} of the source, or set split = "divide" there'
    return [ThunderError(f"rows have the splits {_listed(words)}", where, hint)]


def _listed(words: Counter[str]) -> str:
    """'fold1' (12 rows), 'fold2' (3 rows) and others (9 rows)."""
    return ", ".join(
        f"{word or 'others'} ({count:,} row{'' if count == 1 else 's'})"
        for word, count in sorted(words.items(), key=lambda item: (not item[0], item))
    )


def filled(plan: Plan, assign: Callable[["Numbers"], Assignment]) -> tuple[Assignment, list[str]]:
    """The assignment; where it leaves a split empty, the nearest groups are moved there, and a note says so.

    assign: splits.assign for the splits of n rows.
    """
    assigned, notes = assign(plan.splits), []
    for split, share in plan.shares.items():
        if assigned.rows(split).any():
            continue
        for movable in (plan.divided, plan.spare) if split == VALID else (plan.divided,):
            if moved := _moved(plan, assigned, split, share, movable, assign):
                assigned, groups = moved
                what = f"{groups} groups" if groups > 1 else "group"
                notes.append(f"no group fell into {SPLITS[split]} by its hash, so the nearest {what} went there")
                break
    return assigned, notes


def _moved(
    plan: Plan,
    assigned: Assignment,
    split: int,
    share: float,
    movable: "Numbers",
    assign: Callable[["Numbers"], Assignment],
) -> tuple[Assignment, int] | None:
    """The assignment with the groups nearest to an empty split moved there, as many as its share; and their number.

    None if that would empty a more important split, or if the moved rows would all leak.
    """
    import numpy as np

    first = plan.shares.get(VALID, 0.0)
    low, high = {
        TRAIN: (first + plan.shares.get(TEST, 0.0), 1.0),
        VALID: (0.0, first),
        TEST: (first, first + share),
    }[split]
    places = np.unique(plan.places[movable & assigned.kept])
    nearest = places[np.argsort(np.maximum(low - places, places - high), kind="stable")]
    count = min(max(1, round(share * len(places))), max(1, len(nearest) - 1)) if len(nearest) else 0
    halves = [nearest[: count >> step] for step in range(count.bit_length())]
    before = _occupied(plan, assigned)
    for groups in [*halves, *(nearest[place : place + 1] for place in range(1, min(len(nearest), TRIED)))]:
        splits = assigned.splits.copy()
        splits[movable & np.isin(plan.places, groups)] = split
        trial = assign(splits)
        if _occupied(plan, trial) > before:
            return trial, len(groups)
    return None


def _occupied(plan: Plan, assigned: Assignment) -> tuple[bool, ...]:
    """Which of the wanted splits have rows, the most important first: without train there is nothing."""
    return tuple(bool(assigned.rows(split).any()) for split in plan.shares)
