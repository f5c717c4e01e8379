"""Character error rates, counted by hand."""

from typing import Any

import pytest

from thunder_train import files, scores
from thunder_train.scores import character_error_rate, edits, evaluate

LOSSES = {"base": {"valid": {"loss": 5.0}}, "adapter": {"valid": {"loss": 4.0}}, "environment": {"mlx": "0.32.4"}}


def prediction(asr: str, reference: str, base: str, adapter: str, partition: str = "boundary") -> dict[str, Any]:
    """One row of predictions.jsonl."""
    texts = {"asr_text": asr, "reference_text": reference, "base": base, "adapter": adapter}
    return {"id": f"{asr}-{reference}", "partition": partition} | texts


def test_errors_are_pooled_over_all_characters():
    """A one-letter answer cannot swing the score: errors are pooled, not averaged per answer."""
    pairs = [("ߊ", "ߋ"), ("ߊߋߌߍߎߏߐߓߔ", "ߊߋߌߍߎߏߐߓߔ")]

    assert 0.1 == character_error_rate(pairs)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [("ߊ ߓߐ", "ߊߓߐ", 1), ("ߓߊ", "ߓߊߣ", 1), ("ߞߏ", "ߞߋ", 1), ("", "ߞߋ", 2), ("ߞߋ", "", 2), ("ߞߋ", "ߞߋ", 0)],
)
def test_spaces_and_letters_count_one_edit_each(text: str, reference: str, expected: int):
    """The profile keeps spaces: words run together are errors like any other."""
    assert expected == edits(text, reference)


def test_marks_typed_in_another_order_are_no_error():
    """Tone before nasal mark is the same text as nasal before tone; NFC decides the order."""
    tone_first, nasal_first = "ߊ\u07eb\u07f2", "ߊ\u07f2\u07eb"

    assert 0 == edits(tone_first, nasal_first)


def test_no_reference_character_means_no_rate():
    """A rate over nothing is unknown, not zero."""
    assert character_error_rate([]) is None


def test_rate_can_exceed_one():
    """A rate is not clamped: runaway output must show."""
    assert 2.0 == character_error_rate([("ߊߋ", "ߌ")])


def test_conditions_table_by_hand():
    """The whole line of the adapter: 2 edits in 8 characters against 3, three rows changed, one each way."""
    rows = [
        prediction("ߊߋ", "ߊߌ", "ߊߋ", "ߊߌ"),  # 1 edit -> 0
        prediction("ߞߋ", "ߞߌ", "ߞߋ", "ߞߍ"),  # 1 -> 1
        prediction("ߓߊ", "ߓߊ", "ߓߊ", "ߓ"),  # 0 -> 1
        prediction("ߛߊ", "ߛߎ", "ߛߊ", "ߛߊ", "stable"),  # 1 -> 1, unchanged
    ]

    line = next(line for line in evaluate(rows, LOSSES)["conditions"] if line["condition"] == "adapter_blind")

    assert {
        "condition": "adapter_blind",
        "partition": "all",
        "n": 4,
        "cer": 3 / 8,
        "delta_pp": 0.0,
        "changed": 3,
        "better": 1,
        "same": 1,
        "worse": 1,
        "accept_rate": None,
        "false_accept_rate": None,
        "cer_low": None,
        "cer_high": None,
    } == line


def test_delta_is_in_percentage_points_of_cer():
    """From 2 edits in 4 characters to 1 is 25 points less."""
    rows = [prediction("ߊߊߊߊ", "ߊߊߋߋ", "ߊߊߊߊ", "ߊߊߊߋ")]

    lines = [line for line in evaluate(rows, LOSSES)["conditions"] if line["partition"] == "all"]
    deltas = {line["condition"]: line["delta_pp"] for line in lines}

    assert {"baseline": 0.0, "base_blind": 0.0, "adapter_blind": -25.0} == deltas


def test_every_condition_has_every_partition():
    """A gain on one partition must not hide a loss on another."""
    rows = [prediction("ߊ", "ߊ", "ߊ", "ߊ", "stable"), prediction("ߊ", "ߋ", "ߊ", "ߋ", "recovery")]

    lines = [(line["condition"], line["partition"], line["n"]) for line in evaluate(rows, LOSSES)["conditions"]]

    assert [
        (condition, partition, n)
        for condition in ("baseline", "base_blind", "adapter_blind")
        for partition, n in (("all", 2), ("recovery", 1), ("stable", 1))
    ] == lines


def test_rows_without_a_reference_are_told_not_scored():
    """A missing reference must not count as a perfect or an empty answer."""
    result = evaluate([prediction("ߊ", "ߋ", "ߊ", "ߊ"), prediction("ߞ", "", "ߞ", "ߞ")], LOSSES)

    assert ({"test": 2, "scored": 1}, 1) == (result["rows"], result["conditions"][0]["n"])


def test_no_test_rows_still_give_an_evaluation():
    """A dataset may have no test split; its losses are still worth a report, and no line is made of nothing."""
    result = evaluate([], LOSSES)

    assert [] == result["conditions"]
    assert ({"base", "adapter"}, {"mlx": "0.32.4"}) == (set(result["losses"]), result["environment"])


def test_profile_is_named_by_its_own_hash():
    """Two reports compare only if they count alike, and the hash tells."""
    profile = dict(evaluate([], LOSSES)["profile"])

    assert files.digest(scores.PROFILE) == profile.pop("sha256")
    assert scores.PROFILE == profile
