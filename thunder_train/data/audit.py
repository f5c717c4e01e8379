"""A dataset's facts -> the two pages people read: audit.html and audit.md, from templates/audit.*.j2.

A row is untrusted text. It is escaped where it lands, and a character that would reorder or hide others is spelled
out (`\\u202e`). N'Ko runs from right to left inside `<bdi>`, so the words around it keep their order.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup
from rapidfuzz.distance import Levenshtein

from thunder_train import ThunderError
from thunder_train.core import paths

LONGEST = 2000
"""Most characters of one text that a page shows; what is left out is counted."""
SPLITS = ("train", "valid", "test")
"""The order in which tables name them."""
BLOCKS = 30
"""Length of the longest text bar."""
NKO = re.compile("[\u07c0-\u07ff]")
NKO_RUN = re.compile(
    "^(?=[^A-Za-z\n]*$)[^\n]*[\u07c0-\u07ff][^\n]*$|[\u07c0-\u07ff](?:[^A-Za-z\n]*[\u07c0-\u07ff])?", re.MULTILINE
)
"""A whole line, or from N'Ko to N'Ko. Only ASCII letters end it, for words hold U+0294, which is Latin to Unicode."""
_UNSEEN = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f"
)
UNSEEN = re.compile(f"([\x00-\x1f{_UNSEEN}])")
"""Controls, bidi marks, blanks of no width, surrogates. Not the joiners U+200C and U+200D, which words need."""
UNSEEN_IN_LINES = re.compile(f"([\x00-\x08\x0b-\x1f{_UNSEEN}])")
"""The same for text of several lines: tabs and line ends are welcome."""
MARKUP = re.compile(r"[&<>|`*\[\]~$]|\\(?![A-Za-z0-9])|(?<![^\W_])_|_(?![^\W_])|(?<=:)//")
"""What Markdown or HTML would read as more than text. `_` within a word and `\\` before one are letters."""


@dataclass(frozen=True)
class Part:
    """A stretch of text that is shown in one way. mark: "", "del" or "ins"."""

    text: str
    mark: str = ""
    is_escape: bool = False


@dataclass(frozen=True)
class Run:
    """Parts that have one direction. kind: "nko", "other" (not ASCII, direction by its own letters) or ""."""

    kind: str
    parts: list[Part]


@dataclass(frozen=True)
class Shown:
    """A text as a page shows it. more: characters that were cut off its end."""

    runs: list[Run]
    more: int = 0


def pages(facts: dict[str, Any], templates: Path = Path("templates")) -> dict[str, str]:
    """Name -> text of each page, the same for the same facts.

    facts: dataset, orthography, splits, counts, histograms, cer, dropped, dropped_examples, orthography_findings,
    near_duplicates and examples, as dataset.py gathers them. Raises ThunderError for a template that does not render.
    """
    values = _values(facts)
    finalizers = dict(zip(paths.AUDIT, (None, _markdown), strict=True))  # Jinja itself escapes HTML
    return {name: rendered(templates / f"{name}.j2", values, each) for name, each in finalizers.items()}


def shown(text: Any) -> Shown:
    """A short text: one run, every control character spelled out."""
    kept, more = _cut(str(text))
    return Shown([Run(_kind(kept), _parts(kept))] if kept else [], more)


def spoken(text: str) -> Shown:
    """A message: it keeps its lines, and each stretch of N'Ko among other words is a run."""
    kept, more = _cut(text)
    runs, end = [], 0
    for match in NKO_RUN.finditer(kept):
        runs += [kept[end : match.start()], match.group()]
        end = match.end()
    runs.append(kept[end:])
    return Shown([Run(_kind(each), _parts(each, unseen=UNSEEN_IN_LINES)) for each in runs if each], more)


def compared(before: str, after: str) -> tuple[Shown, Shown]:
    """Two texts side by side: what only the first has is marked `del`, what only the second has `ins`."""
    (first, first_more), (second, second_more) = _cut(before), _cut(after)
    left, right = clusters(first), clusters(second)
    numbers: dict[str, int] = {}  # numbers compare the same in every process; the hash of a str does not
    coded = [[numbers.setdefault(each, len(numbers)) for each in side] for side in (left, right)]
    old, new = ["del"] * len(left), ["ins"] * len(right)
    for edit in Levenshtein.opcodes(*coded):
        if edit.tag == "equal":
            same = edit.src_end - edit.src_start
            old[edit.src_start : edit.src_end] = new[edit.dest_start : edit.dest_end] = [""] * same
    return Shown(_marked(left, old), first_more), Shown(_marked(right, new), second_more)


def clusters(text: str) -> list[str]:
    """Letters with the marks that stand on them; a mark at the start stands alone."""
    found: list[str] = []
    for character in text:
        if found and _is_mark(character):
            found[-1] += character
        else:
            found.append(character)
    return found


def _marked(letters: list[str], marks: list[str]) -> list[Run]:
    """One run whose neighbours of equal mark are one stretch."""
    text, stretches = "".join(letters), groupby(zip(letters, marks, strict=True), key=itemgetter(1))
    parts = [part for mark, pairs in stretches for part in _parts("".join(letter for letter, _ in pairs), mark)]
    return [Run(_kind(text), parts)] if text else []


def _is_mark(character: str) -> bool:
    return character > "\x7f" and unicodedata.category(character)[0] == "M"


def _cut(text: str) -> tuple[str, int]:
    """The text's start that is shown, and how many characters are left out. A letter keeps its marks."""
    end = LONGEST
    while end < len(text) and _is_mark(text[end]):
        end += 1
    return text[:end], max(0, len(text) - end)


def _kind(text: str) -> str:
    return "" if text.isascii() else "nko" if NKO.search(text) else "other"


def _parts(text: str, mark: str = "", unseen: re.Pattern[str] = UNSEEN) -> list[Part]:
    """A stretch split at the characters that are spelled out."""
    pieces = [(piece, at % 2 == 1) for at, piece in enumerate(unseen.split(text)) if piece]
    return [Part(piece.encode("unicode_escape").decode() if odd else piece, mark, odd) for piece, odd in pieces]


def _markdown(value: Any) -> Markup:
    """A value that Markdown shows as it is, on one line, also inside a table. Markup is the template's own."""
    if isinstance(value, Markup):
        return value
    text = MARKUP.sub(lambda match: "".join(f"&#{ord(each)};" for each in match.group()), str(value))
    return Markup(text.replace("\n", "<br>"))  # noqa: S704 - escaped in the line above


def rendered(template: Path, values: dict[str, Any], finalize: Callable[[Any], Any] | None = None) -> str:
    """A page in which every value is escaped. A template may include its neighbours.

    Filters shown, spoken and number, and the function compared, are there. Raises ThunderError for a wrong template.
    """
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(shown=shown, spoken=spoken, number=number)
    environment.globals.update(compared=compared)
    try:
        return environment.from_string(template.read_text(encoding="utf-8")).render(values) + "\n"
    except FileNotFoundError:
        raise ThunderError("is missing", where=str(template), hint="git checkout it") from None
    except TemplateNotFound as error:
        raise ThunderError("is missing", where=str(template.parent / str(error.name)), hint="git checkout it") from None
    except TemplateSyntaxError as error:
        raise ThunderError(str(error.message), where=f"{template}:{error.lineno}", hint="mend that line") from error
    except TemplateError as error:
        raise ThunderError(str(error.message), where=str(template), hint="use only the names it is given") from error


def number(value: float) -> str:
    """1234.0 -> "1,234"; 2.5 -> "2.5"."""
    return f"{int(value):,}" if value == int(value) else f"{round(value, 4):,}"


def _values(facts: dict[str, Any]) -> dict[str, Any]:
    """What the templates read: every table sorted and summed."""
    splits = _in_order(facts["splits"])
    rows = {name: facts["splits"][name]["rows"] for name in splits}
    total = sum(rows.values())
    return {
        "dataset": facts["dataset"],
        "orthography": facts["orthography"],
        "total": total,
        "split_names": splits,
        "splits": [
            (name, rows[name], _share(rows[name], total), facts["splits"][name]["characters"], facts["cer"].get(name))
            for name in splits
        ],
        "counts": [(title.replace("_", " "), _table(table, splits)) for title, table in facts["counts"].items()],
        "histograms": [(title, _bars(bins)) for title, bins in facts["histograms"].items()],
        "dropped": [
            (reason, count, facts["dropped_examples"].get(reason, []))
            for reason, count in sorted(facts["dropped"].items(), key=lambda item: (-item[1], item[0]))
        ],
        "dropped_total": sum(facts["dropped"].values()),
        "findings": facts["orthography_findings"],
        "near": facts["near_duplicates"],
        "examples": facts["examples"],
        "longest": LONGEST,
    }


def _in_order(names: Iterable[str]) -> list[str]:
    """train, valid, test, then any other by name."""
    known = set(names)
    return [name for name in SPLITS if name in known] + sorted(known - set(SPLITS))


def _table(table: dict[str, dict[str, int]], splits: list[str]) -> list[tuple[str, list[int], int]]:
    """name, rows in each split, rows in all."""
    counts = [(name, [table[name].get(split, 0) for split in splits]) for name in sorted(table)]
    return [(name, each, sum(each)) for name, each in counts]


def _bars(bins: list[list[float]]) -> list[tuple[str, int, float, str]]:
    """label, count, width in percent of the longest bar, and the bar as text."""
    most = max((int(count) for _, _, count in bins), default=0) or 1
    bars = []
    for low, high, count in bins:
        label = number(low) if low == high else f"{number(low)} to {number(high)}"
        blocks = "█" * max(round(BLOCKS * count / most), 1 if count else 0)
        bars.append((label, int(count), round(100 * count / most, 2), blocks))
    return bars


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""
