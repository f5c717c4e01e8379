"""Orthographies, and rows that are unfit for them.

Input: an orthography of TABLES, or an orthography_table of a dataset in thunder.toml (docs/orthography.md); the clean
texts of a row.  Output: reasons to drop a row.  core/characters.py cleans and judges one text, spelling.py counts over
all texts of a source.
"""

import re
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import BRIDGE_TONELESS, STANDARD_TONED, Dataset
from thunder_train.core.characters import BANNED, INVISIBLE, REMOVE, STRAY, Orthography, Ratio, faults, members

ANY_MARKS = (0.0, 4.0)
"""Marks per letter, when a table gives no bounds."""
PUNCTUATION = r"!-\/:-@\[-`{-~\u00ab\u00bb\u2010-\u2027\u2030-\u205e\u060c\u061b\u061f\ufd3e\ufd3f"
NKO_SIGNS = r"0-9\u07c0-\u07c9\u07f6-\u07f9\u07fe\u07ff" + PUNCTUATION
NKO_MARKS = r"\u07eb-\u07f3\u07fd"
KO = ("\u07de\u07cb", "\u07de\u07cf")
YE = ("\u07e6\u07cd", "\u07e6\u07cb")
TABLES = {
    table.name: table
    for table in (
        # Measured on 1,000 bridged references: no mark; "ko" is KO[0] in 95 %, "ye" is YE[0] in 99.8 % of the words.
        # A recogniser's confusions lower these to 80 % and 96 %, so its hypotheses fit too.
        Orthography(
            name=BRIDGE_TONELESS,
            letters=r"\u07ca-\u07ea\u07fa\u02bc\u0294",
            marks=NKO_MARKS,
            shared=NKO_SIGNS,
            marks_per_letter=(0.0, 0.02),
            ratios=(Ratio(KO[0], KO, 0.6, 1.0), Ratio(YE[0], YE, 0.9, 1.0)),
        ),
        # Real texts have 0.38 marks per letter (a primer has more), and write "ko" and "ye" with the other vowel.
        Orthography(
            name=STANDARD_TONED,
            letters=r"\u07ca-\u07ea\u07fa",
            marks=NKO_MARKS,
            shared=r"\u07f4\u07f5" + NKO_SIGNS,
            marks_per_letter=(0.2, 0.9),
            ratios=(Ratio(KO[0], KO, 0.0, 0.2), Ratio(YE[0], YE, 0.0, 0.1)),
        ),
    )
}
"""The built-in orthographies. Their names are config.dataset.ORTHOGRAPHIES."""


# Tables of users


def of_dataset(dataset: Dataset) -> Orthography | None:
    """The orthography that the dataset declares; None for none."""
    if dataset.orthography_table:
        where = f"thunder.toml: datasets.{dataset.name}.orthography_table"
        return from_table(dataset.orthography, dataset.orthography_table, where)
    return TABLES.get(dataset.orthography)


def from_table(name: str, table: dict[str, Any], where: str) -> Orthography:
    """The orthography of a user's table: `letters`; and if given marks, shared, marks_per_letter, ratios, invisible.

    where: the table's place, for errors. Raises ThunderError with every wrong class and bound.
    """
    classes = {key: str(table.get(key, "")) for key in ("letters", "marks", "shared")}
    (low, high), rule = table.get("marks_per_letter", ANY_MARKS), str(table.get("invisible", REMOVE))
    ratios = [
        Ratio(each["of"], tuple(each["among"]), float(each["low"]), float(each["high"]))
        for each in table.get("ratios", ())
    ]
    problems = [problem for key, content in classes.items() for problem in _class_problems(content, f"{where}.{key}")]
    if not problems:
        for number, ratio in enumerate(ratios):
            problems += _ratio_problems(ratio, classes, f"{where}.ratios[{number}]")
    raise_all([*problems, *_bounds_problems(low, high, ANY_MARKS[1], f"{where}.marks_per_letter")])
    return Orthography(
        name, **classes, marks_per_letter=(float(low), float(high)), ratios=tuple(ratios), invisible=rule
    )


def _class_problems(content: str, where: str) -> Iterator[ThunderError]:
    """Why a class content cannot be joined with others between [ and ], or that it allows banned characters."""
    if not content:
        if where.endswith("letters"):
            yield ThunderError("is empty", where=where, hint=r"list the letters, such as 'a-z\u00e0-\u00ff'")
        return
    if not unicodedata.is_normalized("NFC", content):
        hint = r"write each letter as one code point, and marks as escapes, such as \u0301"
        yield ThunderError(f"is not in NFC: {content!r}", where=where, hint=hint)
        return
    bare = re.sub(r"\\.", "..", content, flags=re.DOTALL)
    if bare[0] in "^-" or bare[-1] == "-" or "[" in bare or "]" in bare:
        yield ThunderError(f"holds a bare [, ] or an outer ^ or -: {content!r}", where=where, hint=r"write \ before it")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pattern = re.compile(f"[{content}]")
    except (re.error, Warning) as error:
        hint = r"write what is between [ and ] in a regex, such as 'a-z\u00e0-\u00ff'"
        yield ThunderError(f"is not a character class: {content!r} ({error})", where=where, hint=hint)
        return
    # A range such as that of Arabic may hold invisible characters: `invisible` says what becomes of them.
    banned = {reason: members for reason, members in BANNED.items() if reason != INVISIBLE}
    if match := pattern.search("".join(members("".join(banned.values())))):
        reason = next(reason for reason, members in banned.items() if re.match(f"[{members}]", match[0]))
        what = f"lets U+{ord(match[0]):04X} through ({reason.removesuffix(' U+FFFD')})"
        yield ThunderError(what, where=where, hint="leave it out: no text may hold it")


def _ratio_problems(ratio: Ratio, classes: dict[str, str], where: str) -> Iterator[ThunderError]:
    """Why a ratio could never be counted: its words must be plain letters, two or more, `of` one of them."""
    letters = re.compile(f"[{classes['letters']}]+")
    marks = re.compile(f"[{classes['marks']}]") if classes["marks"] else None
    for word in ratio.among:
        if not letters.fullmatch(word) or (marks and marks.search(word)):
            hint = "give words in NFC of `letters` only: marks are left off before words are counted"
            yield ThunderError(f"{word!r} is not a word of this orthography", where=where, hint=hint)
    if ratio.of not in ratio.among or len(set(ratio.among)) < 2:
        yield ThunderError("`of` is not one of two words or more `among`", where=where, hint="add it and its rivals")
    yield from _bounds_problems(ratio.low, ratio.high, 1.0, where)


def _bounds_problems(low: float, high: float, most: float, where: str) -> list[ThunderError]:
    """Bounds that nothing or everything could meet."""
    if 0 <= low <= high <= most:
        return []
    what, hint = f"wrong bounds: {low:g} to {high:g}", f"give 0 <= low <= high <= {most:g}"
    return [ThunderError(what, where=where, hint=hint)]


# One row


def unfit(hypothesis: str, reference: str, answer: str, table: Orthography | None, is_prose: bool = False) -> str:
    """Why a row is not used, such as "stray script in the reference"; "" when it is. Texts of `cleaned`.

    A recogniser may write any script, so a stray one in the hypothesis is no reason.
    """
    texts = [(reference, "reference"), (hypothesis, "hypothesis")]
    if answer != reference:
        texts.insert(0, (answer, "answer"))
    for text, name in texts:
        for reason in faults(text, table, is_prose):
            if not (reason == STRAY and name == "hypothesis"):
                return f"{reason} in the {name}"
    return ""
