"""Error rates under named profiles.

Input: texts and their references.  Output: edits and length of each row, the rate of a set of rows.
"CER" alone has several definitions, so every reported rate carries the name and the hash of its profile.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import regex
from rapidfuzz.distance import Levenshtein

from thunder_train.config import evaluate
from thunder_train.core import files
from thunder_train.core.text import clusters, nfc

MARK = regex.compile(r"\p{M}")


@dataclass(frozen=True)
class Profile:
    """One definition of an error rate. Two rates are comparable only if all fields of their profiles are equal."""

    name: str
    unit: str = "code point"
    """code point, grapheme cluster (a letter with its marks, Unicode UAX 29) or word (separated by white space)."""
    spaces: str = "kept"
    """kept: a space is a character like any other; removed: white space is removed before counting."""
    normalisation: str = "NFC"
    """NFC or none. Without NFC, the same marks in another order count as errors."""
    marks: str = "kept"
    """kept, or stripped: combining marks (Unicode category M: tone, nasal, dots) are removed before counting."""
    average: str = "pooled"
    """pooled: all edits divided by all reference units; per row: the mean of the rates of the rows."""
    clamp: bool = False
    """Whether the rate of a row is limited to 1 (per-row averages only)."""

    @property
    def is_raw(self) -> bool:
        """Whether texts are counted as they came, the blanks around them included."""
        return self.normalisation == "none"


class Counted(NamedTuple):
    """One row under one profile. edits: insertions, deletions and substitutions; length: units of the reference."""

    edits: int
    length: int


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(evaluate.CER_CODEPOINT),
        Profile(evaluate.CER_CLUSTER, unit="grapheme cluster"),
        Profile(evaluate.CER_TONELESS, marks="stripped"),
        # Three definitions used by the first users' repository under the one name CER.
        Profile(evaluate.CER_SPACELESS_RAW, spaces="removed", normalisation="none"),
        Profile(evaluate.CER_CODEPOINT_RAW_CLAMPED, normalisation="none", average="per row", clamp=True),
        Profile(evaluate.CER_CODEPOINT_RAW, normalisation="none", average="per row"),
        Profile(evaluate.WER, unit="word"),
    )
}
"""Name -> profile, in the order of config.evaluate.PROFILES, the default first."""


def described(profile: Profile) -> dict[str, str | bool]:
    """The fields of a profile and `sha256`, their hash."""
    fields = asdict(profile)
    return fields | {"sha256": files.digest(fields)}


def count(text: str, reference: str, profile: Profile) -> Counted:
    """Fewest edits that turn the text into the reference (Levenshtein distance), after the profile's normalisation."""
    units = _units(reference, profile)
    return Counted(Levenshtein.distance(_units(text, profile), units), len(units))


def weighed(counted: Counted, profile: Profile) -> tuple[float, int]:
    """(errors, weight) of a row. The rate of several rows is sum of errors / sum of weights.

    With per-row averages, an empty reference has rate 0 for an empty text and 1 for any other.
    """
    if profile.average == "pooled":
        return counted.edits, counted.length
    rate = counted.edits / counted.length if counted.length else float(counted.edits > 0)
    return min(1.0, rate) if profile.clamp else rate, 1


def rate(rows: Iterable[Counted], profile: Profile) -> float | None:
    """The error rate of rows as a share, above 1 if there are more edits than units; None if the weights sum to 0."""
    pairs = [weighed(row, profile) for row in rows]
    weight = sum(weight for _, weight in pairs)
    return math.fsum(errors for errors, _ in pairs) / weight if weight else None


def _units(text: str, profile: Profile) -> Sequence[str]:
    """The text as the profile counts it: a string of code points, or a list of clusters or words."""
    if profile.marks == "stripped":
        # NFD first: a composed letter such as é would keep its mark.
        text = MARK.sub("", unicodedata.normalize("NFD", text))
    if profile.normalisation == "NFC":
        text = nfc(text)
    if profile.spaces == "removed":
        text = "".join(text.split())
    if profile.unit == "word":
        return text.split()
    return clusters(text) if profile.unit == "grapheme cluster" else text
