"""Rows of a page: their edits are those of eval.json, whatever the profile."""

from typing import Any

import pytest

from tests.helpers import recipes
from tests.helpers.evaluations import LOSSES, prediction, settings
from thunder_train.evaluate import conditions, error_rates
from thunder_train.report import page_rows
from thunder_train.report.page_rows import CHAT, Row

RAW = {"raw": {"asr_text": " ߊ ߓ", "reference_text": "ߊ ߓ ", "adapter": "ߊ  ߓ"}}
ROWS = [
    *recipes.predictions(recipes.TEXTS),
    *recipes.SILENT,
    prediction("e\u0301a", "\u00e9", "", "\u00e9a"),  # an accepted copy: equal after NFC
    prediction("ߊ ߓ", "ߊ ߓ", "", "ߊ ߓ") | {"id": "raw"} | RAW,
    prediction("ߊ", "", "", "ߋ"),
]


def rows_of(lines: list[dict[str, Any]], **given: Any) -> tuple[list[Row], dict[str, Any]]:
    """The rows of the page, and eval.json."""
    losses = LOSSES | {"adapter_sha256": "", "text_rows": 0}
    judged, evaluation = conditions.judge(lines, {}, losses, settings(**given), "recipes/a.toml")
    return page_rows.of(lines, judged.decisions, evaluation), evaluation


@pytest.mark.parametrize("name", list(error_rates.profiles(settings())))
def test_the_rows_have_the_rates_of_the_evaluation(name: str) -> None:
    """
    A page whose rows add up to another rate than its tables would be wrong in one of them.
    """
    rows, evaluation = rows_of(ROWS, profile=name)
    profile = page_rows.profile_of(evaluation)
    rates = {line["condition"]: line["cer"] for line in evaluation["conditions"] if line["partition"] == "all"}
    edits = {
        "baseline": [row.before for row in rows if row.before],
        "adapter_blind": [row.proposed for row in rows if row.proposed],
        "adapter_gated": [row.after for row in rows if row.after],
    }

    assert rates | {condition: error_rates.rate(each, profile) for condition, each in edits.items()} == rates


def test_a_row_knows_its_verdict_and_what_it_cost() -> None:
    """
    Harm that was accepted, and help that was rejected, are what a reader looks for.
    """
    lines = [prediction("ߊߊߊߊߊ", "ߊߊߊߊߊ", "", "ߊߊߊߊߋ"), prediction("ߊ", "ߋߋߋߋߋ", "", "ߋߋߋߋߋ") | {"id": "far"}]
    harmed, lost = rows_of(lines)[0]

    assert (True, 1, 1, 5) == (harmed.is_accepted, harmed.added, harmed.proposed_added, harmed.length)
    assert (False, 0, -5, "over the edit budget") == (lost.is_accepted, lost.added, lost.proposed_added, lost.reason)
    assert [1, 2] == [harmed.number, lost.number]


def test_a_row_without_a_reference_has_no_edits_and_a_silent_one_has() -> None:
    """
    Nothing can be counted there; where nobody spoke, each letter is one too many.
    """
    silent, blind = prediction("ߊ", "", "", "ߊߋ") | {"silent": True, "id": "silent"}, prediction("ߊߋ", "", "", "ߊ")
    first, second = rows_of([silent, blind])[0]

    assert first.before
    assert (1, None, 0, 2) == (first.before.edits, second.before, second.added, second.length)


def test_a_row_of_a_chat_compares_base_and_adapter_with_the_expected_answer() -> None:
    """
    No gate was asked: the adapter's answer is the final text.
    """
    row = rows_of(recipes.CHAT)[0][0]

    assert row.before
    assert row.after
    assert (CHAT, None, "It is 1.", "What is 0 and\n1?") == (row.kind, row.is_accepted, row.final, row.given)
    assert (8, 0, -8) == (row.before.edits, row.after.edits, row.added)
