"""What the texts of a source show together: counts for the audit, and contradictions of the declared orthography.

Input: texts as they were read.  Output: counts; clean texts and reasons to drop a row, of orthography.py; errors.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

from thunder_train import ThunderError
from thunder_train.core import characters
from thunder_train.core.characters import STRAY, UNSEEN, Orthography
from thunder_train.core.text import nfc
from thunder_train.data import orthography
from thunder_train.data.orthography import TABLES

BATCH = 1000
"""Texts that are counted at once, joined: a call for each would cost more than the counting."""
LONG = 40
"""Code points from which one text alone shows whether its orthography writes marks."""
FEWEST_LETTERS, FEWEST_WORDS, FEWEST_LONG = 200, 20, 50
"""Fewer than these prove nothing about a dataset."""
MIXED = 0.05
"""Share of long texts that may fall out of the orthography: names, numbers, quotations."""
CONTROL_NAMES = {"\0": "NULL", "\x07": "BELL", "\x08": "BACKSPACE", "\x1b": "ESCAPE", "\x7f": "DELETE"}
"""Names that the Unicode database does not give."""


@dataclass
class Stray:
    """Rows with a letter that the table does not list: used ones, and dropped ones."""

    used: int = 0
    """Rows with it in the hypothesis alone, where any script may be."""
    dropped: int = 0
    row_id: str = ""
    """The first row, a dropped one if there is one."""


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
    """Counts over many texts, added as they were read, before NFC. Without a table only NFC is counted.

    invisible: invisible characters of the texts given to `cleaned`, and how many there were; blanks: those of these
    texts that had blanks around them; stray_letters: rows with letters that the table does not list.
    """

    def __init__(self, table: Orthography | None) -> None:
        self.table = table
        self.invisible: Counter[str] = Counter()
        self.blanks = 0
        self.stray_letters: dict[str, Stray] = {}
        self._counts = Counts()
        self._waiting: list[str] = []
        among = {word for ratio in (table.ratios if table else ()) for word in ratio.among}
        self._words = {word: re.compile(_whole(word, table.letters)) for word in sorted(among)} if table else {}
        self._others = re.compile(f"[^{table.letters}{table.marks} \\n]" if table else "(?!)")

    def cleaned(self, text: str, is_prose: bool = False) -> str:
        """`characters.cleaned`, and what it removes counted, and the invisible characters that stay."""
        if not is_prose:
            bare = text.strip()
            self.blanks += len(bare) != len(text)
            text = bare
        if text.isprintable():  # as characters.cleaned, which most texts need not be given to
            return nfc(text)
        self.invisible.update(UNSEEN.findall(text))
        return characters.cleaned(text, self.table, is_prose)

    def unfit(self, row_id: str, hypothesis: str, reference: str, answer: str, is_prose: bool = False) -> str:
        """`orthography.unfit`, and the stray letters of the row counted."""
        suspects = self.table.suspects if self.table else characters.ANYWHERE
        if not any(map(suspects.search, {hypothesis, reference, answer})):
            return ""
        reason = orthography.unfit(hypothesis, reference, answer, self.table, is_prose)
        if reason and not reason.startswith(STRAY):
            return reason
        texts = reference + answer if reason else hypothesis
        for letter in {each for each in suspects.findall(texts) if self.table and characters.is_letter(each)}:
            stray = self.stray_letters.setdefault(letter, Stray())
            if not stray.row_id or (reason and not stray.dropped):
                stray.row_id = row_id
            stray.dropped += bool(reason)
            stray.used += not reason
        return reason

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

    def merge(self, other: "Spelling") -> None:
        """Add the texts of another, whose rows follow on these."""
        self.invisible.update(other.invisible)
        self.blanks += other.blanks
        for letter, stray in other.stray_letters.items():
            mine = self.stray_letters.setdefault(letter, Stray())
            if not mine.row_id or (stray.dropped and not mine.dropped):
                mine.row_id = stray.row_id
            mine.used += stray.used
            mine.dropped += stray.dropped
        counts, more = self.counts(), other.counts()
        for each in fields(Counts):
            setattr(counts, each.name, getattr(counts, each.name) + getattr(more, each.name))

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
        counts.strays.update(each for each in others if table.suspects.match(each) and not UNSEEN.match(each))
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
        "texts with blanks around them, which are removed": spelling.blanks,
        "texts whose marks NFC puts in order": counts.mark_order,
        "texts that NFC changes otherwise": counts.not_nfc - counts.mark_order,
        "doubled marks": counts.doubled,
        **{
            f"{'stray' if characters.is_letter(each) else 'unlisted sign'} {named(each)}": counts.strays[each]
            for each in sorted(counts.strays)
        },
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
            among = " and ".join(named(word) for word in ratio.among)
            figures = f"{counts.words[ratio.of]:,} of {total:,}"
            yield f"{figures} words {among} are {ratio.of}, not {ratio.low:.0%} to {ratio.high:.0%}"


def _mixture(counts: Counts) -> Iterator[str]:
    """That some texts are spelled otherwise, though too few to move the statistics of all."""
    if counts.long_texts >= FEWEST_LONG and counts.odd_texts > MIXED * counts.long_texts:
        figures = f"{counts.odd_texts:,} of {counts.long_texts:,}"
        yield f"{figures} long texts have too few or too many marks for it: two orthographies are mixed"


def named(text: str) -> str:
    """A text with its code points beside it, which a terminal without the font shows too."""
    points = " ".join(f"U+{ord(character):04X}" for character in text)
    return f"{text} ({points})" if text.isprintable() and not unicodedata.combining(text[0]) else points


def described(character: str) -> str:
    """U+200B ZERO WIDTH SPACE; controls have no name of their own."""
    name = unicodedata.name(character, CONTROL_NAMES.get(character, "CONTROL CHARACTER"))
    return f"U+{ord(character):04X} {name}"
