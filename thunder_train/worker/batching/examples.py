"""Rows in tokens. All rows of a file lie in a few arrays, at four bytes a token; a tuple of numbers takes about 40.

Every rank keeps all rows: which of them it takes at a step depends on the lengths of all, and changes from epoch to
epoch. Shapes: R rows, T tokens of all of them, S spans of all of them.
"""

import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np

Ints = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Example:
    """One row in tokens. spans: the answers that are targets, in order, at least one."""

    row_id: str
    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def first_target(self) -> int:
        """Position of the first target; the prompt lies before it."""
        return self.spans[0][0]

    @property
    def targets(self) -> int:
        """Number of targets."""
        return sum(end - start for start, end in self.spans)


@dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """Rows, each made when it is asked for.

    ids: (R,). tokens: (T,) int32. places: (R, 2), start and end of each row in tokens. spans: (S, 2) int32, start and
    end of targets in their row. span_places: (R, 2), start and end of each row in spans.
    """

    ids: Sequence[str]
    tokens: Ints
    places: Ints
    spans: Ints
    span_places: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        (start, end), (first, last) = self.places[index].tolist(), self.span_places[index].tolist()
        spans = tuple((start, end) for start, end in self.spans[first:last].tolist())
        return Example(self.ids[index], tuple(self.tokens[start:end].tolist()), spans)

    def __iter__(self) -> Iterator[Example]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Example.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths: list[int] = (self.places[:, 1] - self.places[:, 0]).tolist()
        return lengths

    @property
    def targets(self) -> int:
        """Targets of all rows."""
        before = np.concatenate([[0], np.cumsum(self.spans[:, 1] - self.spans[:, 0], dtype=np.int64)])
        return int((before[self.span_places[:, 1]] - before[self.span_places[:, 0]]).sum())

    def take(self, numbers: Sequence[int]) -> "Examples":
        """The rows of these numbers; their tokens stay where they are."""
        chosen = np.array(numbers, np.int64)
        ids = [self.ids[number] for number in numbers]
        return replace(self, ids=ids, places=self.places[chosen], span_places=self.span_places[chosen])

    def last_spans(self) -> "Examples":
        """The same rows with their last answer as the only target."""
        ends = self.span_places[:, 1]
        return replace(self, span_places=np.stack([ends - 1, ends], 1))

    def whole_spans(self) -> "Examples":
        """The same rows with every token but the first as a target."""
        lengths, rows = np.array(self.lengths, np.int32), np.arange(len(self))
        spans, places = np.stack([np.ones_like(lengths), lengths], 1), np.stack([rows, rows + 1], 1)
        return replace(self, spans=spans, span_places=places)


@dataclass
class Gathered:
    """Rows that are added one by one, and kept in as little memory."""

    ids: list[str] = field(default_factory=list)
    tokens: "array.array[int]" = field(default_factory=lambda: array.array("i"))
    ends: "array.array[int]" = field(default_factory=lambda: array.array("q"))
    spans: "array.array[int]" = field(default_factory=lambda: array.array("i"))
    span_ends: "array.array[int]" = field(default_factory=lambda: array.array("q"))

    def add(self, row: Example) -> None:
        """Add a row."""
        self.ids.append(row.row_id)
        self.tokens.extend(row.tokens)
        self.ends.append(len(self.tokens))
        for span in row.spans:
            self.spans.extend(span)
        self.span_ends.append(len(self.spans) // 2)

    def examples(self) -> Examples:
        """All rows so far."""
        # asarray copies nothing.
        tokens, ends, spans, span_ends = map(np.asarray, (self.tokens, self.ends, self.spans, self.span_ends))
        return of_arrays(self.ids, tokens, ends, spans.reshape(-1, 2), span_ends)


def of_arrays(ids: Sequence[str], tokens: Ints, ends: Ints, spans: Ints, span_ends: Ints) -> Examples:
    """Rows that follow one another in the arrays. ends, span_ends: (R,), where each row's tokens and spans end."""
    return Examples(ids, tokens, _places(ends), spans, _places(span_ends))


def _places(ends: Ints) -> Ints:
    return np.stack([np.concatenate([[0], ends])[:-1], ends], 1).astype(np.int64)


def gathered(rows: Iterable[Example]) -> Examples:
    """Rows as Examples."""
    kept = Gathered()
    for row in rows:
        kept.add(row)
    return kept.examples()
