"""Word-level alignments: which words of a reference a text has, lacks, replaces or adds.

Input: two texts of a row, untrusted.  Output: aligned words for the page, and the same as one code per word for its
script.  Words are separated by white space and compared after NFC; whatever the profile of an error rate leaves out,
such as tones, is compared here.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from thunder_train.core import html
from thunder_train.core.html import Shown
from thunder_train.core.text import nfc

LONGEST = 2000
"""Most characters of a text that are aligned; a page says how many words it leaves out."""
SAME, SUB, INS, DEL = "=", "s", "i", "d"
"""Codes of an aligned word: in both; replaced; only in the text; only in the reference."""


@dataclass(frozen=True)
class Word:
    """A step of an alignment. text: the text's word, None if it lacks one.  reference: that of the reference."""

    code: str
    text: Shown | None
    reference: Shown | None


@dataclass(frozen=True)
class Aligned:
    """A text beside its reference. kind: its direction, as html.Run.kind.  more: words left out at the end."""

    kind: str
    words: list[Word]
    counts: dict[str, int]
    """Words replaced, missing and added: {"sub", "del", "ins"}."""
    more: int = 0


def aligned(text: str, reference: str) -> Aligned:
    """The words of a text beside those of its reference, with the fewest edits (Levenshtein distance)."""
    (words, more), (expected, _) = _words(text), _words(reference)
    steps = [Word(code, *_shown(code, word, other)) for code, word, other in _steps(words, expected)]
    return Aligned(_kind(text if text.strip() else reference), steps, _counts([step.code for step in steps]), more)


def codes(text: str, reference: str) -> str:
    """The code of each step, for a script that has both texts as `spelled` gives them."""
    return "".join(code for code, _, _ in _steps(_words(text)[0], _words(reference)[0]))


def spelled(text: str) -> str:
    """The words of a text that are aligned, one space between two, their unseen characters spelled out."""
    return " ".join(map(html.visible, _words(text)[0]))


def _words(text: str) -> tuple[list[str], int]:
    """(the first words, up to LONGEST characters; how many are left out)."""
    words, length = text.split(), 0
    for number, word in enumerate(words):
        length += len(word) + 1
        if length > LONGEST and number:
            return words[:number], len(words) - number
    return words, 0


def _steps(words: list[str], expected: list[str]) -> Iterator[tuple[str, str, str]]:
    """(code, word of the text, word of the reference), each "" where there is none."""
    from rapidfuzz.distance import Levenshtein

    # rapidfuzz compares strings of a list by their hash, which can collide; numbers cannot.
    numbers: dict[str, int] = {}
    after, before = ([numbers.setdefault(nfc(word), len(numbers)) for word in side] for side in (words, expected))
    for edit in Levenshtein.opcodes(before, after):
        code = {"equal": SAME, "replace": SUB, "delete": DEL, "insert": INS}[edit.tag]
        for step in range(max(edit.src_end - edit.src_start, edit.dest_end - edit.dest_start)):
            word = "" if code == DEL else words[edit.dest_start + step]
            yield code, word, "" if code == INS else expected[edit.src_start + step]


def _shown(code: str, word: str, reference: str) -> tuple[Shown | None, Shown | None]:
    """Both words; of a replaced one, the letters that differ are marked."""
    if code == SUB:
        old, new = html.compared(reference, word)
        return new, old
    return html.shown(word) if word else None, html.shown(reference) if reference else None


def _counts(steps: list[str]) -> dict[str, int]:
    counts = Counter(steps)
    return {"sub": counts[SUB], "del": counts[DEL], "ins": counts[INS]}


def _kind(text: str) -> str:
    """N'Ko decides the direction of a line; any other script lets the browser decide."""
    return "nko" if html.NKO.search(text) else "" if text.isascii() else "other"
