"""Orthographies: what a text may hold, and how a text that holds more is cleaned.

Input: an orthography of TABLES, or an orthography_table of a dataset in thunder.toml (docs/orthography.md); texts as
they were read for `cleaned`, cleaned ones for `faults` and `unfit`.  Output: clean texts; reasons to drop a row.
spelling.py counts over all texts of a source.
"""

import re
import unicodedata
import warnings
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import BRIDGE_TONELESS, INVISIBLE_RULES, STANDARD_TONED, Dataset
from thunder_train.core.text import nfc

REPLACED, NONCHARACTER, SURROGATE = "replacement character U+FFFD", "noncharacter", "lone surrogate"
INVISIBLE, BREAK, STRAY = "invisible character", "line break or tab", "stray script"
CONTROLS = r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
BIDI_CONTROLS = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
ZERO_WIDTH = r"\xad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
"""Soft hyphen, zero-width space, word joiner, byte order mark, tags. Not the joiners U+200C and U+200D, which words of
Persian and Hindi need."""
UNSEEN = re.compile(f"[{CONTROLS}{BIDI_CONTROLS}{ZERO_WIDTH}]")
"""Any invisible character."""
CONTROL = re.compile(f"[{CONTROLS}]")
BANNED = {
    REPLACED: r"\ufffd",
    NONCHARACTER: r"\ufdd0-\ufdef\ufffe\uffff",
    SURROGATE: r"\ud800-\udfff",
    INVISIBLE: CONTROLS + BIDI_CONTROLS,
    BREAK: r"\t-\r\x85\u2028\u2029",
}
"""Reason -> class content of the characters that no text may hold, worst first."""
REASONS = (*BANNED, STRAY)
"""All reasons of `faults`, worst first."""
NAMED = (INVISIBLE, BREAK)
"""Reasons that are given with the code point: their characters cannot be seen."""
ANYWHERE = re.compile(f"[{''.join(BANNED.values())}{ZERO_WIDTH}]")
ANY_MARKS = (0.0, 4.0)
"""Marks per letter, when a table gives no bounds."""
REMOVE, DROP, KEEP = INVISIBLE_RULES


class Ratio(NamedTuple):
    """How often one spelling is chosen: the share of the word `of` in all words `among`, marks left off."""

    of: str
    among: tuple[str, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Orthography:
    """One way to spell one language. `letters`, `marks` and `shared` are what is between [ and ] in a regex."""

    name: str
    letters: str
    """Every letter a text may hold."""
    marks: str
    """Combining marks, also those that the orthography never writes: they are counted, to detect another one."""
    shared: str
    """Punctuation and digits. A space is always allowed."""
    marks_per_letter: tuple[float, float]
    """Bounds over a dataset."""
    ratios: tuple[Ratio, ...] = ()
    invisible: str = REMOVE
    """What becomes of invisible characters: REMOVE them, DROP the row, or KEEP those that are no control."""

    @cached_property
    def suspects(self) -> re.Pattern[str]:
        """A character that is neither letter, mark, shared nor space, or an invisible one that shall be seen."""
        others = f"[^{self.letters}{self.marks}{self.shared} ]"
        return re.compile(f"{others}|{UNSEEN.pattern}" if self.invisible == DROP else others)

    @cached_property
    def mark_set(self) -> tuple[str, ...]:
        """The marks one by one."""
        return tuple(_members(self.marks)) if self.marks else ()


@cache
def _members(content: str) -> list[str]:
    """Every character of a class, by trying all."""
    every = array("I", range(0x110000)).tobytes().decode("utf-32", "surrogatepass")  # in a fifth of the time of chr
    return re.findall(f"[{content}]", every)


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
    if match := pattern.search("".join(_members("".join(banned.values())))):
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


# One text


def cleaned(text: str, table: Orthography | None, is_prose: bool = False) -> str:
    """The text in NFC, without invisible characters (as the table says; without one they are removed) and outer blanks.

    is_prose: a conversation or plain text. It keeps its blanks; and without a table all its characters but NUL, for
    a right-to-left mark is part of an Arabic text, and a joiner of an emoji.
    """
    if text.isprintable():  # no invisible character is
        return nfc(text) if is_prose else nfc(text).strip()
    if is_prose and table is None:
        return nfc(text.replace("\0", ""))
    rule = table.invisible if table else REMOVE
    if rule != DROP:
        text = (UNSEEN if rule == REMOVE else CONTROL).sub("", text)
    return nfc(text) if is_prose else nfc(text).strip()


def faults(text: str, table: Orthography | None, is_prose: bool = False) -> tuple[str, ...]:
    """Why a text is unfit, in the order of REASONS; those of NAMED end in the code point, as "... U+200B".

    text: of `cleaned`. A letter, mark or digit that the table does not list is a stray script, and so is a private-use
    code point; without a table nothing is. Other signs that it does not list (an emoji, a rare quotation mark) are no
    fault; `spelling.Spelling` counts them. is_prose: line breaks and tabs are no fault, and without a table a lone
    surrogate alone is one.
    """
    suspects = ANYWHERE if table is None else table.suspects
    if suspects.search(text) is None:
        return ()
    worst: dict[str, str] = {}
    for character in suspects.findall(text):
        reason = _reason(character, table)
        if reason and not (is_prose and (reason == BREAK or (table is None and reason != SURROGATE))):
            worst.setdefault(reason, character)
    return tuple(
        f"{reason} U+{ord(worst[reason]):04X}" if reason in NAMED else reason for reason in REASONS if reason in worst
    )


def _reason(character: str, table: Orthography | None) -> str:
    """Why a character that no table lists is a fault; "" when it is none."""
    if UNSEEN.match(character):
        return "" if table and table.invisible == KEEP else INVISIBLE
    for reason, content in BANNED.items():
        if re.match(f"[{content}]", character):
            return reason
    return STRAY if table and is_letter(character) else ""


def is_letter(character: str) -> bool:
    """Whether a table must list it: a letter, mark or digit, or a private-use code point, a letter in one font only."""
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "Co"


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
