"""Error rates under named profiles.

Input: texts and their references.  Output: edits and length of each row, the rate of a set of rows.
"CER" alone has several definitions, so every reported rate carries the name and the hash of its profile.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import regex
from rapidfuzz.distance import Levenshtein

from thunder_train.config.evaluate import Evaluate
from thunder_train.config.profiles import (
    BAMBARA_LEADERBOARD,
    CLUSTER,
    COLLAPSED,
    FOLDED,
    NFC,
    NFKC,
    POOLED,
    PROFILES,
    REMOVED,
    STRIPPED,
    WHISPER_ENGLISH,
    WORD,
    Profile,
)
from thunder_train.core import files
from thunder_train.core.text import clusters, nfc
from thunder_train.evaluate import whisper_english

MARK = regex.compile(r"\p{M}")
PUNCTUATION = regex.compile(r"\p{P}")


class Counted(NamedTuple):
    """One row under one profile. length: units of the reference; edits: the fewest that turn it into the text.

    substituted, deleted, inserted: the edits by kind; a deleted unit is one that the text lacks.
    """

    edits: int
    length: int
    substituted: int = 0
    deleted: int = 0
    inserted: int = 0


def profiles(settings: Evaluate) -> dict[str, Profile]:
    """Name -> profile: those that every project has, then those of the project and of the recipe."""
    return PROFILES | {name: Profile(name=name, **keys) for name, keys in settings.profiles.items()}


def deciding(settings: Evaluate) -> Profile:
    """The profile that a recipe decides by."""
    return profiles(settings)[settings.profile]


def described(profile: Profile) -> dict[str, Any]:
    """The fields of a profile and `sha256`, their hash."""
    return profile.definition | {"sha256": files.digest(profile.definition)}


def count(text: str, reference: str, profile: Profile) -> Counted:
    """Fewest edits that turn the reference into the text (Levenshtein distance), after the profile's normalisation.

    Several alignments can have the fewest edits, and other kinds of them. The kinds are those of rapidfuzz's alignment,
    which is the same each time, and the one of jiwer.
    """
    units, said = _units(reference, profile), _units(text, profile)
    if said == units:
        return Counted(0, len(units))
    tags = [tag for tag, *_ in Levenshtein.editops(units, said).as_list()]
    substituted, deleted = tags.count("replace"), tags.count("delete")
    inserted = len(tags) - substituted - deleted
    return Counted(len(tags), len(units), substituted, deleted, inserted)


def kinds(rows: Iterable[Counted]) -> dict[str, int]:
    """The edits of rows by kind: substitutions, deletions and insertions, in the profile's unit."""
    columns = [sum(column) for column in zip(*(row[2:] for row in rows), strict=True)]
    return dict(zip(("sub", "del", "ins"), columns or (0, 0, 0), strict=True))


def weighed(counted: Counted, profile: Profile) -> tuple[float, int]:
    """(errors, weight) of a row. The rate of several rows is sum of errors / sum of weights.

    With per-row averages, an empty reference has rate 0 for an empty text and 1 for any other.
    """
    if profile.average == POOLED:
        return counted.edits, counted.length
    rate = counted.edits / counted.length if counted.length else float(counted.edits > 0)
    return min(float(profile.limit), rate) if profile.clamp else rate, 1


def rate(rows: Iterable[Counted], profile: Profile) -> float | None:
    """The error rate of rows as a share, above 1 if there are more edits than units; None if the weights sum to 0."""
    pairs = [weighed(row, profile) for row in rows]
    weight = sum(weight for _, weight in pairs)
    return math.fsum(errors for errors, _ in pairs) / weight if weight else None


def _units(text: str, profile: Profile) -> Sequence[str]:
    """The text as the profile counts it: a string of code points, or a list of clusters or words."""
    text = _written(text, profile)
    if profile.unit == WORD:
        return text.split()
    return clusters(text) if profile.unit == CLUSTER else text


def _written(text: str, profile: Profile) -> str:
    """The text after a profile's normalisation, in the order that `Profile` gives."""
    if profile.normalisation == WHISPER_ENGLISH:
        text = whisper_english.normalised(text)
    elif profile.normalisation == BAMBARA_LEADERBOARD:
        text = _of_bambara_leaderboard(text)
    if profile.punctuation == REMOVED:
        text = PUNCTUATION.sub("", text)
    if profile.case == FOLDED:
        text = text.casefold()
    if profile.marks == STRIPPED:
        # NFD first: a composed letter such as é would keep its mark.
        text = MARK.sub("", unicodedata.normalize("NFD", text))
    if profile.normalisation == NFC:
        text = nfc(text)
    elif profile.normalisation == NFKC:
        text = unicodedata.normalize("NFKC", text)
    if profile.spaces == REMOVED:
        text = "".join(text.split())
    return " ".join(text.split()) if profile.spaces == COLLAPSED else text


def _of_bambara_leaderboard(text: str) -> str:
    """The text as the Bambara ASR leaderboard of MALIBA-AI counts it: its `normalize_text`.

    https://github.com/MALIBA-AI/bambara-asr-leaderboard, space/utils/utils_functions.py; Diallo and others 2026
    (arXiv:2602.09785). What is neither letter, digit, underscore nor white space is removed, and so are marks that no
    composed letter has, as N'Ko's.
    """
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())
