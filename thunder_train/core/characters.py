"""Which characters a text may hold, and how it is cleaned.

Input: a text, and the orthography that its dataset declares, if any.  Output: the clean text; what makes it unfit.
data/orthography.py has the orthographies themselves.
"""

import re
import unicodedata
from array import array
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

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
INVISIBLE_RULES = ("remove", "drop", "keep")
REMOVE, DROP, KEEP = INVISIBLE_RULES
"""What becomes of invisible characters: they are removed, their row is dropped, or those that are no control stay."""


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
        return tuple(members(self.marks)) if self.marks else ()


@cache
def members(content: str) -> list[str]:
    """Every character of a class, by trying all."""
    every = array("I", range(0x110000)).tobytes().decode("utf-32", "surrogatepass")  # in a fifth of the time of chr
    return re.findall(f"[{content}]", every)


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
