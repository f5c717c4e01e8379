"""Which rows a page shows, and which confusions."""

from typing import Any

from tests.helpers.evaluations import prediction
from tests.report.test_page_rows import rows_of
from thunder_train.report import examples
from thunder_train.report.page_rows import Row


def row(name: str, hypothesis: str, reference: str, adapter: str) -> dict[str, Any]:
    """A prediction with an id of its own."""
    return prediction(hypothesis, reference, "", adapter) | {"id": name}


def ids(rows: list[Row]) -> list[str]:
    """Their names."""
    return [each.id for each in rows]


def test_rows_are_chosen_by_what_was_accepted_and_the_most_telling_come_first() -> None:
    """
    What a rejected answer would have done harms nobody: it is no example of harm.
    """
    rows, _ = rows_of(
        [
            row("good", "abcdx", "abcde", "abcde"),
            row("bad", "abcde", "abcde", "abcdx"),
            row("worse", "abcde", "abcde", "abcxx"),
            row("lost", "a", "abcdefgh", "abcdefgh"),
            row("refused", "abcde", "abcde", "xxxxxxxxx"),
            row("better", "abcxx", "abcde", "abcde"),
            row("same", "abcde", "abcde", "abcde"),
        ]
    )

    assert ["worse", "bad"] == ids(examples.harmed(rows))
    assert ["better", "good"] == ids(examples.improved(rows))
    assert ["lost"] == ids(examples.wrongly_rejected(rows))


def test_there_are_five_of_each_at_most() -> None:
    """
    The table below them has all rows.
    """
    rows, _ = rows_of([row(f"bad:{number}", "abcde", "abcde", "abcdx") for number in range(8)])

    assert [f"bad:{number}" for number in range(5)] == ids(examples.harmed(rows))


def test_each_row_behind_a_reason_is_shown_once_with_all_its_reasons() -> None:
    """
    One row may stand behind several; a row that predictions.jsonl does not have is left out.
    """
    rows, _ = rows_of([row(name, "abcde", "abcde", "abcdx") for name in ("a", "b", "c")])
    decision = {
        "reasons": [
            {"text": "First.", "rows": []},
            {"text": "Second.", "rows": ["c", "a"]},
            {"text": "Third.", "rows": ["a", "x"]},
        ]
    }
    given = examples.reasons(decision, rows)

    assert [[], ["c", "a"], ["a"]] == [ids(reason.rows) for reason in given]
    assert [[], [], ["x"]] == [reason.dropped for reason in given]
    assert [("a", [2, 3]), ("c", [2])] == [(each.row.id, each.reasons) for each in examples.behind(given)]


def test_confusions_are_counted_before_in_the_answers_and_after() -> None:
    """
    An adapter that repairs one confusion may bring another; what the gate rejects stays in the hypothesis.
    """
    rows, _ = rows_of(
        [
            row("repaired", "abcdx", "abcde", "abcde"),
            row("moved", "abxde", "abcde", "axcde"),
            row("rejected", "a", "abcdefgh", "xbcdefgx"),
        ]
    )
    confusions = {(each.reference, each.text): each for each in examples.confusions(rows)}

    assert (1, 0, 0, 0) == tuple(vars(confusions["e", "x"]).values())[2:]
    assert (0, 1, 1, 1) == tuple(vars(confusions["b", "x"]).values())[2:]
    assert (0, 1, 0, 1) == tuple(vars(confusions["h", "x"]).values())[2:]
    assert (1, 0, 1, 0) == tuple(vars(confusions["h", ""]).values())[2:]
    assert {("b", "x"), ("h", "x"), ("a", "x")} == {
        (each.reference, each.text) for each in examples.introduced(confusions.values())
    }
    assert all(each.hypothesis for each in examples.frequent(confusions.values()))
