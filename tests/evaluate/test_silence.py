"""Rows in which nothing was said: what counts, and what the gate and the oracle make of an empty text."""

from typing import Any

import pytest

from tests.helpers import promotions
from tests.helpers.evaluations import LOSSES, prediction, settings
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.profiles import PROFILES
from thunder_train.evaluate.conditions import evaluate
from thunder_train.evaluate.gate import judge
from thunder_train.evaluate.silence import invented


def silent(asr: str, base: str, adapter: str, partition: str = "boundary") -> dict[str, Any]:
    """A row in which nothing was said."""
    return prediction(asr, "", base, adapter, partition) | {"silent": True, "id": f"silent {asr} {adapter}"}


ROWS = [
    prediction("ߓߊ", "ߓߊߓߊ", "ߓߊ", "ߓߊߓߊ"),  # 2 edits -> 0, of 4 code points
    prediction("", "ߛߊ", "", "ߛߊ"),  # the recogniser heard nothing: 2 -> 0, of 2
    silent("", "", ""),
    silent("", "ߡߊ ߡߊ", "ߡ"),  # 0 -> 1 invented letter
    silent("ߞߊߞߊ", "ߞߊߞߊ", ""),  # the recogniser invented 4 letters, the adapter takes them away
]


def scored(rows: list[dict[str, Any]], given: Evaluate | None = None) -> dict[str, Any]:
    """eval.json of predictions, with the built-in gate."""
    given = given or settings()
    return evaluate(rows, judge(rows, given.gate, "test"), LOSSES, given, "5" * 64)


def line(evaluation: dict[str, Any], condition: str) -> dict[str, Any]:
    """A condition over all rows."""
    lines = [each for each in evaluation["conditions"] if (each["condition"], each["partition"]) == (condition, "all")]
    assert 1 == len(lines)
    return lines[0]


def test_inventions_are_counted_for_each_condition() -> None:
    """
    A rate alone does not show that a model writes where nobody spoke.
    """
    silence = scored(ROWS)["silence"]

    assert 3 == silence["rows"]
    assert {
        "baseline": (1, 4),
        "base_blind": (2, 9),
        "adapter_blind": (1, 1),
        # The gate accepts no empty text, so the recogniser's invention stays; the adapter's own letter it accepts.
        "adapter_gated": (2, 5),
        "oracle_gated": (1, 2),
    } == {each["condition"]: (each["not_empty"], each["code_points"]) for each in silence["conditions"]}


def test_invented_letters_are_insertions_of_the_pooled_rate() -> None:
    """
    As in jiwer and sclite: edits of all rows over letters of all references. A model pays for what it invents.
    """
    evaluation = scored(ROWS)

    assert ({"test": 5, "scored": 5, "silent": 3}, (2 + 2 + 0 + 0 + 4) / 6) == (
        evaluation["rows"],
        line(evaluation, "baseline")["cer"],
    )
    assert 1 / 6 == line(evaluation, "adapter_blind")["cer"]


def test_jiwer_counts_the_same() -> None:
    """
    Its rate of rows with an empty reference among others is the pooled one.
    """
    jiwer = pytest.importorskip("jiwer")
    pairs = [(row["reference_text"], row["asr_text"]) for row in ROWS]

    expected = jiwer.cer([reference for reference, _ in pairs], [text for _, text in pairs])
    assert pytest.approx(expected) == line(scored(ROWS), "baseline")["cer"]


def test_an_invention_makes_its_row_worse() -> None:
    """
    Promotion allows max_worse such rows, by default none.
    """
    gated = line(scored([silent("", "", "ߡ")]), "adapter_gated")

    assert (1, 1, None) == (gated["changed"], gated["worse"], gated["cer"])
    evaluation = promotions.changed(promotions.EVALUATION, "conditions.1.worse", gated["worse"])
    assert "Rows made worse by adapter_gated: 1; the limit is 0." in promotions.reasons(evaluation)


def test_a_right_silence_is_no_degenerate_answer() -> None:
    """
    An adapter that writes nothing where nobody spoke has not collapsed; where somebody spoke it has.
    """
    right = scored([silent("", "", ""), silent("ߞߊ", "ߞߊ", "")])["probe"]["adapter"]
    wrong = scored([prediction("ߞߊ", "ߞߊ", "ߞߊ", "")])["probe"]["adapter"]

    assert (0, 0, 1) == (right["empty"], right["copied"], wrong["empty"])


def test_silence_made_of_control_tokens_is_degenerate() -> None:
    """
    Its text is empty because its padding was left out.
    """
    assert 1 == scored([silent("", "", "") | {"adapter_special": 3}])["probe"]["adapter"]["pad"]


def test_a_row_without_a_reference_is_not_silent() -> None:
    """
    Nobody knows what was said in it.
    """
    evaluation = scored([prediction("ߞ", "", "ߞ", "ߞ")])

    assert ({"test": 1, "scored": 0}, False) == (evaluation["rows"], "silence" in evaluation)
    assert {} == invented([prediction("ߞ", "", "ߞ", "ߞ")], {"baseline": ["ߞ"]})


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("floor", "left"), [(0, 4), (1, 3), (2, 2), (3, 1), (9, 1)])
def test_the_oracle_of_a_silent_row_keeps_a_letter(profile: str, floor: int, left: int) -> None:
    """
    The gate rejects empty texts, so the best text that it accepts has as few letters as the budget allows.
    """
    given = settings(gate={"floor": floor, "relative": 0.0}, profile=profile)
    silence = scored([silent("ߞߊߞߊ", "", "")], given)["silence"]

    assert ("oracle_gated", left) == tuple(silence["conditions"][-1][name] for name in ("condition", "code_points"))


@pytest.mark.parametrize("asr", ["", " ", "\u3000"])
def test_an_oracle_of_nothing_is_nothing(asr: str) -> None:
    """
    There is no letter to keep.
    """
    assert 0 == scored([silent(asr, "", "")])["silence"]["conditions"][-1]["not_empty"]
