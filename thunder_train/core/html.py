"""HTML pages of untrusted text, from Jinja templates.

Input: a template and its values.  Output: a page in which every value is escaped. A template shows a text through the
filter `shown`, `shown_lines` or `lines` or the function `compared`. These spell out each character that would hide or
reorder others (`\\u202e`), and make a run of each stretch of N'Ko, which goes from right to left, so that the words
around it keep their order.
"""

import json
import re
import unicodedata
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from thunder_train.core import shipped, templates
from thunder_train.core.text import UNSEEN, UNSEEN_IN_LINES, clusters

LONGEST = 2000
"""Most characters of one text that a page shows; the page says how many it leaves out."""
NKO = re.compile("[\u07c0-\u07ff]")
NKO_RUN = re.compile(
    "^(?=[^A-Za-z\n]*$)[^\n]*[\u07c0-\u07ff][^\n]*$|[\u07c0-\u07ff](?:[^A-Za-z\n]*[\u07c0-\u07ff])?", re.MULTILINE
)
"""A whole line without ASCII letters, or a stretch from one N'Ko character to another.

Only ASCII letters end a stretch, because words of the bridge orthography hold U+0294, which Unicode counts as Latin.
"""


@dataclass(frozen=True)
class Part:
    """A stretch of text that is shown in one way. mark: "", "del" or "ins"."""

    text: str
    mark: str = ""
    is_escape: bool = False


@dataclass(frozen=True)
class Run:
    """Parts that share one direction. kind: "nko", "other" (not ASCII, direction by its own letters) or ""."""

    kind: str
    parts: list[Part]


@dataclass(frozen=True)
class Shown:
    """A text as a page shows it. more: characters left out at its end."""

    runs: list[Run]
    more: int = 0


def page(template: Path, values: dict[str, Any]) -> str:
    """The page. Its template may include other files of its folder. Raises ThunderError for a wrong template."""
    from jinja2 import FileSystemLoader  # late: jinja2 takes a tenth of a second

    loader = FileSystemLoader([template.parent, shipped.FOLDER / "templates"])
    sandbox = templates.environment(loader=loader, autoescape=True, **templates.BLOCKS)
    sandbox.filters.update(
        shown=shown, shown_lines=shown_lines, lines=lines, direction=direction, number=number, escaped_json=escaped_json
    )
    sandbox.globals.update(compared=compared)
    return templates.render(sandbox, template, values) + "\n"


def shown(text: Any) -> Shown:
    """A short text: one run, every control character spelled out."""
    kept, more = _cut(str(text))
    return Shown([Run(_kind(kept), _parts(kept))] if kept else [], more)


def shown_lines(text: str) -> Shown:
    """A message of several lines: the lines stay, and each stretch of N'Ko among other words is a run of its own."""
    kept, more = _cut(text)
    stretches, end = [], 0
    for match in NKO_RUN.finditer(kept):
        stretches += [kept[end : match.start()], match.group()]
        end = match.end()
    stretches.append(kept[end:])
    return Shown([Run(_kind(each), _parts(each, unseen=UNSEEN_IN_LINES)) for each in stretches if each], more)


def direction(text: Any) -> str:
    """The direction in which a text begins: "rtl" if its first letter is of Arabic, Hebrew, N'Ko or the like."""
    for letter in str(text):
        kind = unicodedata.bidirectional(letter)
        if kind in ("R", "AL"):
            return "rtl"
        if kind == "L":
            break
    return "ltr"


@dataclass(frozen=True)
class Line:
    """One line of a text, with a direction of its own."""

    direction: str
    shown: Shown


def lines(text: str) -> list[Line]:
    """The lines of a message, each as `shown_lines`; the last one says how many characters are left out."""
    kept, more = _cut(text)
    listed = [Line(direction(line), shown_lines(line)) for line in kept.split("\n")]
    return [*listed[:-1], Line(listed[-1].direction, replace(listed[-1].shown, more=more))]


def escaped_json(value: Any) -> str:
    """A value of a row as JSON."""
    return json.dumps(value, ensure_ascii=False)


def compared(before: str, after: str) -> tuple[Shown, Shown]:
    """Two texts side by side: clusters that only the first has are marked `del`, those of the second alone `ins`."""
    from rapidfuzz.distance import Levenshtein

    (first, first_more), (second, second_more) = _cut(before), _cut(after)
    left, right = clusters(first), clusters(second)
    # rapidfuzz compares anything but single characters by hash, and the hash of a str differs between processes.
    numbers: dict[str, int] = {}
    coded = [[numbers.setdefault(each, len(numbers)) for each in side] for side in (left, right)]
    old, new = ["del"] * len(left), ["ins"] * len(right)
    for edit in Levenshtein.opcodes(*coded):
        if edit.tag == "equal":
            same = edit.src_end - edit.src_start
            old[edit.src_start : edit.src_end] = new[edit.dest_start : edit.dest_end] = [""] * same
    return Shown(_marked(left, old), first_more), Shown(_marked(right, new), second_more)


def visible(text: str) -> str:
    """A text with its unseen characters spelled out, for data that a script puts into a page."""
    return UNSEEN.sub(lambda match: _spelled(match.group()), text)


def number(value: float) -> str:
    """1234.0 -> "1,234"; 2.5 -> "2.5"."""
    return f"{int(value):,}" if value == int(value) else f"{round(value, 4):,}"


def _marked(letters: list[str], marks: list[str]) -> list[Run]:
    """One run; neighbours with the same mark are joined into one part."""
    text, stretches = "".join(letters), groupby(zip(letters, marks, strict=True), key=itemgetter(1))
    parts = [part for mark, pairs in stretches for part in _parts("".join(letter for letter, _ in pairs), mark)]
    return [Run(_kind(text), parts)] if text else []


def _cut(text: str) -> tuple[str, int]:
    """At least the first LONGEST characters of a text, up to the end of a cluster; and how many are left out."""
    if len(text) <= LONGEST:
        return text, 0
    end = 0
    for cluster in clusters(text):
        if end >= LONGEST:
            break
        end += len(cluster)
    return text[:end], len(text) - end


def _kind(text: str) -> str:
    return "" if text.isascii() else "nko" if NKO.search(text) else "other"


def _parts(text: str, mark: str = "", unseen: re.Pattern[str] = UNSEEN) -> list[Part]:
    """The text split at its unseen characters, each of which is a part of its own."""
    pieces = [(piece, index % 2 == 1) for index, piece in enumerate(unseen.split(text)) if piece]
    return [Part(_spelled(piece) if is_unseen else piece, mark, is_unseen) for piece, is_unseen in pieces]


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
