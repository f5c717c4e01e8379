"""What "error rate" means: profiles, each with a name and a hash that stand beside every number made with it.

Input: a text and its reference.  Output: edits and length in the profile's unit; pooled or averaged to one rate.

How far a rate would move on other rows of the same kind: paired bootstrap intervals.

Input: errors and weight of each row under each condition.  Output: 95 % intervals.  numpy is imported when first used.
Shapes: R rows, C conditions, S samples.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import regex
from rapidfuzz.distance import Levenshtein

from thunder_train.core import files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


CLUSTER, MARK = regex.compile(r"\X"), regex.compile(r"\p{M}")


@dataclass(frozen=True)
class Profile:
    """One definition of an error rate. Two rates compare only if every field of theirs is equal."""

    name: str
    unit: str = "code point"
    """code point, grapheme cluster (a letter with its marks, as in Unicode's UAX 29) or word (between white space)."""
    spaces: str = "kept"
    """kept: a space is a character like any other; removed: white space is left out first."""
    normalisation: str = "NFC"
    """NFC or none. Without it, marks typed in another order are errors."""
    marks: str = "kept"
    """kept, or stripped: combining marks (Unicode category M: tone, nasal, dots) are left out first."""
    average: str = "pooled"
    """pooled: all edits over all reference units; per row: the mean of each row's own rate."""
    clamp: bool = False
    """A row's own rate is at most 1."""


class Counted(NamedTuple):
    """One row under one profile: insertions, deletions and substitutions, and the units of the reference."""

    edits: int
    length: int


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("cer-codepoint-nfc-pooled"),
        Profile("cer-cluster-nfc-pooled", unit="grapheme cluster"),
        Profile("cer-toneless-nfc-pooled", marks="stripped"),
        # The three definitions in the first users' repository, whose reports cannot be compared with each other.
        Profile("cer-spaceless-raw-pooled", spaces="removed", normalisation="none"),
        Profile("cer-codepoint-raw-clamped-per-row", normalisation="none", average="per row", clamp=True),
        Profile("cer-codepoint-raw-per-row", normalisation="none", average="per row"),
        Profile("wer-nfc-pooled", unit="word"),
    )
}
"""Name -> profile, the default first. schema_evaluate.PROFILES lists the same names."""


def described(profile: Profile) -> dict[str, str | bool]:
    """The profile as reports tell it: its fields and their hash."""
    fields = asdict(profile)
    return fields | {"sha256": files.digest(fields)}


def count(text: str, reference: str, profile: Profile) -> Counted:
    """Edits that lead from the text to the reference, after what the profile leaves out of both."""
    units = _units(reference, profile)
    return Counted(Levenshtein.distance(_units(text, profile), units), len(units))


def weighed(counted: Counted, profile: Profile) -> tuple[float, int]:
    """What a row adds to the two sums that a rate is the quotient of: (errors, weight).

    A row's own rate over an empty reference is 0 for an empty text, else 1, as the historical definitions have it.
    """
    if profile.average == "pooled":
        return counted.edits, counted.length
    rate = counted.edits / counted.length if counted.length else float(counted.edits > 0)
    return min(1.0, rate) if profile.clamp else rate, 1


def rate(rows: Iterable[Counted], profile: Profile) -> float | None:
    """The error rate of rows, as a share: it can exceed 1 unless clamped. None when there is nothing to divide by."""
    pairs = [weighed(row, profile) for row in rows]
    weight = sum(weight for _, weight in pairs)
    return math.fsum(errors for errors, _ in pairs) / weight if weight else None


def clusters(text: str) -> list[str]:
    """Grapheme clusters of a text: in N'Ko a letter with the tone and nasal marks on it."""
    return CLUSTER.findall(text)


def nfc(text: str) -> str:
    """The text with its marks in canonical order: one text has one spelling."""
    return unicodedata.normalize("NFC", text)


def _units(text: str, profile: Profile) -> Sequence[str]:
    if profile.marks == "stripped":
        text = MARK.sub("", unicodedata.normalize("NFD", text))  # NFD, else the mark of a composed letter would stay
    if profile.normalisation == "NFC":
        text = nfc(text)
    if profile.spaces == "removed":
        text = "".join(text.split())
    if profile.unit == "word":
        return text.split()
    return clusters(text) if profile.unit == "grapheme cluster" else text


PERCENTILES = (2.5, 97.5)
DIGITS = 6
"""Of an interval's ends: more would tell the order in which a machine adds."""


class Interval(NamedTuple):
    """95 % intervals of a condition's rate, and of its difference from the baseline in percentage points."""

    cer_low: float
    cer_high: float
    delta_low: float
    delta_high: float


def paired(errors: list[list[float]], weights: list[int], samples: int, seed: int) -> list[Interval]:
    """An interval for each condition, by the percentile bootstrap over rows (Efron and Tibshirani 1993, 13.3).

    errors: (C, R), the baseline first.  weights: (R,), the same for all conditions: a rate is sum of errors / sum of
    weights.  Paired: each sample draws the same rows for all conditions, so what makes a row hard cancels out in the
    differences.
    """
    import numpy as np

    sums = _sums(np.array([*errors, weights], dtype=np.float64).T, samples, seed)
    rates = sums[:, :-1] / np.maximum(sums[:, -1:], 1)  # a sample of nothing but empty references has no error either
    ends = np.percentile(rates, PERCENTILES, axis=0)
    deltas = np.percentile(100 * (rates - rates[:, :1]), PERCENTILES, axis=0)
    rounded = np.round(np.concatenate([ends, deltas]), DIGITS) + 0.0  # no -0.0, which JSON would tell
    return [Interval(*column) for column in rounded.T.tolist()]


def _sums(table: "NDArray[np.float64]", samples: int, seed: int) -> "NDArray[np.float64]":
    """(S, C + 1): column sums of R rows that are drawn with replacement, sample by sample. table: (R, C + 1)."""
    import numpy as np

    rows, columns = table.shape
    # Raw bits, because numpy keeps only these the same from version to version; R is far too small for a modulo's bias.
    bits = np.random.PCG64(seed)
    sums = np.empty((samples, columns))
    for sample in range(samples):
        drawn = (bits.random_raw(rows) % np.uint64(rows)).astype(np.int64)
        sums[sample] = np.bincount(drawn, minlength=rows) @ table
    return sums
