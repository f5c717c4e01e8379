"""How rows are laid out in forward passes: which share a sequence, which sequences share a batch. Plain numbers only.

A forward pass of B sequences of T tokens costs, in tokens, B x T x (1 + T / knee) + overhead: work per token, attention
that grows with T, and what any call costs. The cheapest layout is taken, packed or padded; where rows may be packed,
none that is more than a tenth padding while another is not.

Which rank takes which rows of a step: all wait for the slowest, so their times are made equal.

A pure function of the lengths: every rank computes all shares and takes its own.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MULTIPLE = 64
"""Widths are multiples of it where they are fixed."""
MOST_PADDING = 0.1
"""Share of padding that a layout may have while another has less."""

Rows = tuple[int, ...]
"""Indices of the rows that follow one another in a sequence; one, if it is not packed."""


@dataclass(frozen=True)
class Costs:
    """What a machine and a model make cheap. micro_tokens: the most tokens of a forward pass, which bounds its memory;
    a longer row goes alone. knee: the length at which attention costs as much as all else. overhead: of a call, in
    tokens. is_packed: rows may share a sequence. widths: the only ones allowed; empty: any.
    """

    micro_tokens: int
    knee: float
    overhead: float
    is_packed: bool
    widths: tuple[int, ...] = ()

    def width(self, length: int) -> int:
        """The width, in tokens that the model sees, of a sequence as long as this."""
        return next((width for width in self.widths if width >= length), length)

    def cost(self, sequences: int, width: int) -> float:
        """Cost of a forward pass, in tokens."""
        return sequences * width * (1 + width / self.knee) + self.overhead


@dataclass(frozen=True)
class Pass:
    """One forward pass. sequences: of row indices; width: tokens that the model sees of each, padding included."""

    sequences: tuple[Rows, ...]
    width: int

    @property
    def is_packed(self) -> bool:
        """Whether rows share a sequence."""
        return any(len(rows) > 1 for rows in self.sequences)


def fixed_widths(longest: int, micro_tokens: int) -> tuple[int, ...]:
    """Few widths that hold sequences of every length: quarters of the longest row and, for packing, multiples of it.

    longest: tokens of it that the model sees.
    """
    top = _round_up(longest)
    quarters = {_round_up(top * part / 4) for part in (1, 2, 3, 4)}
    return tuple(sorted(quarters | {top * times for times in (2, 4, 8) if top * times <= micro_tokens}))


def _round_up(length: float) -> int:
    return -(-int(length) // MULTIPLE) * MULTIPLE


def plan(lengths: Sequence[int], costs: Costs) -> list[Pass]:
    """Forward passes that hold each row exactly once. lengths: tokens of each row. A pure function."""
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    layouts: list[list[Rows]] = [[(i,) for i in order]]
    if costs.is_packed:
        layouts += [_bins(order, lengths, capacity) for capacity in _capacities(lengths, costs)]
    free_calls = dataclasses.replace(costs, overhead=0.0)  # divides more finely: less padding, more calls
    plans = [_group(layout, lengths, each) for layout in layouts for each in (costs, free_calls)]
    return min(plans, key=lambda passes: _badness(passes, lengths, costs))


def _badness(passes: list[Pass], lengths: Sequence[int], costs: Costs) -> tuple[bool, float]:
    computed = sum(len(each.sequences) * each.width for each in passes)
    padding = 1 - sum(length - 1 for length in lengths) / max(1, computed)
    return costs.is_packed and padding > MOST_PADDING, cost_of(passes, costs)


def cost_of(passes: Sequence[Pass], costs: Costs) -> float:
    """Cost of forward passes, in tokens."""
    return sum(costs.cost(len(each.sequences), each.width) for each in passes)


def _capacities(lengths: Sequence[int], costs: Costs) -> list[int]:
    """Lengths of packed sequences worth trying."""
    longest = max(lengths)
    if costs.widths:
        return [width + 1 for width in costs.widths if width + 1 >= longest]
    most = min(sum(lengths), max(costs.micro_tokens, longest))
    return [size for size in (longest * times // 2 for times in (2, 3, 4, 6, 8, 12, 16)) if size <= most]


def _bins(order: Sequence[int], lengths: Sequence[int], capacity: int) -> list[Rows]:
    """Rows put, longest first, each into the first sequence that still has room."""
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
    """The cheapest division of sequences, longest first, into forward passes: a shortest path from first to last."""
    sequences = sorted(bins, key=lambda rows: (-_seen(rows, lengths), rows))
    widths = [costs.width(_seen(rows, lengths)) for rows in sequences]
    best, cuts = [0.0], [0]
    for stop in range(1, len(sequences) + 1):
        starts = _starts(stop, widths, costs)
        cost, start = min((best[start] + costs.cost(stop - start, widths[start]), start) for start in starts)
        best.append(cost)
        cuts.append(start)
    passes, stop = [], len(sequences)
    while stop:
        passes.append(Pass(tuple(sequences[cuts[stop] : stop]), widths[cuts[stop]]))
        stop = cuts[stop]
    return passes[::-1]


def _seen(rows: Rows, lengths: Sequence[int]) -> int:
    return sum(lengths[i] for i in rows) - 1  # the last token of a sequence is a target and nothing else


def _starts(stop: int, widths: Sequence[int], costs: Costs) -> Iterator[int]:
    """Where a pass that ends before `stop` may begin; with fixed widths it holds 1, 2, 4, ... sequences."""
    for start in range(stop - 1, -1, -1):
        count = stop - start
        if count > 1 and count * widths[start] > costs.micro_tokens:
            return
        if not costs.widths or count & (count - 1) == 0:
            yield start


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
