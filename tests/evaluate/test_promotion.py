"""The promotion decision: each reason against it as its exact sentence, and the kind of evidence."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.promotions import ABSENT, DATASET, DONE, EVALUATION, LIMITS, LOCK, RUN, SHA, changed, reasons
from thunder_train.config.promotion import Promotion
from thunder_train.core import files
from thunder_train.evaluate.promotion import Run, decide


def test_an_adapter_within_all_limits_is_promoted() -> None:
    """GO is possible, and the decision attaches what the users' promotion rule requires."""
    assert {
        "schema": "thunder.promotion/3",
        "decision": "GO",
        "reasons": [],
        "limits": {
            "condition": "adapter_gated",
            "evidence_kind": "real",
            "min_rows": 500,
            "max_worse": 0,
            "max_near_duplicates": 5,
            "needs_witness": True,
            "provenance": "",
        },
        "looks": {
            "count": 1,
            "test_sha256": files.digest("rows"),
            "confidence": 0.95,
            "low": -7.0,
            "high": -5.0,
        },
        "attached": {
            "run_id": "0123456789ab",
            "datasets": [{"name": "field-recordings", "sha256": files.digest("data")}],
            "metrics": {
                "condition": "adapter_gated",
                "baseline_cer": 0.31,
                "n": 500,
                "cer": 0.25,
                "cer_low": 0.23,
                "cer_high": 0.27,
                "delta_pp": -6.0,
                "delta_low": -7.0,
                "delta_high": -5.0,
                "changed": 300,
                "worse": 0,
                "profile": {"name": "cer-codepoint-nfc-pooled", "sha256": "5" * 64},
            },
            "reproduction": "./doit reproduce:nko",
        },
    } == decide(EVALUATION, DATASET, DONE, LIMITS, RUN)


def test_an_adapter_behind_which_are_other_rows_is_not_promoted() -> None:
    """A test row may be a training row of the adapter that the training began with."""
    decision = decide(EVALUATION, DATASET, DONE, LIMITS, replace(RUN, has_known_rows=False))

    text = "The training began with an adapter of other or unknown rows: test rows may be among them."
    assert [{"text": text, "rows": []}] == decision["reasons"]


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("conditions.1.cer", 0.31, "The CER of adapter_gated is 0.3100, not below the baseline's 0.3100."),
        ("conditions.1.cer", math.nan, "The CER of adapter_gated or of the baseline is unknown."),
        ("conditions.1.cer", -math.inf, "The CER of adapter_gated or of the baseline is unknown."),
        ("conditions.1.cer", None, "The CER of adapter_gated or of the baseline is unknown."),
        ("conditions.1.cer", True, "The CER of adapter_gated or of the baseline is unknown."),
        ("conditions.0.cer", "0.31", "The CER of adapter_gated or of the baseline is unknown."),
        (
            "conditions.1.delta_high",
            0.0,
            "The change of CER may be none: its 95 % interval is -7.00 to +0.00 percentage points.",
        ),
        (
            "conditions.1.delta_high",
            math.nan,
            "The change of CER has no 95 % interval.",
        ),
        ("conditions.1.delta_high", ABSENT, "The change of CER has no 95 % interval."),
        ("conditions.1.worse", 1, "Rows made worse by adapter_gated: 1; the limit is 0."),
        ("conditions.1.worse", -1, "Rows made worse by adapter_gated: unknown; the limit is 0."),
        ("conditions.1.n", 499, "The evaluation has no condition adapter_gated or baseline over all scored rows."),
        (
            "conditions.1.condition",
            "adapter_blind",
            "The evaluation has no condition adapter_gated or baseline over all scored rows.",
        ),
        ("rows.scored", 499, "499 test rows were scored; the limit is 500."),
        ("rows.scored", 499, "1 of 500 test rows have no reference."),
        ("probe", {}, "The adapter was not checked for degenerate answers on all test rows."),
        ("probe.adapter.rows", 20, "The adapter was not checked for degenerate answers on all test rows."),
        (
            "probe.collapsed",
            ["30 of 500 answers (6.0%) are empty; the limit is 5.0%"],
            "The adapter has collapsed: 30 of 500 answers (6.0%) are empty; the limit is 5.0%.",
        ),
        ("gate.rejected", 0, "The gate decided on 300 of 500 test rows."),
        (
            "gate.witnesses",
            {"valid": 485, "missing": 12, "malformed": 3},
            "Decisions without a witness: 12, with a malformed one: 3, of 500.",
        ),
        (
            "adapter_sha256",
            "9" * 64,
            f"The trained adapter is {SHA[:12]}, the evaluated one is 999999999999.",
        ),
        ("adapter_sha256", "", f"The trained adapter is {SHA[:12]}, the evaluated one is unknown."),
    ],
)
def test_each_limit_of_the_evaluation_has_its_sentence(place: str, value: Any, reason: str) -> None:
    """A reader must learn what to do next; a value that is no finite number counts as unknown."""
    assert reason in reasons(changed(EVALUATION, place, value))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (
            "steps",
            0,
            "The adapter may be untrained: done.json records no training step or no trained parameter.",
        ),
        (
            "trainable_parameters",
            ABSENT,
            "The adapter may be untrained: done.json records no training step or no trained parameter.",
        ),
        ("rows.train", 17, "Rows of train used in training: 15; in the dataset: 16."),
        ("rows", {}, "Rows of valid used in training: unknown; in the dataset: 4."),
        ("skipped_steps", 2, "Training steps skipped because a number was not finite: 2."),
        ("skipped_steps", ABSENT, "Training steps skipped because a number was not finite: unknown."),
        (
            "adapter",
            {},
            f"The trained adapter is unknown, the evaluated one is {SHA[:12]}.",
        ),
        (
            "environment",
            {},
            "The run cannot be reproduced: its environment lacks mlx, mlx_lm, platform, python.",
        ),
        ("environment.mlx", "", "The run cannot be reproduced: its environment lacks mlx."),
    ],
)
def test_each_limit_of_the_training_has_its_sentence(place: str, value: Any, reason: str) -> None:
    """Data that silently failed to load is a known cause of useless adapters."""
    assert reason in reasons(done=changed(DONE, place, value))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (Run("nko", "", RUN.dataset_sha256, LOCK), "it has no run id or no manifest of its dataset"),
        (Run("nko", RUN.run_id, "", LOCK), "it has no run id or no manifest of its dataset"),
        (Run("nko", RUN.run_id, RUN.dataset_sha256, {}), "its base model is not locked"),
        (Run("nko", RUN.run_id, RUN.dataset_sha256, LOCK | {"commit": ""}), "its base model is not locked"),
        (Run("nko", RUN.run_id, RUN.dataset_sha256, LOCK | {"files": [{}]}), "its base model is not locked"),
    ],
)
def test_a_run_that_cannot_be_reproduced_is_not_promoted(run: Run, reason: str) -> None:
    """The users lost a machine before they could verify its model, their best one, again."""
    assert [f"The run cannot be reproduced: {reason}."] == reasons(run=run)


def test_a_model_from_local_files_needs_no_commit() -> None:
    """The hashes of its files identify it."""
    assert [] == reasons(run=Run("nko", RUN.run_id, RUN.dataset_sha256, {**LOCK, "kind": "path", "commit": ""}))


def test_the_built_in_gate_gives_no_witness() -> None:
    """It has no kernel: a recipe that promotes behind it must set needs_witness to false."""
    gate = {"kind": "builtin", "witnesses": {"valid": 0, "missing": 500, "malformed": 0}}
    evaluation = EVALUATION | {"gate": EVALUATION["gate"] | gate}
    waived = Promotion(needs_witness=False)

    assert [
        "Decisions without a witness: 500, with a malformed one: 0, of 500; the built-in gate gives none."
    ] == reasons(evaluation)
    assert "RELAXED" == decide(evaluation, DATASET, DONE, waived, RUN)["decision"]


def test_limits_can_be_set() -> None:
    """Recipes choose the thresholds."""
    evaluation = changed(changed(EVALUATION, "rows", {"test": 500, "scored": 500}), "conditions.1.worse", 2)
    limits = Promotion(min_rows=501, max_worse=2, needs_witness=True, provenance="")

    assert ["500 test rows were scored; the limit is 501."] == reasons(evaluation, limits=limits)


def test_a_repeated_line_of_a_condition_is_not_used() -> None:
    """Neither of them may be chosen."""
    evaluation = changed(EVALUATION, "conditions.2.partition", "all")

    assert "The evaluation has no condition adapter_gated or baseline over all scored rows." in reasons(evaluation)


def test_empty_files_are_no_go() -> None:
    """Missing values count against the adapter: every limit gives a reason, and none raises an error."""
    assert [
        "The adapter was not checked for degenerate answers on all test rows.",
        "The evidence is unknown; only real evidence can promote an adapter.",
        "The provenance of the evidence is not declared; set provenance in [datasets.NAME].",
        "Pairs of nearly equal texts in train and test: unknown; the limit is 5.",
        "The adapter may be untrained: done.json records no training step or no trained parameter.",
        "Rows of train used in training: unknown; in the dataset: unknown.",
        "Rows of valid used in training: unknown; in the dataset: unknown.",
        "Training steps skipped because a number was not finite: unknown.",
        "0 test rows were scored; the limit is 500.",
        "The evaluation has no condition adapter_gated or baseline over all scored rows.",
        "The CER of adapter_gated or of the baseline is unknown.",
        "The change of CER has no 95 % interval.",
        "Rows made worse by adapter_gated: unknown; the limit is 0.",
        "The evaluation has no error rates under other profiles.",
        "The gate decided on 0 of unknown test rows.",
        "Decisions without a witness: unknown, with a malformed one: unknown, of 0.",
        "The trained adapter is unknown, the evaluated one is unknown.",
        "The run cannot be reproduced: its environment lacks mlx, mlx_lm, platform, python.",
        "The run cannot be reproduced: it has no run id or no manifest of its dataset.",
        "The run cannot be reproduced: its base model is not locked.",
    ] == reasons({}, {}, {}, run=Run("nko", "", "", {}))


def places(facts: Any, path: str = "") -> list[str]:
    """Dotted keys of nested tables."""
    if not isinstance(facts, dict):
        return []
    return [place for key, inner in facts.items() for place in (f"{path}{key}", *places(inner, f"{path}{key}."))]


IGNORED = {
    "profile",
    "profile.name",
    "profile.sha256",
    "gate.kind",
    "gate.witnesses.missing",
    "gate.witnesses.malformed",
}
"""Facts that a decision shows but does not depend on."""


@pytest.mark.parametrize("place", sorted({*places(EVALUATION)} - IGNORED))
def test_no_fact_of_an_evaluation_may_be_missing(place: str) -> None:
    """An older or incomplete file must not be promoted because a number is missing."""
    assert [] != reasons(changed(EVALUATION, place, ABSENT))


LENIENT = Promotion(min_rows=1, max_worse=10**9, needs_witness=False, provenance="", max_near_duplicates=10**9)
"""The weakest limits that a recipe can set."""


@pytest.mark.parametrize(
    "kinds",
    [
        ["synthetic"],
        ["smoke"],
        ["oracle"],
        ["real", "synthetic"],
        ["oracle", "real"],
        ["Real"],
        ["REAL "],
        [],
        ["real", "real"],
    ],
    ids=repr,
)
def test_only_real_evidence_can_promote(kinds: list[str]) -> None:
    """A model that learnt to undo synthetic noise shows nothing about a recogniser, whatever the recipe allows."""
    dataset = DATASET | {"evidence_kinds": kinds, "sources": []}
    against = reasons(dataset=dataset, limits=LENIENT)

    if set(kinds) == {"real"}:
        assert [] == against
    else:
        evidence = ", ".join(sorted(kinds)) or "unknown"
        assert [f"The evidence is {evidence}; only real evidence can promote an adapter."] == against


@pytest.mark.parametrize("kind", ["synthetic", "smoke", "oracle"])
def test_one_source_of_another_kind_cannot_hide(kind: str) -> None:
    """A dataset that declares real evidence but has another source is not real."""
    dataset = changed(DATASET, "sources.0.evidence_kind", kind)

    assert [
        f"The evidence is {', '.join(sorted(['real', kind]))}; only real evidence can promote an adapter."
    ] == reasons(dataset=dataset, limits=LENIENT)


@pytest.mark.parametrize("kind", ["synthetic", "smoke", "oracle"])
@pytest.mark.parametrize("cer", [0.0, -1.0, -math.inf])
def test_no_score_outweighs_the_kind_of_evidence(kind: str, cer: float) -> None:
    """Neither a perfect score nor an impossible one."""
    evaluation = changed(EVALUATION, "conditions.1.cer", cer)

    assert "NO-GO" == decide(evaluation, DATASET | {"evidence_kinds": [kind]}, DONE, LENIENT, RUN)["decision"]


def test_a_recipe_cannot_choose_which_evidence_counts() -> None:
    """[promotion] has no key for the kind of evidence."""
    assert {"min_rows", "max_worse", "max_near_duplicates", "needs_witness", "provenance"} == set(
        Promotion.__dataclass_fields__
    )


def test_evidence_of_another_provenance_cannot_promote() -> None:
    """A gain on studio speech does not show a gain on radio speech."""
    limits = Promotion(provenance="radio")

    assert [] == reasons(limits=limits)
    assert ["The provenance of the evidence is studio; the deployment's is radio."] == reasons(
        dataset=DATASET | {"provenance": "studio"}, limits=limits
    )


def test_the_provenance_must_be_declared() -> None:
    """Rows that come from nowhere show nothing about anywhere."""
    assert ["The provenance of the evidence is not declared; set provenance in [datasets.NAME]."] == reasons(
        dataset=DATASET | {"provenance": ""}
    )


def unscored(**rows: int) -> list[str]:
    """The reasons against a run whose evaluation scored no row. rows: of its test split, by kind."""
    evaluation = changed(EVALUATION, "rows", {"scored": 0, **rows})
    evaluation["conditions"], asked = [], rows["test"] - rows.get("text", 0)
    evaluation["probe"]["adapter"]["rows"] = asked
    judged = asked - rows.get("chat", 0)
    evaluation["gate"] |= {"accepted": 0, "rejected": judged, "witnesses": {"valid": judged}}
    return reasons(evaluation)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ({"test": 0}, "the dataset has none"),
        ({"test": 6}, "all 6 are rows without a reference"),
        ({"test": 6, "chat": 6}, "all 6 are answers to a chat"),
        ({"test": 6, "text": 6}, "all 6 are plain text"),
        ({"test": 6, "text": 2, "chat": 3}, "all 6 are answers to a chat or plain text or rows without a reference"),
    ],
)
def test_without_a_scored_row_one_reason_says_why(rows: dict[str, int], why: str) -> None:
    """A dataset may have test = 0, or rows that have no error rate: six unknown figures would hide it."""
    assert [f"No test row was scored: {why}."] == unscored(**rows)


def test_unstated_evidence_is_never_enough() -> None:
    """Who declares nothing has promised nothing; the reason says where to declare it."""
    dataset = changed(DATASET, "sources.0.evidence_kind", "unstated") | {"evidence_kinds": ["unstated"]}

    assert [
        "The evidence is unstated; only real evidence can promote an adapter.",
        'A source does not state its evidence; if people checked it, set evidence_kind = "real" there.',
    ] == reasons(dataset=dataset)
