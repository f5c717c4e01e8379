"""Which rank takes which rows of a step: all wait for the slowest, so their work is made equal.

A pure function of the lengths: every rank computes all shares and takes its own.
"""

from collections.abc import Iterator, Sequence

from thunder_train.worker.layout import Costs, cost_of, plan

REFINED = 256
"""Shares of more rows than this are left as they are first dealt: so many rows are even by themselves."""
TRIES = 8
"""Exchanges between the slowest and the fastest rank that are costed at most; more gained nothing measurable."""
EVEN = 0.01
"""Ranks whose costs differ by less are even."""

Share = list[int]
"""Positions of a rank's rows among those of the step."""


def deal(lengths: Sequence[int], ranks: int, costs: Costs) -> list[Share]:
    """The rows of each rank: longest first, each to the rank with the least work yet, then refined by exchanges.

    lengths: tokens of each row.
    """
    shares: list[Share] = [[] for _ in range(ranks)]
    work = [0.0] * ranks
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = work.index(min(work))
        shares[rank].append(row)
        work[rank] += _work(lengths[row], costs)
    if ranks > 1 and len(lengths) <= REFINED:
        _refine(shares, lengths, costs)
    return shares


def _work(length: int, costs: Costs) -> float:
    return costs.cost(1, length - 1) - costs.overhead


def _refine(shares: list[Share], lengths: Sequence[int], costs: Costs) -> None:
    """Move or swap rows between the slowest and the fastest rank while their real layouts get cheaper."""

    def price(rows: Share) -> float:
        return cost_of(plan([lengths[i] for i in rows], costs), costs)

    prices = [price(rows) for rows in shares]
    tries = TRIES
    while tries:
        slow, fast = prices.index(max(prices)), prices.index(min(prices))
        if prices[slow] - prices[fast] < EVEN * prices[slow]:
            return
        surplus = (prices[slow] - prices[fast]) / 2
        for slower, faster in _exchanges(shares[slow], shares[fast], surplus, lengths, costs):
            tries -= 1
            new = price(slower), price(faster)
            if max(new) < prices[slow]:
                shares[slow], shares[fast] = slower, faster
                prices[slow], prices[fast] = new
                break
            if not tries:
                return
        else:
            return


def _exchanges(
    slow: Share, fast: Share, surplus: float, lengths: Sequence[int], costs: Costs
) -> Iterator[tuple[Share, Share]]:
    """Both shares after one row went over, perhaps for one that came back: first those that move about the surplus."""
    work = {row: _work(lengths[row], costs) for row in (*slow, *fast)}
    found = []
    for given in slow:
        for taken in (None, *fast):
            moved = work[given] - (0.0 if taken is None else work[taken])
            if 0 < moved < 2 * surplus:
                found.append((abs(moved - surplus), given, -1 if taken is None else taken))
    for _, given, taken in sorted(found):
        back = [] if taken < 0 else [taken]
        yield [row for row in slow if row != given] + back, [row for row in fast if row != taken] + [given]
