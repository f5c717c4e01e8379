"""Which rows a page shows in full, and which letters are confused.

Input: the rows of a page, the reasons of a decision.  Output: rows to read, most telling first, and counts of
confusions in the hypotheses, in the adapter's answers and in the final texts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from thunder_train.evaluate import conditions
from thunder_train.report.page_rows import CORRECTION, Row

MOST = 5
"""Maximum number of rows of each kind."""
SHOWN = 12
"""Maximum number of rows that are named beside a reason, and of rows behind all reasons that are not folded."""
CONFUSIONS = 20
"""Maximum number of confusions in a table."""


@dataclass(frozen=True)
class Reason:
    """A reason of a decision, the rows behind it, and the ids of those that are no test rows."""

    text: str
    rows: list[Row]
    dropped: list[str]


@dataclass(frozen=True)
class Behind:
    """A row behind a decision. reasons: numbers of the reasons, from 1."""

    row: Row
    reasons: list[int]


@dataclass(frozen=True)
class Confusion:
    """A letter of the reference ("" for an added one) that texts have another for ("" for a missing one): how often."""

    reference: str
    text: str
    hypothesis: int
    adapter: int
    final: int
    introduced: int
    """Times that an adapter's answer has it and the hypothesis of that row has not."""


def harmed(rows: Iterable[Row]) -> list[Row]:
    """Accepted rows that have more edits than before, the worst first."""
    return _first((row for row in rows if row.is_accepted and row.added > 0), lambda row: -row.added)


def improved(rows: Iterable[Row]) -> list[Row]:
    """Accepted rows that have fewer edits than before, the best first."""
    return _first((row for row in rows if row.is_accepted and row.added < 0), lambda row: row.added)


def wrongly_rejected(rows: Iterable[Row]) -> list[Row]:
    """Rejected rows whose answer has fewer edits than the hypothesis, the best answer first."""
    lost = (row for row in rows if row.is_accepted is False and row.proposed_added < 0)
    return _first(lost, lambda row: row.proposed_added)


def reasons(decision: dict[str, Any], rows: Sequence[Row]) -> list[Reason]:
    """The reasons of promotion.json with their rows."""
    ids = {row.id for row in rows}
    return [
        Reason(each["text"], named(rows, each["rows"]), [name for name in each["rows"] if name not in ids])
        for each in decision["reasons"]
    ]


def named(rows: Iterable[Row], names: Iterable[str]) -> list[Row]:
    """The rows of these ids, in their order, without those that predictions.jsonl does not have."""
    by_id = {row.id: row for row in rows}
    return [by_id[name] for name in names if name in by_id]


def behind(given: Sequence[Reason]) -> list[Behind]:
    """Each row behind a reason once, in the order of predictions.jsonl."""
    numbers: dict[int, list[int]] = {}
    rows = {row.number: row for reason in given for row in reason.rows}
    for number, reason in enumerate(given, start=1):
        for row in reason.rows:
            numbers.setdefault(row.number, []).append(number)
    return [Behind(rows[number], numbers[number]) for number in sorted(rows)]


def confusions(rows: Iterable[Row]) -> list[Confusion]:
    """All confusions of rows with a reference, the most frequent of the hypotheses first."""
    before, proposed, after, introduced = (Counter[tuple[str, str]]() for _ in range(4))
    for row in rows:
        if row.kind == CORRECTION and row.expected:
            texts = (row.given, row.adapter, row.final)
            counts = {text: _confused(text, row.expected) for text in {*texts}}
            for total, text in zip((before, proposed, after), texts, strict=True):
                total.update(counts[text])
            introduced.update(counts[row.adapter] - counts[row.given])
    return [
        Confusion(*pair, before[pair], proposed[pair], after[pair], introduced[pair])
        for pair in sorted(before | proposed | after, key=lambda pair: (-before[pair], pair))
    ]


def frequent(given: Iterable[Confusion]) -> list[Confusion]:
    """The most frequent of the hypotheses."""
    return [each for each in given if each.hypothesis][:CONFUSIONS]


def introduced(given: Iterable[Confusion]) -> list[Confusion]:
    """Those that the adapter introduces most often."""
    ordered = sorted(given, key=lambda each: -each.introduced)
    return [each for each in ordered[:CONFUSIONS] if each.introduced]


def _confused(text: str, reference: str) -> Counter[tuple[str, str]]:
    pairs = conditions.confusions([(text, reference)], most=len(text) + len(reference))
    return Counter({(expected, letter): count for expected, letter, count in pairs})


def _first(rows: Iterable[Row], key: Callable[[Row], int]) -> list[Row]:
    return sorted(rows, key=lambda row: (key(row), row.number))[:MOST]
