"""Orthographies: what a text may hold, and what the texts of a dataset must show together.

Input: an orthography of TABLES, or an orthography_table of a dataset in thunder.toml (docs/orthography.md); texts in
NFC for `faults` and `unfit`, as they were read for `Spelling`.  Output: reasons to drop a row; counts; errors.
"""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import BRIDGE_TONELESS, STANDARD_TONED, Dataset
from thunder_train.core.text import nfc

REPLACED, CONTROL, SURROGATE = "replacement character U+FFFD", "control character", "lone surrogate"
BIDI, BREAK, STRAY = "bidi control", "line break or tab", "stray script"
BANNED = {
    REPLACED: r"\ufffd",
    CONTROL: r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff",
    SURROGATE: r"\ud800-\udfff",
    BIDI: r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    BREAK: r"\t\n\r",
}
"""Reason -> class content of the characters that no orthography may hold, worst first."""
REASONS = (*BANNED, STRAY)
"""All reasons of `faults`, worst first."""
ANYWHERE = re.compile(f"[{''.join(BANNED.values())}]")
ANY_MARKS = (0.0, 4.0)
"""Marks per letter, when a table gives no bounds."""
BATCH = 1000
"""Texts that are counted at once, joined: a call for each would cost more than the counting."""
LONG = 40
"""Code points from which one text alone shows whether its orthography writes marks."""
FEWEST_LETTERS, FEWEST_WORDS, FEWEST_LONG = 200, 20, 50
"""Fewer than these prove nothing about a dataset."""
MIXED = 0.05
"""Share of long texts that may fall out of the orthography: names, numbers, quotations."""


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

    @cached_property
    def suspects(self) -> re.Pattern[str]:
        """A character that is neither letter, mark, shared nor space."""
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
    """The orthography of a user's table: `letters`; and if given marks, shared, marks_per_letter, ratios.

    where: the table's place, for errors. Raises ThunderError with every wrong class and bound.
    """
    classes = {key: str(table.get(key, "")) for key in ("letters", "marks", "shared")}
    low, high = table.get("marks_per_letter", ANY_MARKS)
    ratios = [
        Ratio(each["of"], tuple(each["among"]), float(each["low"]), float(each["high"]))
        for each in table.get("ratios", ())
    ]
    problems = [problem for key, content in classes.items() for problem in _class_problems(content, f"{where}.{key}")]
    if not problems:
        for number, ratio in enumerate(ratios):
            problems += _ratio_problems(ratio, classes, f"{where}.ratios[{number}]")
    raise_all([*problems, *_bounds_problems(low, high, ANY_MARKS[1], f"{where}.marks_per_letter")])
    return Orthography(name, **classes, marks_per_letter=(float(low), float(high)), ratios=tuple(ratios))


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
    if match := pattern.search("".join(_members("".join(BANNED.values())))):
        reason = next(reason for reason, banned in BANNED.items() if re.match(f"[{banned}]", match[0]))
        what = f"lets a {reason} through (U+{ord(match[0]):04X})"
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


def faults(text: str, table: Orthography | None) -> tuple[str, ...]:
    """Why a text is unfit, in the order of REASONS; without a table never STRAY.

    text: in NFC. A letter, mark or digit that the table does not list is a stray script, and so is a private-use code
    point. Other signs that it does not list (an emoji, a rare quotation mark) are no fault; `Spelling` counts them.
    """
    suspects = ANYWHERE if table is None else table.suspects
    if suspects.search(text) is None:
        return ()
    reasons = {_reason(character) for character in set(suspects.findall(text))}
    return tuple(reason for reason in REASONS if reason in reasons)


def _reason(character: str) -> str:
    """Why a character that no table lists is a fault; "" when it is none."""
    for reason, content in BANNED.items():
        if re.match(f"[{content}]", character):
            return reason
    # Co is private use: a letter in one font only.
    category = unicodedata.category(character)
    return STRAY if category[0] in "LMN" or category == "Co" else ""


def unfit(hypothesis: str, reference: str, answer: str, table: Orthography | None, is_prose: bool = False) -> str:
    """Why a row is not used, such as "stray script in the reference"; "" when it is. Texts in NFC.

    A recogniser may write any script, so a stray one in the hypothesis is no reason. is_prose: a conversation
    or plain text, which may hold line breaks and tabs.
    """
    texts = [(reference, "reference"), (hypothesis, "hypothesis")]
    if answer != reference:
        texts.insert(0, (answer, "answer"))
    for text, name in texts:
        for reason in faults(text, table):
            if not (reason == STRAY and name == "hypothesis") and not (reason == BREAK and is_prose):
                return f"{reason} in the {name}"
    return ""


# All texts of a source


@dataclass
class Counts:
    """Counts of `Spelling`."""

    texts: int = 0
    letters: int = 0
    marks: int = 0
    words: Counter[str] = field(default_factory=Counter)
    """Words of the table's ratios, marks left off."""
    strays: Counter[str] = field(default_factory=Counter)
    """Characters that the table does not list."""
    doubled: int = 0
    """Marks that follow the same mark on one letter."""
    not_nfc: int = 0
    """Texts that NFC changes."""
    mark_order: int = 0
    """Those of not_nfc in which NFC only reorders marks."""
    long_texts: int = 0
    """Texts of LONG code points or more."""
    odd_texts: int = 0
    """Those of long_texts whose own share of marks is far out of the table's bounds."""


class Spelling:
    """Counts over many texts, added as they were read, before NFC. Without a table only NFC is counted."""

    def __init__(self, table: Orthography | None) -> None:
        self.table = table
        self._counts = Counts()
        self._waiting: list[str] = []
        among = {word for ratio in (table.ratios if table else ()) for word in ratio.among}
        self._words = {word: re.compile(_whole(word, table.letters)) for word in sorted(among)} if table else {}
        self._others = re.compile(f"[^{table.letters}{table.marks} \\n]" if table else "(?!)")

    def add(self, text: str) -> None:
        """Count one more text."""
        self._waiting.append(text)
        if len(self._waiting) >= BATCH:
            self.counts()

    def counts(self) -> Counts:
        """The counts of all texts so far."""
        texts, self._waiting = self._waiting, []
        if not texts:
            return self._counts
        self._counts.texts += len(texts)
        joined = "\n".join(texts)
        if not unicodedata.is_normalized("NFC", joined):
            texts = [self._composed(text) for text in texts]
            joined = "\n".join(texts)
        if joined.count("\n") >= len(texts):  # a text of several lines: here one text is one line
            texts = [text.replace("\n", " ") for text in texts]
            joined = "\n".join(texts)
        if self.table:
            self._count(texts, joined, self.table)
        return self._counts

    def _composed(self, text: str) -> str:
        """The text in NFC; counts what NFC changes."""
        composed = nfc(text)
        if text != composed:
            self._counts.not_nfc += 1
            self._counts.mark_order += sorted(text) == sorted(composed)
        return composed

    def _count(self, texts: list[str], joined: str, table: Orthography) -> None:
        """Count what needs a table, over all texts at once. joined: the texts, a line each."""
        counts, others = self._counts, self._others.findall(joined)
        counts.strays.update(each for each in others if table.suspects.match(each))
        bare = joined
        for mark in table.mark_set:
            if mark in bare:
                counts.doubled += joined.count(mark + mark)
                bare = bare.replace(mark, "")
        counts.marks += len(joined) - len(bare)
        counts.letters += len(bare) - len(others) - bare.count(" ") - bare.count("\n")
        for word, pattern in self._words.items():
            counts.words[word] += len(pattern.findall(bare))
        low, high = table.marks_per_letter
        rates = [
            1 - letters / points
            for points, letters in zip(map(len, texts), map(len, bare.split("\n")), strict=True)
            if points >= LONG
        ]
        counts.long_texts += len(rates)
        counts.odd_texts += sum(not low / 4 <= rate <= high + 0.1 for rate in rates)


def _whole(word: str, letters: str) -> str:
    """Pattern of a whole word. The word comes first in it, because a search for a literal is ten times faster."""
    return f"{word}(?<![{letters}]{word})(?![{letters}])"


def findings(spelling: Spelling) -> list[dict[str, str | int]]:
    """What was counted and not refused, for the audit: {"what", "count"}, only what occurs."""
    counts = spelling.counts()
    listed = {
        "texts whose marks NFC puts in order": counts.mark_order,
        "texts that NFC changes otherwise": counts.not_nfc - counts.mark_order,
        "doubled marks": counts.doubled,
        **{f"stray {_named(each)}": counts.strays[each] for each in sorted(counts.strays)},
    }
    return [{"what": what, "count": count} for what, count in listed.items() if count]


def contradictions(
    spelling: Spelling, table: Orthography, where: str, others: Iterable[Orthography] = tuple(TABLES.values())
) -> list[ThunderError]:
    """What contradicts the declared orthography, with the figures; nothing where there is too little text to judge.

    others: orthographies to suggest if one of them fits.
    """
    counts = spelling.counts()
    reasons = list(_out_of_bounds(counts, table)) or list(_mixture(counts))
    alike = [each for each in others if each.marks == table.marks and each is not table]
    fitting = [repr(each.name) for each in alike if not any(_out_of_bounds(counts, each))]
    hint = (
        f"declare {' or '.join(fitting)}, or leave the source out" if fitting else "leave out what is spelled otherwise"
    )
    return [ThunderError(f"{table.name!r} is declared, but {what}", where=where, hint=hint) for what in reasons]


def _out_of_bounds(counts: Counts, table: Orthography) -> Iterator[str]:
    """Each statistic that is out of the table's bounds, as a sentence."""
    low, high = table.marks_per_letter
    if counts.letters >= FEWEST_LETTERS and not low <= counts.marks / counts.letters <= high:
        figures = f"{counts.marks / counts.letters:.3f} marks per letter ({counts.marks:,} on {counts.letters:,})"
        yield f"the texts have {figures}, not {low:g} to {high:g}"
    for ratio in table.ratios:
        total = sum(counts.words[word] for word in ratio.among)
        if total >= FEWEST_WORDS and not ratio.low <= counts.words[ratio.of] / total <= ratio.high:
            among = " and ".join(_named(word) for word in ratio.among)
            figures = f"{counts.words[ratio.of]:,} of {total:,}"
            yield f"{figures} words {among} are {ratio.of}, not {ratio.low:.0%} to {ratio.high:.0%}"


def _mixture(counts: Counts) -> Iterator[str]:
    """That some texts are spelled otherwise, though too few to move the statistics of all."""
    if counts.long_texts >= FEWEST_LONG and counts.odd_texts > MIXED * counts.long_texts:
        figures = f"{counts.odd_texts:,} of {counts.long_texts:,}"
        yield f"{figures} long texts have too few or too many marks for it: two orthographies are mixed"


def _named(text: str) -> str:
    """A text with its code points beside it, which a terminal without the font shows too."""
    points = " ".join(f"U+{ord(character):04X}" for character in text)
    return f"{text} ({points})" if text.isprintable() and not unicodedata.combining(text[0]) else points
