"""The leak check: no prompt may hold the reference of its row, or a model learns to copy an answer that it never gets.

A copy of a hypothesis is no leak, for the recogniser may be right; nor is static text, which knows no row. splits.py
keeps rows apart that would leak between train, valid and test.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Span = tuple[int, int]
"""Start and end of a part of a text."""
SHARED = 0
"""In the place of a reference: several references have this text in their prompts."""


def texts_of(value: Any) -> Iterator[str]:
    """All texts inside telemetry. Numbers are none: the names that are allowed know no reference."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)


class Shown:
    """Texts that prompts show, of rows with references. It takes all rows to know which of them are static.

    The frame of a text is what is left of it without what was heard. A frame that rows with other references have
    too is static: an instruction, a system message with the word "it", a partition, the name of a speaker.
    """

    def __init__(self) -> None:
        self._references: dict[int, int] = {}
        """Hash of a frame -> hash of the reference that it stands with, or SHARED."""
        self._suspects: list[tuple[str, int]] = []

    def add(self, row_id: str, texts: Iterable[str], reference: str, heard: Sequence[str]) -> None:
        """Note texts of a row's prompt."""
        reference = reference.strip()
        if not reference:
            return
        of_row = hash(reference) or 1
        for text in texts:
            copies = _copies(text, reference, heard) if reference in text else []
            place = hash(_frame(text, heard, copies))
            if self._references.setdefault(place, of_row) != of_row:
                self._references[place] = SHARED
            if copies:
                self._suspects.append((row_id, place))

    def merge(self, other: "Shown") -> None:
        """Add the texts of another, whose rows follow on these."""
        for place, of_row in other._references.items():
            if self._references.setdefault(place, of_row) != of_row:
                self._references[place] = SHARED
        self._suspects += other._suspects

    def is_static(self, text: str) -> bool:
        """Whether a text is known to be static."""
        return self._references.get(hash(text)) == SHARED

    def leaks(self) -> list[str]:
        """Ids of the rows whose prompts hold their references."""
        return [*dict.fromkeys(row_id for row_id, place in self._suspects if self._references[place] != SHARED)]


def _copies(text: str, reference: str, heard: Sequence[str]) -> list[Span]:
    """Where the reference stands in a text as whole words, but for what lies inside a copy of what was heard.

    A hypothesis inside a copy of the reference, as "the cat" in "the cats", does not hide it.
    """
    covers = sorted(span for each in heard if len(each) >= len(reference) for span in _spans(text, each))
    copies, covered, number = [], 0, 0
    for start, end in _spans(text, reference):
        while number < len(covers) and covers[number][0] <= start:
            covered, number = max(covered, covers[number][1]), number + 1
        before, after = text[start - 1 : start] if start else "", text[end : end + 1]
        if covered < end and not _is_word(before) and not _is_word(after):
            copies.append((start, end))
    return copies


def _frame(text: str, heard: Sequence[str], copies: list[Span]) -> str:
    """The text with a line break for each hypothesis, the longest first. copies: of the reference, which stay."""
    end, parts = 0, []
    for copy in [*copies, (len(text), len(text))]:
        part = text[end : copy[0]]
        for each in sorted(heard, key=len, reverse=True) if len(heard) > 1 else heard:
            part = part.replace(each, "\n") if each else part
        parts += [part, text[slice(*copy)]]
        end = copy[1]
    return "".join(parts)


def _spans(text: str, part: str) -> Iterator[Span]:
    start = text.find(part) if part else -1
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + len(part))


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"
