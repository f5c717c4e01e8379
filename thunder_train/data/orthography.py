"""Orthographies as tables: what a text may hold, and what a data set's statistics must show.

Input: an orthography_table of a dataset in thunder.toml, or TABLES.  docs/orthography.md tells how to write one.

What an orthography says of one text, and of a whole data set.

Input: texts in NFC (`faults`, `unfit`), or as they were read (`Census`).  Output: reasons, counts and errors.
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
from thunder_train.config.dataset import BRIDGE_TONELESS, STANDARD_TONED
from thunder_train.core.text import nfc

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
    BRIDGE_TONELESS: Orthography(
        name=BRIDGE_TONELESS,
        letters=r"\u07ca-\u07ea\u07fa\u02bc\u0294",
        marks=NKO_MARKS,
        shared=NKO_SIGNS,
        marks_per_letter=(0.0, 0.02),
        ratios=(Ratio(KO[0], KO, 0.6, 1.0), Ratio(YE[0], YE, 0.9, 1.0)),
    ),
    # Real texts have 0.38 marks per letter (a primer has more), and write "ko" and "ye" with the other vowel.
    STANDARD_TONED: Orthography(
        name=STANDARD_TONED,
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
        hint = r"write what stands between [ and ] in a regex, such as 'a-z\u00e0-\u00ff'"
        yield ThunderError(f"is no character class: {content!r} ({error})", where=where, hint=hint)
        return
    if found := pattern.search("".join(_members("".join(BANNED.values())))):
        reason = next(reason for reason, banned in BANNED.items() if re.match(f"[{banned}]", found[0]))
        what = f"lets a {reason} through (U+{ord(found[0]):04X})"
        yield ThunderError(what, where=where, hint="leave it out: no text may hold it")


def _ratio_problems(ratio: Ratio, classes: dict[str, str], where: str) -> Iterator[ThunderError]:
    """A ratio that could never be counted: its words must be plain letters, two or more, `of` one of them."""
    letters = re.compile(f"[{classes['letters']}]+")
    marks = re.compile(f"[{classes['marks']}]") if classes["marks"] else None
    for word in ratio.among:
        if not letters.fullmatch(word) or (marks and marks.search(word)):
            hint = "give words in NFC of `letters` only: marks are left off before words are counted"
            yield ThunderError(f"{word!r} is no word of this orthography", where=where, hint=hint)
    if ratio.of not in ratio.among or len(set(ratio.among)) < 2:
        yield ThunderError("`of` is not one of two words or more `among`", where=where, hint="add it and its rivals")
    yield from _bounds_problems(ratio.low, ratio.high, 1.0, where)


def _bounds_problems(low: float, high: float, most: float, where: str) -> list[ThunderError]:
    """Bounds that nothing or everything could meet."""
    if 0 <= low <= high <= most:
        return []
    return [ThunderError(f"no bounds: {low:g} to {high:g}", where=where, hint=f"give 0 <= low <= high <= {most:g}")]


STRAY = "stray script"
REASONS = (*BANNED, STRAY)
"""All that `faults` may find, worst first."""
ANYWHERE = re.compile(f"[{''.join(BANNED.values())}]")
BATCH = 1000
"""Texts that a Census counts at once, joined: a call for each would cost more than the counting."""
LONG = 40
"""Code points from which one text alone shows whether its orthography writes marks."""
FEWEST_LETTERS, FEWEST_WORDS, FEWEST_LONG = 200, 20, 50
"""Fewer than these show nothing about a data set."""
MIXED = 0.05
"""Share of long texts that may fall out of the orthography: names, numbers, quotations."""


def faults(text: str, table: Orthography | None) -> tuple[str, ...]:
    """What makes one text unfit, of REASONS and in their order; without a table never "stray script".

    text: in NFC. A letter, mark or digit that the table does not list is a stray script, or stands for one; other signs
    that it does not list (an emoji, a rare quotation mark) are no fault: a Census counts them.
    """
    suspects = ANYWHERE if table is None else table.suspects
    if suspects.search(text) is None:
        return ()
    found = {_reason(character) for character in set(suspects.findall(text))}
    return tuple(reason for reason in REASONS if reason in found)


def _reason(character: str) -> str:
    """Why a character that no table lists is a fault; "" when it is none."""
    for reason, content in BANNED.items():
        if re.match(f"[{content}]", character):
            return reason
    # Co: a code point that only one font knows stands for somebody's letter.
    category = unicodedata.category(character)
    return STRAY if category[0] in "LMN" or category == "Co" else ""


def unfit(hypothesis: str, reference: str, answer: str, table: Orthography | None, is_prose: bool = False) -> str:
    """Why a row must not teach, such as "stray script in the reference"; "" when it may. Texts in NFC.

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


@dataclass
class Tally:
    """What a Census has counted so far."""

    texts: int = 0
    letters: int = 0
    marks: int = 0
    words: Counter[str] = field(default_factory=Counter)
    """Words of the table's ratios, marks left off."""
    strays: Counter[str] = field(default_factory=Counter)
    """Characters that the table does not list."""
    doubled: int = 0
    """Marks that stand twice in a row on one letter."""
    not_nfc: int = 0
    """Texts that NFC changes ..."""
    mark_order: int = 0
    """... and those of them in which it only puts marks in order."""
    long_texts: int = 0
    """Texts of LONG code points or more ..."""
    odd_texts: int = 0
    """... and those of them whose own share of marks is far out of the table's bounds."""


class Census:
    """Counts over the texts of a data set, added as they were read, before NFC; without a table little else."""

    def __init__(self, table: Orthography | None) -> None:
        self.table = table
        self._tally = Tally()
        self._waiting: list[str] = []
        among = {word for ratio in (table.ratios if table else ()) for word in ratio.among}
        self._words = {word: re.compile(_whole(word, table.letters)) for word in sorted(among)} if table else {}
        self._others = re.compile(f"[^{table.letters}{table.marks} \\n]" if table else "(?!)")

    def add(self, text: str) -> None:
        """Count one more text."""
        self._waiting.append(text)
        if len(self._waiting) >= BATCH:
            self.tally()

    def tally(self) -> Tally:
        """The counts of all texts so far."""
        texts, self._waiting = self._waiting, []
        if not texts:
            return self._tally
        self._tally.texts += len(texts)
        joined = "\n".join(texts)
        if not unicodedata.is_normalized("NFC", joined):
            texts = [self._composed(text) for text in texts]
            joined = "\n".join(texts)
        if joined.count("\n") >= len(texts):  # a text of several lines: faults() tells, and here one text is one line
            texts = [text.replace("\n", " ") for text in texts]
            joined = "\n".join(texts)
        if self.table:
            self._count(texts, joined, self.table)
        return self._tally

    def _composed(self, text: str) -> str:
        """The text in NFC; counts what NFC had to mend."""
        composed = nfc(text)
        if text != composed:
            self._tally.not_nfc += 1
            self._tally.mark_order += sorted(text) == sorted(composed)
        return composed

    def _count(self, texts: list[str], joined: str, table: Orthography) -> None:
        """Add what the table knows of these texts, all at once. joined: they, a line each."""
        tally, others = self._tally, self._others.findall(joined)
        tally.strays.update(each for each in others if table.suspects.match(each))
        bare = joined
        for mark in table.mark_set:
            if mark in bare:
                tally.doubled += joined.count(mark + mark)
                bare = bare.replace(mark, "")
        tally.marks += len(joined) - len(bare)
        tally.letters += len(bare) - len(others) - bare.count(" ") - bare.count("\n")
        for word, pattern in self._words.items():
            tally.words[word] += len(pattern.findall(bare))
        low, high = table.marks_per_letter
        rates = [
            1 - letters / points
            for points, letters in zip(map(len, texts), map(len, bare.split("\n")), strict=True)
            if points >= LONG
        ]
        tally.long_texts += len(rates)
        tally.odd_texts += sum(not low / 4 <= rate <= high + 0.1 for rate in rates)


def _whole(word: str, letters: str) -> str:
    """Pattern of a whole word. The word stands first in it, because a search for a literal is ten times faster."""
    return f"{word}(?<![{letters}]{word})(?![{letters}])"


def findings(census: Census) -> list[dict[str, str | int]]:
    """What was seen and let pass, for the audit: {"what", "count"}, only what occurs."""
    tally = census.tally()
    counts = {
        "texts whose marks NFC puts in order": tally.mark_order,
        "texts that NFC changes otherwise": tally.not_nfc - tally.mark_order,
        "doubled marks": tally.doubled,
        **{f"stray {_named(each)}": tally.strays[each] for each in sorted(tally.strays)},
    }
    return [{"what": what, "count": count} for what, count in counts.items() if count]


def verdict(
    census: Census, table: Orthography, where: str, others: Iterable[Orthography] = tuple(TABLES.values())
) -> list[ThunderError]:
    """What contradicts the declared orthography, with the figures; nothing where there is too little text to judge.

    others: the orthographies to look for one that fits among.
    """
    tally = census.tally()
    wrong = list(_contradictions(tally, table)) or list(_mixture(tally))
    alike = [each for each in others if each.marks == table.marks and each is not table]
    fitting = [repr(each.name) for each in alike if not any(_contradictions(tally, each))]
    hint = (
        f"declare {' or '.join(fitting)}, or leave the source out" if fitting else "leave out what is spelled otherwise"
    )
    return [ThunderError(f"{table.name!r} is declared, but {what}", where=where, hint=hint) for what in wrong]


def _contradictions(tally: Tally, table: Orthography) -> Iterator[str]:
    """Each statistic that lies out of the table's bounds, as a sentence."""
    low, high = table.marks_per_letter
    if tally.letters >= FEWEST_LETTERS and not low <= tally.marks / tally.letters <= high:
        figures = f"{tally.marks / tally.letters:.3f} marks per letter ({tally.marks:,} on {tally.letters:,})"
        yield f"the texts have {figures}, not {low:g} to {high:g}"
    for ratio in table.ratios:
        yield from _out_of(ratio, tally.words)


def _mixture(tally: Tally) -> Iterator[str]:
    """That some texts are spelled otherwise, though too few to move the statistics of all."""
    if tally.long_texts >= FEWEST_LONG and tally.odd_texts > MIXED * tally.long_texts:
        figures = f"{tally.odd_texts:,} of {tally.long_texts:,}"
        yield f"{figures} long texts have too few or too many marks for it: two orthographies are mixed"


def _out_of(ratio: Ratio, words: Counter[str]) -> Iterator[str]:
    """That a spelling is chosen too often or too seldom."""
    total = sum(words[word] for word in ratio.among)
    if total < FEWEST_WORDS or ratio.low <= words[ratio.of] / total <= ratio.high:
        return
    among = " and ".join(_named(word) for word in ratio.among)
    figures = f"{words[ratio.of]:,} of {total:,}"
    yield f"{figures} words {among} are {ratio.of}, not {ratio.low:.0%} to {ratio.high:.0%}"


def _named(text: str) -> str:
    """A text with its code points beside it: a terminal may not show it rightly."""
    points = " ".join(f"U+{ord(character):04X}" for character in text)
    return f"{text} ({points})" if text.isprintable() and not unicodedata.combining(text[0]) else points
