"""Rows in tokens, in as little memory as their numbers take."""

import sys
from typing import Any

import pytest

pytestmark = pytest.mark.mlx


def row(name: str, *spans: tuple[int, int]) -> Any:
    """Ten tokens, the answers at these places."""
    from thunder_train.worker.batching.examples import Example

    return Example(name, tuple(range(300, 310)), spans)


def rows() -> list[Any]:
    """Rows of several lengths and answers."""
    from thunder_train.worker.batching.examples import Example

    return [row("a", (2, 4), (6, 10)), Example("b", (7, 70_000), ((1, 2),)), row("c", (1, 10))]


def test_rows_are_kept_as_they_were_given() -> None:
    """
    Every number of a row is one that a training computes with.
    """
    from thunder_train.worker.batching.examples import gathered

    kept = gathered(rows())

    assert rows() == list(kept)
    assert ([10, 2, 10], 6 + 1 + 9, rows()[-1]) == (kept.lengths, kept.targets, kept[-1])


def test_no_row_is_kept_as_well() -> None:
    """
    A validation split may be empty.
    """
    from thunder_train.worker.batching.examples import gathered

    assert ([], [], 0) == (list(gathered([])), gathered([]).lengths, gathered([]).targets)


def test_chosen_rows_are_those_rows() -> None:
    """
    eval_rows and a dropped row must not shift the tokens of the others.
    """
    from thunder_train.worker.batching.examples import gathered

    a, b, c = rows()
    kept = gathered(rows())

    assert [c, a] == list(kept.take([2, 0]))
    assert [b, c] == list(kept[1:])
    assert ([b], 1, [2]) == (list(kept[1:][:1]), kept[1:][:1].targets, kept[1:][:1].lengths)


def test_other_targets_change_no_token() -> None:
    """
    train_on decides what is learned from a row, never the row.
    """
    from thunder_train.worker.batching.examples import Example, gathered

    kept = gathered(rows()).take([2, 0])
    (c, a), b = kept, rows()[1]

    assert [c, Example("a", a.tokens, ((6, 10),))] == list(kept.last_spans())
    assert [Example(each.row_id, each.tokens, ((1, 10),)) for each in (c, a)] == list(kept.whole_spans())
    assert [((1, 2),)] == [each.spans for each in gathered([b]).whole_spans()]


def test_rows_that_differ_are_not_equal() -> None:
    """
    Tests of what a training reads compare rows.
    """
    from thunder_train.worker.batching.examples import gathered

    kept = gathered(rows())

    assert gathered(rows()) == kept
    assert kept[:2] != kept
    assert kept.last_spans() != kept


def test_a_token_takes_four_bytes() -> None:
    """
    As tuples of numbers, 100,000 rows of 86 tokens took 450 MB on every rank of a machine.
    """
    from thunder_train.worker.batching.examples import Example, gathered

    count, length = 200, 500
    kept = gathered(Example(str(i), tuple(range(1000, 1000 + length)), ((1, length),)) for i in range(count))
    arrays = (kept.tokens, kept.places, kept.spans, kept.span_places)

    assert 4 * count * length == kept.tokens.nbytes
    assert sum(each.nbytes for each in arrays) + sum(map(sys.getsizeof, kept.ids)) < 4.5 * count * length
