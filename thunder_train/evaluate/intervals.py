"""How far a rate would move on other rows of the same kind: paired bootstrap intervals.

Input: errors and weight of each row under each condition.  Output: 95 % intervals.  numpy is imported when first used.
Shapes: R rows, C conditions, S samples.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERCENTILES = (2.5, 97.5)
DIGITS = 6
"""Of an interval's ends: more would tell the order in which a machine adds."""


class Interval(NamedTuple):
    """95 % intervals of a condition's rate, and of its difference from the baseline in percentage points."""

    cer_low: float
    cer_high: float
    delta_low: float
    delta_high: float


def paired(errors: list[list[float]], weights: list[int], samples: int, seed: int) -> list[Interval]:
    """An interval for each condition, by the percentile bootstrap over rows (Efron and Tibshirani 1993, 13.3).

    errors: (C, R), the baseline first.  weights: (R,), the same for all conditions: a rate is sum of errors / sum of
    weights.  Paired: each sample draws the same rows for all conditions, so what makes a row hard cancels out in the
    differences.
    """
    import numpy as np

    sums = _sums(np.array([*errors, weights], dtype=np.float64).T, samples, seed)
    rates = sums[:, :-1] / np.maximum(sums[:, -1:], 1)  # a sample of nothing but empty references has no error either
    ends = np.percentile(rates, PERCENTILES, axis=0)
    deltas = np.percentile(100 * (rates - rates[:, :1]), PERCENTILES, axis=0)
    rounded = np.round(np.concatenate([ends, deltas]), DIGITS) + 0.0  # no -0.0, which JSON would tell
    return [Interval(*column) for column in rounded.T.tolist()]


def _sums(table: "NDArray[np.float64]", samples: int, seed: int) -> "NDArray[np.float64]":
    """(S, C + 1): column sums of R rows that are drawn with replacement, sample by sample. table: (R, C + 1)."""
    import numpy as np

    rows, columns = table.shape
    # Raw bits, because numpy keeps only these the same from version to version; R is far too small for a modulo's bias.
    bits = np.random.PCG64(seed)
    sums = np.empty((samples, columns))
    for sample in range(samples):
        drawn = (bits.random_raw(rows) % np.uint64(rows)).astype(np.int64)
        sums[sample] = np.bincount(drawn, minlength=rows) @ table
    return sums
