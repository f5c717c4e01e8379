"""What is in a dataset, in numbers: gathered row by row in a few bytes each, told when their splits are known."""

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rapidfuzz.distance import Levenshtein

from thunder_train.data.examples import Example
from thunder_train.data.rows import Row
from thunder_train.data.splits import SPLITS, Parted

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[Any]]

KINDS = ("source", "partition", "decision", "evidence_kind")
"""What rows are counted by."""
BINS = 20
"""Most bars of a histogram."""


class Tally:
    """Columns of n rows. lengths: code points of all messages; hypotheses, answers, references: code points of each;
    edits: code points to mend the hypothesis, -1 without a reference.
    """

    def __init__(self) -> None:
        self.lengths, self.hypotheses, self.answers = array("I"), array("I"), array("I")
        self.references, self.edits = array("I"), array("i")
        self.reason_codes: list[tuple[int, tuple[str, ...]]] = []
        self._words: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self._kinds: dict[str, array[int]] = {kind: array("H") for kind in KINDS}

    def add(self, number: int, row: Row, example: Example) -> None:
        """Count a row. number: its place among those added."""
        asr, reference = example.asr_text, example.reference_text
        self.lengths.append(sum([len(message.content) for message in example.messages]))
        self.hypotheses.append(len(asr))
        self.answers.append(len(example.messages[-1].content))
        self.references.append(len(reference))
        self.edits.append(Levenshtein.distance(asr, reference) if reference and asr else -1)
        for kind, word in (
            ("source", row.source),
            ("partition", row.partition),
            ("decision", row.decision),
            ("evidence_kind", row.evidence_kind),
        ):
            words = self._words[kind]
            self._kinds[kind].append(words.setdefault(word, len(words)))
        if row.reason_codes:
            self.reason_codes.append((number, row.reason_codes))

    def counts(self, parted: Parted) -> dict[str, dict[str, dict[str, int]]]:
        """kind -> word -> split -> rows."""
        import numpy as np

        found: dict[str, dict[str, dict[str, int]]] = {}
        for kind, words in self._words.items():
            column = np.asarray(self._kinds[kind], np.int64)
            table = [
                np.bincount(column[parted.kept & (parted.splits == split)], minlength=len(words))
                for split in range(len(SPLITS))
            ]
            found[kind] = {
                word: {name: int(table[split][index]) for split, name in enumerate(SPLITS)}
                for word, index in sorted(words.items())
                if sum(int(each[index]) for each in table)
            }
        return found

    def codes(self, parted: Parted) -> dict[str, int]:
        """Reason codes of the rows kept."""
        return dict(Counter(code for number, codes in self.reason_codes if parted.kept[number] for code in codes))

    def characters(self, parted: Parted, split: int) -> dict[str, Any]:
        """Code points of all messages of a split's rows."""
        import numpy as np

        values = np.asarray(self.lengths, np.int64)[parted.kept & (parted.splits == split)]
        if not len(values):
            return {"min": 0, "median": 0, "max": 0, "total": 0}
        median = float(np.median(values))
        middle = int(median) if median.is_integer() else median
        return {"min": int(values.min()), "median": middle, "max": int(values.max()), "total": int(values.sum())}

    def histograms(self, parted: Parted) -> dict[str, list[list[int]]]:
        """name -> [lowest, highest, rows] of each bar."""
        import numpy as np

        edits = np.asarray(self.edits, np.int64)
        columns = {
            "characters of the hypothesis": np.asarray(self.hypotheses, np.int64)[parted.kept],
            "characters of the answer": np.asarray(self.answers, np.int64)[parted.kept],
            "edit distance, hypothesis to reference": edits[parted.kept & (edits >= 0)],
        }
        return {name: histogram(values) for name, values in columns.items() if len(values)}

    def error_rates(self, parted: Parted) -> dict[str, float | None]:
        """CER of the hypotheses of each split: edits over the references' code points, pooled; None without any."""
        import numpy as np

        edits, lengths = np.asarray(self.edits, np.int64), np.asarray(self.references, np.int64)
        found: dict[str, float | None] = {}
        for split, name in enumerate(SPLITS):
            rows = parted.kept & (parted.splits == split) & (edits >= 0)
            found[name] = round(int(edits[rows].sum()) / int(lengths[rows].sum()), 4) if rows.any() else None
        return found

    def shown(self, parted: Parted, each: int = 4) -> list[int]:
        """Rows worth looking at: with the fewest, the middle and the most edits; of equal ones those of small id."""
        import numpy as np

        edits = np.asarray(self.edits, np.int64)[parted.order]
        rows = parted.order[parted.kept[parted.order] & (edits >= 0)]
        rows = rows[np.argsort(np.asarray(self.edits, np.int64)[rows], kind="stable")]
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
