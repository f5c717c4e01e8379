"""chrF: how many groups of characters an answer shares with the expected one (Popović 2015, W15-3049).

Input: texts.  Output: counts that add up over rows, and the score of their sums, from 0 to 100.  The numbers are those
of sacrebleu's chrF2 (Post 2018, W18-6319): groups of 1 to 6 characters without white space, recall with twice the
weight of precision.
Shapes: S sums, K = 3 x ORDER counts.
"""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDER = 6
"""Most characters of a group."""
BETA = 2
"""Weight of recall against precision."""


def counts(text: str, reference: str) -> list[int]:
    """(K,) of one row: for each size of groups, those of the text, of the reference, and in both."""
    answer, expected = "".join(text.split()), "".join(reference.split())
    counted = []
    for size in range(1, ORDER + 1):
        mine, right = _groups(answer, size), _groups(expected, size)
        total = sum(right.values())
        # As sacrebleu: where the reference has no group of a size, those of the text do not count.
        counted += [sum(mine.values()) if total else 0, total, sum((mine & right).values())]
    return counted


def score(sums: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """(S,) scores of (S, K) sums of counts."""
    import numpy as np  # late: `import dodo` must not load numpy

    made, expected, shared = np.moveaxis(sums.reshape(*sums.shape[:-1], ORDER, 3), -1, 0)
    is_counted = (made > 0) & (expected > 0)
    sizes = np.maximum(is_counted.sum(axis=-1), 1)
    precision = np.where(is_counted, shared / np.maximum(made, 1), 0).sum(axis=-1) / sizes
    recall = np.where(is_counted, shared / np.maximum(expected, 1), 0).sum(axis=-1) / sizes
    below = BETA**2 * precision + recall
    result: NDArray[np.float64] = 100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1)
    return result


def _groups(text: str, size: int) -> Counter[str]:
    return Counter(text[start : start + size] for start in range(len(text) - size + 1))
