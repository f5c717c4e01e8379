"""How rows are laid out in forward passes: which share a sequence, which sequences share a batch. Plain numbers only.

A forward pass of B sequences of T tokens costs, in tokens, B x T x (1 + T / knee) + overhead: work per token, attention
that grows with T, and what any call costs. The cheapest layout is taken, packed or padded; where rows may be packed,
none that is more than a tenth padding while another is not.
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
