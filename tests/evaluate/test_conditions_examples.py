"""Which letters are confused, and which rows are shown."""

from typing import Any

from tests.helpers.evaluations import prediction
from thunder_train.evaluate.conditions import confusions, extremes
from thunder_train.evaluate.error_rates import PROFILES


def shown(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The best and worst of predictions whose every proposal was held back."""
    return extremes(rows, [row["asr_text"] for row in rows], PROFILES["cer-codepoint-nfc-pooled"])


def test_confusions_are_counted_from_the_reference_to_the_text():
    """The most frequent first; a piece that one side lacks is empty there."""
    pairs = [("ߞߍ", "ߞߋ"), ("ߓߍ", "ߓߋ"), ("ߊߓ", "ߊ ߓ"), ("ߛߛ", "ߛ")]

    assert [["ߋ", "ߍ", 2], ["", "ߛ", 1], [" ", "", 1]] == confusions(pairs)


def test_a_mark_is_shown_on_its_letter():
    """A mark alone cannot be read, and in a right-to-left line it would sit on its neighbour."""
    assert [["ߊ\u07eb", "ߊ", 1]] == confusions([("ߓߊ", "ߓߊ\u07eb")])


def test_confusions_are_cut_and_ties_have_an_order():
    """A page holds 20; which of equal ones are left out must not depend on the rows' order."""
    pairs = [("ߊ", letter) for letter in "ߐߏߎߍߌ"]

    assert [["ߌ", "ߊ", 1], ["ߍ", "ߊ", 1]] == confusions(pairs, most=2) == confusions(pairs[::-1], most=2)


def test_best_and_worst_are_those_of_the_proposals():
    """What the gate held back is worth seeing: the final text stands beside it."""
    rows = [
        prediction("ߓߊ", "ߓߊ", "", "ߓߋߌ"),  # 0 -> 2
        prediction("ߞߊ", "ߞߊ", "", "ߞ"),  # 0 -> 1
        prediction("ߛߊ", "ߛߎ", "", "ߛߎ"),  # 1 -> 0
        prediction("ߡߊ", "ߡߎ", "", "ߡߋ"),  # 1 -> 1: neither
    ]
    found = shown(rows)

    assert ["ߛߊ-ߛߎ"] == [each["id"] for each in found["best"]]
    assert ["ߓߊ-ߓߊ", "ߞߊ-ߞߊ"] == [each["id"] for each in found["worst"]]
    assert {
        "id": "ߛߊ-ߛߎ",
        "partition": "boundary",
        "asr_text": "ߛߊ",
        "reference_text": "ߛߎ",
        "adapter": "ߛߎ",
        "final": "ߛߊ",
        "edits_before": 1,
        "edits_after": 0,
    } == found["best"][0]


def test_five_rows_at_most_and_equal_ones_by_id():
    """A report is read, not searched; and it is the same each time."""
    rows = [prediction(f"ߊ{number}", f"ߊ{number}", "", "ߊ") for number in range(7)]

    assert [f"ߊ{number}-ߊ{number}" for number in range(5)] == [each["id"] for each in shown(rows[::-1])["worst"]]
