"""The data of the table of all rows."""

from typing import Any

import pytest

from tests.helpers import recipes
from tests.report.test_examples import row
from tests.report.test_page_rows import rows_of
from thunder_train.report import inline_script, row_table


def values(line: dict[str, Any]) -> dict[str, Any]:
    """The only row of a table, by name."""
    table = row_table.of(rows_of([line])[0])
    return dict(zip(table["fields"], table["rows"][0], strict=True))


def test_a_row_has_its_figures_texts_and_alignments() -> None:
    """
    The script only shows and sorts: it decides nothing.
    """
    shown = values(row("a", "ߊ ߓ ߕ", "ߊ ߓ ߖ", "ߊ ߓ ߖ") | {"group": "speaker 1", "partition": "recovery"})

    assert (1, "a", "recovery", "in.json", "speaker 1", 5, 1, 0) == tuple(shown.values())[:8]
    assert ("accepted", "within the edit budget") == (shown["verdict"], shown["reason"])
    assert ["ߊ ߓ ߖ", "ߊ ߓ ߕ", "ߊ ߓ ߖ"] == shown["texts"]
    assert ["==s", "==="] == shown["codes"]


def test_a_chat_keeps_its_lines_and_is_not_aligned() -> None:
    """
    A poem or a program without its lines is another text.
    """
    shown = values(recipes.CHAT[0] | {"base": "x\ty\n\u202ez"})

    assert ["What is 0 and\n1?", "It is 1.", "x\\ty\n\\u202ez", "It is 1."] == shown["texts"]
    assert [[], "chat", ""] == [shown["codes"], shown["kind"], shown["verdict"]]


def test_a_row_without_a_reference_has_no_edits_and_no_alignment() -> None:
    """
    An empty reference would mark every word as added.
    """
    shown = values(row("a", "ߊ", "", "ߋ"))

    assert [None, None, []] == [shown["before"], shown["after"], shown["codes"]]


def test_no_row_can_end_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Rows are untrusted; what a script element holds ends at the first </script>.
    """
    monkeypatch.setattr(row_table, "MOST", 1)
    table = row_table.of(rows_of([row("a", recipes.HOSTILE, "ߊ", "<!--"), row("b", "", "ߊ", "")])[0])

    assert 1 == len(table["rows"])
    assert not {"<", ">", "&"} & {*inline_script.as_json(table)}
