"""95 % intervals that know groups: rows of one recording, speaker or video are drawn together.

Input: errors and weights of rows, and the group of each.  Output: intervals of rates and of their differences.
Rows of one recording are alike, so a bootstrap over rows takes ten of them for ten witnesses: its intervals are too
narrow by far.  docs/evaluation.md has the measured coverage of both.
Shapes: R rows, G groups, C conditions, S bootstrap samples.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_GROUPS = 20
"""Fewer groups have no interval: what differs between so few cannot be told from them."""
LEVEL = 0.95
DIGITS = 6
"""Decimals of an interval's ends. Further digits depend on the order in which a machine adds."""


class Interval(NamedTuple):
    """95 % intervals of a condition's rate, and of its difference from the baseline in percentage points.

    None where the rows have fewer than MIN_GROUPS groups.
    """

    cer_low: float | None = None
    cer_high: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None


def count(groups: Sequence[str]) -> dict[str, int | bool]:
    """{"groups": how many different ones}, and "too_few_groups" where they are too few for an interval."""
    number = len(set(groups))
    return {"groups": number} | ({"too_few_groups": True} if number < MIN_GROUPS else {})


def paired(
    errors: Sequence[Sequence[float]], weights: Sequence[float], groups: Sequence[str], samples: int, seed: int
) -> list[Interval]:
    """An interval for each condition, by a bootstrap over groups.

    errors: (C, R), the baseline first.  weights: (R,), the same for all conditions.  Both as returned by
    error_rates.weighed.  groups: (R,), the name of each row's group.
    Paired: each sample draws the same groups for all conditions, so that differences in difficulty between groups
    cancel out in the difference from the baseline.
    """
    import numpy as np  # late: `import dodo` must not load numpy

    if len(set(groups)) < MIN_GROUPS:
        return [Interval()] * len(errors)
    table = np.array([*errors, weights], dtype=np.float64).T
    sums = resampled(table, groups, samples, seed)
    rates = sums[:, :-1] / np.maximum(sums[:, -1:], 1)  # a sample may hold only empty references, whose weight is 0
    both = ends(np.concatenate([rates, 100 * (rates - rates[:, :1])], axis=1), effective(weights, groups))
    return [Interval(*rate, *delta) for rate, delta in zip(both[: len(errors)], both[len(errors) :], strict=True)]


def resampled(table: "NDArray[np.float64]", groups: Sequence[str], samples: int, seed: int) -> "NDArray[np.float64]":
    """Column sums over G groups drawn with replacement, for each sample: (S, K). table: (R, K); groups: (R,)."""
    import numpy as np

    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    of_row, drawable = np.array([numbers[name] for name in groups]), len(numbers)
    by_group = np.stack([np.bincount(of_row, column, drawable) for column in table.T], axis=1)
    # numpy guarantees the same raw bits in all versions, but not the same results of Generator.integers. The modulo
    # bias is below G / 2^64.
    bits = np.random.PCG64(seed)
    sums = np.empty((samples, table.shape[1]))
    for sample in range(samples):
        drawn = (bits.random_raw(drawable) % np.uint64(drawable)).astype(np.int64)
        sums[sample] = np.bincount(drawn, minlength=drawable) @ by_group
    return sums


def ends(values: "NDArray[np.float64]", groups: float) -> list[tuple[float, float]]:
    """(low, high) of each column of resampled values (S, K), rounded. groups: how many there are, as of `effective`.

    The expanded percentile interval of Hesterberg (2015), What Teachers Should Know About the Bootstrap, The American
    Statistician 69:371-386. Percentiles alone are too narrow for few groups, twice: a sample's spread has
    the divisor G, and its tails are normal. So they are taken further out, where a normal variable is
    sqrt(G / (G - 1)) times the quantile of Student's t with G - 1 degrees of freedom.
    """
    import numpy as np

    freedom = max(groups - 1, 1.0)
    tail = NormalDist().cdf(math.sqrt((freedom + 1) / freedom) * student((1 - LEVEL) / 2, freedom))
    low, high = np.round(np.quantile(values, (tail, 1 - tail), axis=0), DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
    return list(zip(low.tolist(), high.tolist(), strict=True))


def effective(weights: Sequence[float], groups: Sequence[str]) -> float:
    """How many groups of equal weight say as much: (sum w)^2 / sum w^2 (Kish 1965, Survey Sampling).

    Twenty groups of which one has nearly all rows say little more than that one. weights, groups: (R,).
    """
    of_group: dict[str, float] = {}
    for name, weight in zip(groups, weights, strict=True):
        of_group[name] = of_group.get(name, 0.0) + weight
    squares = math.fsum(weight**2 for weight in of_group.values())
    return math.fsum(of_group.values()) ** 2 / squares if squares else 1.0


def of_share(count: int, rows: int) -> tuple[float, float]:
    """(low, high) of a share of rows that was counted (Wilson 1927, Journal of the American Statistical Association).

    1 of 13 says 1 % to 33 %: that is no sign of more than 5 %.
    """
    if not rows:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (count + z * z / 2) / (rows + z * z)
    reach = z * math.sqrt(count * (rows - count) / rows + z * z / 4) / (rows + z * z)
    return round(max(0.0, middle - reach), DIGITS), round(min(1.0, middle + reach), DIGITS)


def student(share: float, freedom: float) -> float:
    """The quantile of Student's t distribution (Abramowitz and Stegun 1964, 26.7.5), to 1e-3 from 10 degrees on.

    share: from 0 to 1, exclusive.  freedom: degrees of freedom, at least 1; below 4 the result is too small.
    """
    z = NormalDist().inv_cdf(share)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
