"""Figures of a dataset for its manifest and audit: counts, lengths, error rates, histograms.

Input: each row once, of which a few bytes are kept.  Output: figures of the rows that `splits.assign` keeps.
n: number of rows added.
"""

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rapidfuzz.distance import Levenshtein

from thunder_train.data.examples import Example
from thunder_train.data.rows import Row
from thunder_train.data.splits import SPLITS, Assignment

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

KINDS = ("source", "partition", "decision", "evidence_kind")
"""Fields of a row that rows are counted by."""
BINS = 20
"""Most bars of a histogram."""
NO_EDITS = -1
"""Edits of a row without a hypothesis or a reference; a recogniser's row has both, though they may be empty."""


class Statistics:
    """Columns of n numbers: lengths in code points, and the edits from hypothesis to reference."""

    def __init__(self) -> None:
        self.lengths, self.hypotheses = array("I"), array("I")
        self.answers, self.references = array("I"), array("I")
        """lengths: of all messages of a row together."""
        self.edits = array("i")
        self.reason_codes: list[tuple[int, tuple[str, ...]]] = []
        self._words: dict[tuple[str, ...], int] = {}
        """The word of each of KINDS -> a number."""
        self._numbers = array("I")
        """That number of each row."""

    def add(self, number: int, row: Row, example: Example) -> None:
        """Count a row. number: the count of rows before it."""
        asr, reference = example.asr_text, example.reference_text
        self.lengths.append(sum([len(message.content) for message in example.messages]) + len(example.text))
        self.hypotheses.append(len(asr))
        self.answers.append(len(example.answer))
        self.references.append(len(reference))
        is_measured = (asr and reference) or (not row.is_given and (reference or example.silent))
        self.edits.append(Levenshtein.distance(asr, reference) if is_measured else NO_EDITS)
        words = (row.source, row.partition, row.decision, row.evidence_kind)
        self._numbers.append(self._words.setdefault(words, len(self._words)))
        if row.reason_codes:
            self.reason_codes.append((number, row.reason_codes))

    def merge(self, other: "Statistics") -> None:
        """Add the rows of another, which follow on these."""
        start = len(self.lengths)
        for name in ("lengths", "hypotheses", "answers", "references", "edits"):
            getattr(self, name).extend(getattr(other, name))
        self.reason_codes += [(start + number, codes) for number, codes in other.reason_codes]
        numbers = [self._words.setdefault(words, len(self._words)) for words in other._words]
        self._numbers.extend([numbers[number] for number in other._numbers])

    def counts(self, assigned: Assignment) -> dict[str, dict[str, dict[str, int]]]:
        """kind -> word -> split -> rows."""
        import numpy as np

        numbers = np.asarray(self._numbers, np.int64)
        in_splits = [numbers[assigned.rows(split)] for split in range(len(SPLITS))]
        table = [np.bincount(each, minlength=len(self._words)).tolist() for each in in_splits]
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for index, kind in enumerate(KINDS):
            rows: dict[str, Counter[str]] = {}
            for words, number in self._words.items():
                if any(each[number] for each in table):
                    total = rows.setdefault(words[index], Counter(dict.fromkeys(SPLITS, 0)))
                    total.update({name: table[split][number] for split, name in enumerate(SPLITS)})
            counts[kind] = {word: dict(rows[word]) for word in sorted(rows)}
        return counts

    def codes(self, assigned: Assignment) -> dict[str, int]:
        """Reason codes of the rows kept, and how many rows have each."""
        return dict(Counter(code for number, codes in self.reason_codes if assigned.kept[number] for code in codes))

    def characters(self, assigned: Assignment, split: int) -> dict[str, Any]:
        """Code points of all messages of a row, over the rows of a split."""
        import numpy as np

        values = np.asarray(self.lengths, np.int64)[assigned.rows(split)]
        if not len(values):
            return {"min": 0, "median": 0, "max": 0, "total": 0}
        median = float(np.median(values))
        middle = int(median) if median.is_integer() else median
        return {"min": int(values.min()), "median": middle, "max": int(values.max()), "total": int(values.sum())}

    def histograms(self, assigned: Assignment) -> dict[str, list[list[int]]]:
        """name -> [lowest, highest, rows] of each bar."""
        import numpy as np

        edits = np.asarray(self.edits, np.int64)
        hypotheses = np.asarray(self.hypotheses, np.int64)
        columns = {
            "characters of the hypothesis": hypotheses[assigned.kept & ((hypotheses > 0) | (edits != NO_EDITS))],
            "characters of the answer": np.asarray(self.answers, np.int64)[assigned.kept],
            "edit distance, hypothesis to reference": edits[assigned.kept & (edits != NO_EDITS)],
        }
        return {name: histogram(values) for name, values in columns.items() if len(values)}

    def error_rates(self, assigned: Assignment) -> dict[str, float | None]:
        """CER of the hypotheses of each split: all edits over all code points of the references; None without any."""
        import numpy as np

        edits, lengths = np.asarray(self.edits, np.int64), np.asarray(self.references, np.int64)
        rates: dict[str, float | None] = {}
        for split, name in enumerate(SPLITS):
            rows = assigned.rows(split) & (edits != NO_EDITS)
            total = int(lengths[rows].sum())
            rates[name] = round(int(edits[rows].sum()) / total, 4) if total else None
        return rates

    def typical_rows(self, assigned: Assignment, each: int = 4) -> list[int]:
        """Rows with the fewest, the median and the most edits, `each` of them; of equal ones those with a small id.

        Of rows without edits the shortest, the median and the longest: `each` of them if there are no others, else one.
        """
        import numpy as np

        edits, kept = np.asarray(self.edits, np.int64), assigned.order[assigned.kept[assigned.order]]
        is_measured = edits[kept] != NO_EDITS
        measured = _low_middle_high(kept[is_measured], edits, each)
        lengths = np.asarray(self.lengths, np.int64)
        return measured + _low_middle_high(kept[~is_measured], lengths, 1 if measured else each)


def _low_middle_high(rows: "Numbers", values: "Numbers", each: int) -> list[int]:
    """Of rows in some order those with the lowest, the median and the highest values, `each` of them, once each."""
    import numpy as np

    rows = rows[np.argsort(values[rows], kind="stable")]
    middle = max(0, len(rows) // 2 - each // 2)
    picked = [*rows[:each].tolist(), *rows[middle : middle + each].tolist(), *rows[-each:].tolist()]
    return list(dict.fromkeys(picked))


def histogram(values: "Numbers") -> list[list[int]]:
    """[lowest, highest, rows] of each bar; widths are 1, 2 or 5 times a power of ten, so that edges are round."""
    import numpy as np

    width = _width(int(values.max()) // BINS + 1)
    first, counts = int(values.min()) // width, np.bincount(values // width)
    return [[index * width, (index + 1) * width - 1, int(counts[index])] for index in range(first, len(counts))]


def _width(least: int) -> int:
    widths: Iterator[int] = (step * 10**power for power in range(20) for step in (1, 2, 5))
    return next(width for width in widths if width >= least)
