"""Telemetry: what prompts and gates may see of it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from thunder_train.data.telemetry import HYPOTHESIS_SIDE, Allowed, knows_reference


def visible(
    telemetry: dict[str, Any], *declared: str, hidden: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, int]]:
    unused: Counter[str] = Counter()
    return Allowed(declared, hidden).visible(telemetry, unused), dict(unused)


@pytest.mark.parametrize(
    "name",
    ["wer", "cer", "cer_edits", "WER", "edits", "edits_before", "edit_distance", "num_edits", "is_correct", "isCorrect",
     "correct", "reference", "reference_text", "ref", "ref_len", "refs", "ground_truth", "truth", "gold", "oracle_cer"],
)  # fmt: skip
def test_names_of_measures_against_a_reference_are_known(name: str) -> None:
    """No declaration lets them through: a prompt that shows how wrong a text is leaks the answer."""
    assert knows_reference(name)
    assert ({}, {f"telemetry.{name}": 1}) == visible({name: 1}, name)


@pytest.mark.parametrize(
    "name",
    ["ctc_confidence", "velocity", "am_score", "duration", "refinement", "corrected", "certainty", "predicted_wer"],
)
def test_other_names_are_no_measures_against_a_reference(name: str) -> None:
    """A list that is too wide would forbid what the recogniser knows by itself."""
    assert not knows_reference(name)


def test_names_of_the_row_contract_pass_and_others_are_counted() -> None:
    """A list of forbidden names is never complete, so one of allowed names decides."""
    telemetry = {"ctc_confidence": 0.5, "am_score": [-1.5], "mood": 3}

    assert ({"ctc_confidence": 0.5, "am_score": [-1.5]}, {"telemetry.mood": 1}) == visible(telemetry)
    assert (telemetry, {}) == visible(telemetry, "mood")
    assert ({"mood": 3}, {"telemetry.ctc_confidence": 1, "telemetry.am_score": 1}) == visible(
        telemetry, "mood", hidden=("ctc_confidence", "am_score")
    )


def test_members_are_allowed_at_any_depth() -> None:
    """What is declared counts for all below it, but for measures against the reference."""
    telemetry = {
        "lattice": {"score": 1, "wer": 2, "deep": {"x": 3}},
        "other": {"jerk": 4, "y": 5},
        "spans": [{"ref": 6}],
    }

    assert (
        {"lattice": {"score": 1, "deep": {"x": 3}}, "other": {"jerk": 4}},
        {"telemetry.lattice.wer": 1, "telemetry.other.y": 1, "telemetry.spans": 1},
    ) == visible(telemetry, "lattice")
    assert ({"lattice": {"deep": {"x": 3}}, "other": {"jerk": 4}, "spans": [{}]}) == visible(
        telemetry, "lattice.deep", "spans"
    )[0]


def test_a_template_may_be_asked_for_before_there_is_a_row() -> None:
    """A name that no row will show is a mistake of the template."""
    allowed = Allowed(["lattice.deep"], ["jerk"])

    assert [True, True, True, False, False, False] == [
        *map(allowed.allows, ("velocity", "lattice", "lattice.deep.x", "jerk", "lattice.wer", "mood"))
    ]


def test_the_page_lists_all_names_that_are_allowed() -> None:
    """Users look there for a name that needs no declaration."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")

    assert HYPOTHESIS_SIDE == {*page.partition("knows by itself:")[2].partition("and those")[0].split()}
