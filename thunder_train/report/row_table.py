"""The table of all test rows: its data, which a script of the page sorts, filters and shows fifty rows at a time.

Input: the rows of a page, untrusted text.  Output: JSON-like values; unseen characters are spelled out, and the script
puts texts into the page as text only.
"""

from collections.abc import Sequence
from typing import Any

from thunder_train.core.html import LONGEST, visible
from thunder_train.report import alignment
from thunder_train.report.page_rows import CHAT, Row

MOST = 20_000
"""Maximum number of rows; a page of more would take too long to open."""
FIELDS = (
    *("number", "id", "partition", "source", "group", "length", "before", "after", "verdict", "reason"),
    *("kind", "texts", "codes"),
)
"""Names of a row's values. texts: of CORRECTION reference, hypothesis, answer; of CHAT question, expected answer, the
base's and the adapter's. codes: steps of the alignment with the reference, for each text that is aligned.
"""


def of(rows: Sequence[Row]) -> dict[str, Any]:
    """{"fields": names, "rows": their values}."""
    return {"fields": FIELDS, "rows": [_values(row) for row in rows[:MOST]]}


def _values(row: Row) -> list[Any]:
    verdict = "" if row.is_accepted is None else "accepted" if row.is_accepted else "rejected"
    names = (row.number, *map(visible, (row.id, row.partition, row.source, row.group)), row.length)
    edits = (row.before.edits if row.before else None, row.after.edits if row.after else None)
    return [*names, *edits, verdict, visible(row.reason), row.kind, *_texts(row)]


def _texts(row: Row) -> tuple[list[str], list[str]]:
    if row.kind == CHAT:
        return [_lines(text) for text in (row.given, row.expected, row.base, row.adapter)], []
    texts = [alignment.spelled(text) for text in (row.expected, row.given, row.adapter)]
    codes = [alignment.codes(text, row.expected) for text in (row.given, row.adapter)] if row.before else []
    return texts, codes


def _lines(text: str) -> str:
    """The beginning of a text of several lines."""
    kept = "\n".join(map(visible, text[:LONGEST].split("\n")))
    return kept if len(text) <= LONGEST else f"{kept} …"
