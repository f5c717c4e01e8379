"""Orthographies as tables: what a text may hold, and what a data set's statistics must show.

Input: an orthography_table of a dataset in thunder.toml, or TABLES.  docs/orthography.md tells how to write one.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

from thunder_train import ThunderError, raise_all

REPLACED, CONTROL, SURROGATE = "replacement character U+FFFD", "control character", "lone surrogate"
BIDI, BREAK = "bidi control", "line break or tab"
BANNED = {
    REPLACED: r"\ufffd",
    CONTROL: r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff",
    SURROGATE: r"\ud800-\udfff",
    BIDI: r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    BREAK: r"\t\n\r",
}
"""Reason -> class content of the characters that no orthography may hold, worst first."""
NOT_JUDGED = (0.0, 4.0)
"""Marks per letter, when a table gives no bounds."""


class Ratio(NamedTuple):
    """How often one spelling is chosen: the share of the word `of` in all words `among`, marks left off."""

    of: str
    among: tuple[str, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Orthography:
    """One way to spell one language. `letters`, `marks` and `shared` are what stands between [ and ] in a regex."""

    name: str
    letters: str
    """Every letter a text may hold."""
    marks: str
    """Combining marks, also those that the orthography never writes: they are counted, so that a verdict can fall."""
    shared: str
    """Punctuation and digits. A space is always allowed."""
    marks_per_letter: tuple[float, float]
    """Bounds over a data set."""
    ratios: tuple[Ratio, ...] = ()

    @cached_property
    def suspects(self) -> re.Pattern[str]:
        """What is neither letter, mark, shared nor space."""
        return re.compile(f"[^{self.letters}{self.marks}{self.shared} ]")

    @cached_property
    def mark_set(self) -> tuple[str, ...]:
        """The marks one by one."""
        return tuple(_members(self.marks)) if self.marks else ()


@cache
def _members(content: str) -> list[str]:
    """Every character of a class, by trying all."""
    return re.findall(f"[{content}]", "".join(map(chr, range(0x110000))))


PUNCTUATION = r"!-\/:-@\[-`{-~\u00ab\u00bb\u2010-\u2027\u2030-\u205e\u060c\u061b\u061f\ufd3e\ufd3f"
NKO_SIGNS = r"0-9\u07c0-\u07c9\u07f6-\u07f9\u07fe\u07ff" + PUNCTUATION
NKO_MARKS = r"\u07eb-\u07f3\u07fd"
KO = ("\u07de\u07cb", "\u07de\u07cf")
YE = ("\u07e6\u07cd", "\u07e6\u07cb")
TABLES: dict[str, Orthography] = {
    # Measured on 1,000 bridged references: no mark; "ko" is KO[0] in 95 %, "ye" is YE[0] in 99.8 % of the words.
    # A recogniser's confusions lower these to 80 % and 96 %, so its hypotheses fit too.
    "bridge-toneless": Orthography(
        name="bridge-toneless",
        letters=r"\u07ca-\u07ea\u07fa\u02bc\u0294",
        marks=NKO_MARKS,
        shared=NKO_SIGNS,
        marks_per_letter=(0.0, 0.02),
        ratios=(Ratio(KO[0], KO, 0.6, 1.0), Ratio(YE[0], YE, 0.9, 1.0)),
    ),
    # Real texts have 0.38 marks per letter (a primer has more), and write "ko" and "ye" with the other vowel.
    "standard-toned": Orthography(
        name="standard-toned",
        letters=r"\u07ca-\u07ea\u07fa",
        marks=NKO_MARKS,
        shared=r"\u07f4\u07f5" + NKO_SIGNS,
        marks_per_letter=(0.2, 0.9),
        ratios=(Ratio(KO[0], KO, 0.0, 0.2), Ratio(YE[0], YE, 0.0, 0.1)),
    ),
}


def from_table(name: str, table: dict[str, Any], where: str) -> Orthography:
    """The orthography of a user's table: `letters`; and if given marks, shared, marks_per_letter, ratios.

    where: the table's place, for errors. Raises ThunderError that tells every wrong class and bound.
    """
    classes = {key: str(table.get(key, "")) for key in ("letters", "marks", "shared")}
    low, high = table.get("marks_per_letter", NOT_JUDGED)
    ratios = [
        Ratio(each["of"], tuple(each["among"]), float(each["low"]), float(each["high"]))
        for each in table.get("ratios", ())
    ]
    wrong = [problem for key, content in classes.items() for problem in _class_problems(content, f"{where}.{key}")]
    if not wrong:
        for number, ratio in enumerate(ratios):
            wrong += _ratio_problems(ratio, classes, f"{where}.ratios[{number}]")
    raise_all([*wrong, *_bounds_problems(low, high, NOT_JUDGED[1], f"{where}.marks_per_letter")])
    return Orthography(name, **classes, marks_per_letter=(float(low), float(high)), ratios=tuple(ratios))


def _class_problems(content: str, where: str) -> Iterator[ThunderError]:
    """What keeps a class content from standing beside others between [ and ], or lets banned characters in."""
    if not content:
        if where.endswith("letters"):
            yield ThunderError("is empty", where=where, mend=r"list the letters, such as 'a-z\u00e0-\u00ff'")
        return
    if not unicodedata.is_normalized("NFC", content):
        mend = r"write each letter as one code point, and marks as escapes, such as \u0301"
        yield ThunderError(f"is not in NFC: {content!r}", where=where, mend=mend)
        return
    bare = re.sub(r"\\.", "..", content, flags=re.DOTALL)
    if bare[0] in "^-" or bare[-1] == "-" or "[" in bare or "]" in bare:
        yield ThunderError(f"holds a bare [, ] or an outer ^ or -: {content!r}", where=where, mend=r"write \ before it")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pattern = re.compile(f"[{content}]")
    except (re.error, Warning) as error:
        mend = r"write what stands between [ and ] in a regex, such as 'a-z\u00e0-\u00ff'"
        yield ThunderError(f"is no character class: {content!r} ({error})", where=where, mend=mend)
        return
    if found := pattern.search("".join(_members("".join(BANNED.values())))):
        reason = next(reason for reason, banned in BANNED.items() if re.match(f"[{banned}]", found[0]))
        what = f"lets a {reason} through (U+{ord(found[0]):04X})"
        yield ThunderError(what, where=where, mend="leave it out: no text may hold it")


def _ratio_problems(ratio: Ratio, classes: dict[str, str], where: str) -> Iterator[ThunderError]:
    """A ratio that could never be counted: its words must be plain letters, two or more, `of` one of them."""
    letters = re.compile(f"[{classes['letters']}]+")
    marks = re.compile(f"[{classes['marks']}]") if classes["marks"] else None
    for word in ratio.among:
        if not letters.fullmatch(word) or (marks and marks.search(word)):
            mend = "give words in NFC of `letters` only: marks are left off before words are counted"
            yield ThunderError(f"{word!r} is no word of this orthography", where=where, mend=mend)
    if ratio.of not in ratio.among or len(set(ratio.among)) < 2:
        yield ThunderError("`of` is not one of two words or more `among`", where=where, mend="add it and its rivals")
    yield from _bounds_problems(ratio.low, ratio.high, 1.0, where)


def _bounds_problems(low: float, high: float, most: float, where: str) -> list[ThunderError]:
    """Bounds that nothing or everything could meet."""
    if 0 <= low <= high <= most:
        return []
    return [ThunderError(f"no bounds: {low:g} to {high:g}", where=where, mend=f"give 0 <= low <= high <= {most:g}")]
