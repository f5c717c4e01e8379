"""The keys of [profiles.NAME], and the profiles that every project has: what an error rate counts.

"CER" alone has several definitions, so every reported rate carries the name and the hash of its profile.
evaluate/error_rates.py counts by them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from thunder_train import ThunderError
from thunder_train.config.fields import is_implied, switch, text, whole

CODE_POINT, CLUSTER, WORD = "code point", "grapheme cluster", "word"
KEPT, REMOVED, STRIPPED, FOLDED, COLLAPSED = "kept", "removed", "stripped", "folded", "collapsed"
NFC, NFKC, NONE = "NFC", "NFKC", "none"
WHISPER_ENGLISH, BAMBARA_LEADERBOARD = "whisper-english", "bambara-leaderboard"
POOLED, PER_ROW = "pooled", "per row"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One definition of an error rate. Two rates are comparable only if all fields of their profiles are equal.

    A text goes through normalisation by a named normaliser, punctuation, case, marks, Unicode form, spaces and unit, in
    this order.
    """

    name: str
    unit: str = text(
        help="What is counted; a grapheme cluster is a letter with its marks (Unicode UAX 29), a word is what white "
        "space separates",
        choices=(CODE_POINT, CLUSTER, WORD),
        default=CODE_POINT,
    )
    spaces: str = text(
        help="White space: kept, a character like any other; removed; or collapsed, each run of it to one space, none "
        "at the ends",
        choices=(KEPT, REMOVED, COLLAPSED),
        default=KEPT,
    )
    normalisation: str = text(
        help="Unicode form (without one, the same marks in another order are errors), or the normaliser of somebody "
        "else's scores (docs/evaluation.md)",
        choices=(NFC, NFKC, NONE, WHISPER_ENGLISH, BAMBARA_LEADERBOARD),
        default=NFC,
    )
    marks: str = text(
        help="Combining marks (Unicode category M: tone, nasal, dots, accents)", choices=(KEPT, STRIPPED), default=KEPT
    )
    case: str = text(
        help="Case; folded: capital and small letters are the same (Unicode case folding)",
        choices=(KEPT, FOLDED),
        default=KEPT,
        later=True,
    )
    punctuation: str = text(help="Punctuation (Unicode category P)", choices=(KEPT, REMOVED), default=KEPT, later=True)
    average: str = text(
        help="pooled: all edits divided by all reference units; per row: the mean of the rates of the rows",
        choices=(POOLED, PER_ROW),
        default=POOLED,
    )
    clamp: bool = switch(help="Limit the rate of each row (average per row only)", default=False)
    limit: int = whole(help="Largest rate of a row, with clamp", low=1, high=100, default=1, later=True)

    @property
    def is_raw(self) -> bool:
        """Whether texts are counted as they came, the blanks around them included."""
        return self.normalisation == NONE

    @property
    def definition(self) -> dict[str, Any]:
        """The fields that its hash covers; keys of later versions only where they are not the default."""
        values = {key: getattr(self, key.name) for key in fields(self)}
        return {key.name: value for key, value in values.items() if not is_implied(key, value)}


DEFAULT = "cer-codepoint-nfc-pooled"
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name=DEFAULT),
        Profile(name="cer-cluster-nfc-pooled", unit=CLUSTER),
        Profile(name="cer-toneless-nfc-pooled", marks=STRIPPED),
        # Three definitions used by the first users' repository under the one name CER.
        Profile(name="cer-spaceless-raw-pooled", spaces=REMOVED, normalisation=NONE),
        Profile(name="cer-codepoint-raw-clamped-per-row", normalisation=NONE, average=PER_ROW, clamp=True),
        Profile(name="cer-codepoint-raw-per-row", normalisation=NONE, average=PER_ROW),
        Profile(name="wer-nfc-pooled", unit=WORD),
        Profile(name="wer-whisper-english", unit=WORD, normalisation=WHISPER_ENGLISH),
        *(
            Profile(
                name=f"{rate}-bambara-leaderboard",
                unit=unit,
                normalisation=BAMBARA_LEADERBOARD,
                average=PER_ROW,
                clamp=True,
                limit=2,
            )
            for rate, unit in (("wer", WORD), ("cer", CODE_POINT))
        ),
    )
}
"""Name -> profile, the default first: those that every project has."""


def problems(tables: Mapping[str, Mapping[str, Any]], where: str) -> Iterator[ThunderError]:
    """What is wrong with profiles that a file declares. where: its table of profiles."""
    for name, keys in tables.items():
        place = f"{where}.{name}"
        if name in PROFILES:
            yield ThunderError("is the name of a profile that every project has", place, "choose another name")
        if keys["clamp"] and keys["average"] == POOLED:
            yield ThunderError("limits the rate of each row, and the average is pooled", f"{place}.clamp", _PER_ROW)
        if keys["limit"] != Profile.limit and not keys["clamp"]:
            yield ThunderError("limits nothing without clamp = true", f"{place}.limit", "set clamp, or remove limit")
        if keys["unit"] == WORD and keys["spaces"] == REMOVED:
            hint = f'set it to "{KEPT}", or unit to "{CODE_POINT}"'
            yield ThunderError("leaves one word of each text", f"{place}.spaces", hint)


_PER_ROW = f'set average = "{PER_ROW}"'


def unknown(name: str, own: Mapping[str, Any], where: str) -> list[ThunderError]:
    """A problem if no profile has the name. own: those of the project and of the recipe, by name."""
    names = [*PROFILES, *own]
    if name in names:
        return []
    hint = f"use one of: {', '.join(names)}; or add [profiles.{name}] to thunder.toml"
    return [ThunderError(f"no profile is named {name!r}", where, hint)]
