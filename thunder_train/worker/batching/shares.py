"""Which rank takes which rows of a step: all wait for the slowest, so their times are made equal.

A pure function of the lengths: every rank computes all shares and takes its own.
"""

from collections.abc import Iterator, Sequence

from thunder_train.worker.batching.plan import Costs, cost_of, plan

REFINED = 256
"""Shares of more rows than this are left as they are first dealt: so many rows are even by themselves."""
TRIES = 8
"""Exchanges between the slowest and the fastest rank that are costed at most; more gained nothing measurable."""
EVEN = 0.01
"""Ranks whose times differ by less are even."""

Share = list[int]
"""Positions of a rank's rows among those of the step."""


def deal(lengths: Sequence[int], ranks: int, costs: Costs, weights: Sequence[float] = ()) -> list[Share]:
    """The rows of each rank: longest first, each to the rank that is done with it first, then refined by exchanges.

    lengths: tokens of each row. weights: the speed of each rank, above 0; empty: all alike.
    """
    weights = weights or (1.0,) * ranks
    shares: list[Share] = [[] for _ in range(ranks)]
    work = [0.0] * ranks
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        more = _work(lengths[row], costs)
        times = [(done + more) / weight for done, weight in zip(work, weights, strict=True)]
        rank = times.index(min(times))
        shares[rank].append(row)
        work[rank] += more
    if ranks > 1 and len(lengths) <= REFINED:
        _refine(shares, lengths, costs, weights)
    return shares


def _work(length: int, costs: Costs) -> float:
    return costs.cost(1, length - 1) - costs.overhead


def _refine(shares: list[Share], lengths: Sequence[int], costs: Costs, weights: Sequence[float]) -> None:
    """Move or swap rows between the slowest and the fastest rank while their real layouts take less time."""

    def time(rank: int, rows: Share) -> float:
        return cost_of(plan([lengths[i] for i in rows], costs), costs) / weights[rank]

    times = [time(rank, rows) for rank, rows in enumerate(shares)]
    tries = TRIES
    while tries:
        slow, fast = times.index(max(times)), times.index(min(times))
        gap = times[slow] - times[fast]
        if gap < EVEN * times[slow]:
            return
        most = gap * weights[fast]
        surplus = most * weights[slow] / (weights[slow] + weights[fast])
        for slower, faster in _exchanges(shares[slow], shares[fast], surplus, most, lengths, costs):
            tries -= 1
            new = time(slow, slower), time(fast, faster)
            if max(new) < times[slow]:
                shares[slow], shares[fast] = slower, faster
                times[slow], times[fast] = new
                break
            if not tries:
                return
        else:
            return


def _exchanges(
    slow: Share, fast: Share, surplus: float, most: float, lengths: Sequence[int], costs: Costs
) -> Iterator[tuple[Share, Share]]:
    """Both shares after one row went over, perhaps for one that came back: first those that move about the surplus.

    most: work that the faster rank may take without becoming the slower one.
    """
    work = {row: _work(lengths[row], costs) for row in (*slow, *fast)}
    found = []
    for given in slow:
        for taken in (None, *fast):
            moved = work[given] - (0.0 if taken is None else work[taken])
            if 0 < moved < most:
                found.append((abs(moved - surplus), given, -1 if taken is None else taken))
    for _, given, taken in sorted(found):
        back = [] if taken < 0 else [taken]
        yield [row for row in slow if row != given] + back, [row for row in fast if row != taken] + [given]
