"""Which rows share a forward pass, and which rank computes which rows. Reads lengths, returns indices; no arrays.

A forward pass of B sequences of T tokens costs, in tokens, B x T x (1 + T / knee) + overhead: work per token, attention
that grows with T, and what any call costs. `plan` takes the cheapest layout, packed or padded. `deal` gives the ranks
shares that take equally long, because all of them wait for the slowest one.

All functions are pure: every rank computes the shares of all ranks and takes its own, so no message is needed.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MULTIPLE = 64
"""Fixed widths are multiples of it."""
MOST_PADDING = 0.1
"""A layout with a larger share of padding loses to any layout with less."""
REFINED = 256
"""Shares of more rows than this are not refined: the first deal of so many rows is even enough."""
TRIES = 8
"""Exchanges between the slowest and the fastest rank that are tried at most; more gained nothing measurable."""
EVEN = 0.01
"""Relative difference of the ranks' times below which a deal counts as even."""

Rows = tuple[int, ...]
"""Indices of the rows that follow one another in a sequence; a single one if the sequence is not packed."""
Share = list[int]
"""Positions of a rank's rows among those of the step."""


@dataclass(frozen=True)
class Costs:
    """What forward passes cost with a model on a machine.

    micro_tokens: most tokens of a forward pass, which bounds its memory; a longer row gets a pass of its own. knee: the
    length at which attention costs as much as everything else. overhead: cost of a call, in tokens. is_packed: rows
    may share a sequence. widths: the only widths allowed, in ascending order; empty: any.
    """

    micro_tokens: int
    knee: float
    overhead: float
    is_packed: bool
    widths: tuple[int, ...] = ()

    def width(self, length: int) -> int:
        """The width, in tokens that the model sees, for a sequence of this length."""
        return next((width for width in self.widths if width >= length), length)

    def cost(self, sequences: int, width: int) -> float:
        """Cost of a forward pass, in tokens."""
        return sequences * width * (1 + width / self.knee) + self.overhead


@dataclass(frozen=True)
class Pass:
    """One forward pass. sequences: of row indices; width: tokens of each that the model sees, padding included."""

    sequences: tuple[Rows, ...]
    width: int

    @property
    def is_packed(self) -> bool:
        """Whether rows share a sequence."""
        return any(len(rows) > 1 for rows in self.sequences)


def fixed_widths(longest: int, micro_tokens: int) -> tuple[int, ...]:
    """A few widths for sequences of every length: quarters of the longest row and, for packing, its multiples.

    longest: tokens of the longest row that the model sees.
    """
    top = _round_up(longest)
    quarters = {_round_up(top * part / 4) for part in (1, 2, 3, 4)}
    return tuple(sorted(quarters | {top * times for times in (2, 4, 8) if top * times <= micro_tokens}))


def _round_up(length: float) -> int:
    return -(-int(length) // MULTIPLE) * MULTIPLE


def plan(lengths: Sequence[int], costs: Costs) -> list[Pass]:
    """Forward passes that hold each row exactly once. lengths: tokens of each row."""
    if not lengths:
        return []
    # The index breaks ties, here and below: all ranks must find the same layout.
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    layouts: list[list[Rows]] = [[(i,) for i in order]]
    if costs.is_packed:
        layouts += [_bins(order, lengths, capacity) for capacity in _capacities(lengths, costs)]
    # Without the overhead the grouping makes more, smaller passes with less padding; MOST_PADDING may need these.
    free_calls = dataclasses.replace(costs, overhead=0.0)
    plans = [_group(layout, lengths, each) for layout in layouts for each in (costs, free_calls)]
    return min(plans, key=lambda passes: _badness(passes, lengths, costs))


def _badness(passes: list[Pass], lengths: Sequence[int], costs: Costs) -> tuple[bool, float]:
    # Padding comes first: the cost model is a measured guess, but padded tokens are certainly wasted.
    computed = sum(len(each.sequences) * each.width for each in passes)
    padding = 1 - sum(length - 1 for length in lengths) / max(1, computed)
    return costs.is_packed and padding > MOST_PADDING, cost_of(passes, costs)


def cost_of(passes: Sequence[Pass], costs: Costs) -> float:
    """Cost of forward passes, in tokens."""
    return sum(costs.cost(len(each.sequences), each.width) for each in passes)


def _capacities(lengths: Sequence[int], costs: Costs) -> list[int]:
    """Lengths of packed sequences that are worth trying, in tokens."""
    longest = max(lengths)
    if costs.widths:
        return [width + 1 for width in costs.widths if width + 1 >= longest]
    # Long sequences leave less room unused but cost more attention, so a few sizes are tried and the cheapest wins.
    most = min(sum(lengths), max(costs.micro_tokens, longest))
    return [size for size in (longest * times // 2 for times in (2, 3, 4, 6, 8, 12, 16)) if size <= most]


def _bins(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[Rows]:
    """Rows packed by first-fit decreasing: at most 11/9 of the fewest sequences plus 6/9 (Dósa 2007)."""
    bins: list[list[int]] = []
    room: list[int] = []
    for row in order:
        place = next((i for i, left in enumerate(room) if left >= lengths[row]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(row)
        room[place] -= lengths[row]
    return [tuple(rows) for rows in bins]


def _group(bins: Sequence[Rows], lengths: Sequence[int], costs: Costs) -> list[Pass]:
    """The cheapest division of sequences into forward passes.

    Sequences are sorted by length, so a pass is a run of neighbours, and the cheapest division is a shortest path over
    the places to cut: best[stop] is the least cost of the first `stop` sequences, cuts[stop] where their last pass
    begins.
    """
    sequences = sorted(bins, key=lambda rows: (-_seen(rows, lengths), rows))
    widths = [costs.width(_seen(rows, lengths)) for rows in sequences]
    best, cuts = [0.0], [0]
    for stop in range(1, len(sequences) + 1):
        starts = _starts(stop, widths, costs)
        # widths[start] is the width of the pass: its first sequence is its longest.
        cost, start = min((best[start] + costs.cost(stop - start, widths[start]), start) for start in starts)
        best.append(cost)
        cuts.append(start)
    passes, stop = [], len(sequences)
    while stop:
        passes.append(Pass(tuple(sequences[cuts[stop] : stop]), widths[cuts[stop]]))
        stop = cuts[stop]
    return passes[::-1]


def _seen(rows: Rows, lengths: Sequence[int]) -> int:
    return sum(lengths[i] for i in rows) - 1  # the last token of a sequence is only a target


def _starts(stop: int, widths: Sequence[int], costs: Costs) -> Iterator[int]:
    """Where a pass that ends before `stop` may begin."""
    for start in range(stop - 1, -1, -1):
        count = stop - start
        if count > 1 and count * widths[start] > costs.micro_tokens:
            return  # an earlier start is wider and longer, so it does not fit either
        # Each shape is compiled once on a GPU, so with fixed widths a pass holds only 1, 2, 4, ... sequences.
        if not costs.widths or count & (count - 1) == 0:
            yield start


@dataclass(frozen=True)
class Homes:
    """Ranks that need not compute all of a row, because they keep a part of it from before.

    ranks: of each row, the rank that keeps its part; empty: none does. share: the part of the row's cost, from 0 to 1.
    """

    ranks: Sequence[int] = ()
    share: float = 0.0

    def factor(self, row: int, rank: int) -> float:
        """The part of a row's cost that is left for a rank."""
        return 1 - self.share if self.ranks and self.ranks[row] == rank else 1.0


NOWHERE = Homes()
"""No rank keeps anything."""


def deal(
    lengths: Sequence[int], ranks: int, costs: Costs, weights: Sequence[float] = (), homes: Homes = NOWHERE
) -> list[Share]:
    """The rows of each rank, with nearly equal times.

    lengths: tokens of each row. weights: relative speed of each rank, above 0; empty: all equal.
    """
    weights = weights or (1.0,) * ranks
    shares = deal_by_cost([_work(length, costs) for length in lengths], weights, homes)
    # The first deal adds up rows one by one; how they pack decides the real times, and matters where rows are few.
    if ranks > 1 and len(lengths) <= REFINED:
        _refine(shares, lengths, costs, weights, homes)
    return shares


def deal_by_cost(costs: Sequence[float], weights: Sequence[float], homes: Homes = NOWHERE) -> list[Share]:
    """The positions that each rank takes: the most expensive first, each to the rank that would finish it first.

    The longest-processing-time rule: equal ranks need at most 4/3 of the shortest possible time (Graham 1969).
    weights: relative speed of each rank.
    """
    shares: list[Share] = [[] for _ in weights]
    work = [0.0] * len(weights)
    for number in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        done = [work[rank] + costs[number] * homes.factor(number, rank) for rank in range(len(weights))]
        times = [each / weight for each, weight in zip(done, weights, strict=True)]
        rank = times.index(min(times))
        shares[rank].append(number)
        work[rank] = done[rank]
    return shares


def _work(length: int, costs: Costs) -> float:
    return costs.cost(1, length - 1) - costs.overhead


def _refine(shares: list[Share], lengths: Sequence[int], costs: Costs, weights: Sequence[float], homes: Homes) -> None:
    """Move or swap rows between the slowest and the fastest rank as long as that shortens the step."""

    def time(rank: int, rows: Share) -> float:
        kept = sum(_work(lengths[i], costs) * (1 - homes.factor(i, rank)) for i in rows)
        return (cost_of(plan([lengths[i] for i in rows], costs), costs) - kept) / weights[rank]

    times = [time(rank, rows) for rank, rows in enumerate(shares)]
    tries = TRIES
    while tries:
        slow, fast = times.index(max(times)), times.index(min(times))
        gap = times[slow] - times[fast]
        if gap < EVEN * times[slow]:
            return
        # Moving w makes the slow rank faster by w / its weight, and the fast one slower by w / its weight.
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
    """Both shares after one row moved from slow to fast, perhaps in exchange for another.

    surplus: work whose move would make both ranks equally fast; exchanges near it come first. most: the largest amount
    of work to move without reversing which rank is slower.
    """
    work = {row: _work(lengths[row], costs) for row in (*slow, *fast)}
    exchanges = []
    for given in slow:
        for taken in (None, *fast):
            moved = work[given] - (0.0 if taken is None else work[taken])
            if 0 < moved < most:
                exchanges.append((abs(moved - surplus), given, -1 if taken is None else taken))
    for _, given, taken in sorted(exchanges):
        back = [] if taken < 0 else [taken]
        yield [row for row in slow if row != given] + back, [row for row in fast if row != taken] + [given]
