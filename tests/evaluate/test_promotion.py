"""Why an adapter may not be promoted, each reason as its exact sentence."""

import math
from typing import Any

import pytest

from tests.helpers.promotions import ABSENT, DATASET, DONE, EVALUATION, LIMITS, LOCK, RUN, SHA, changed, reasons
from thunder_train.config.evaluate import Promotion
from thunder_train.core import files
from thunder_train.evaluate.promotion import Run, decide


def test_an_adapter_that_holds_every_limit_goes():
    """GO is possible, else the rule would say nothing; it attaches what the users' promotion rule demands."""
    assert {
        "schema": "thunder.promotion/2",
        "decision": "GO",
        "reasons": [],
        "limits": {
            "condition": "adapter_gated",
            "evidence_kind": "real",
            "min_rows": 500,
            "max_worse": 0,
            "needs_witness": True,
            "provenance": "",
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
def test_each_limit_of_the_evaluation_has_its_sentence(place: str, value: Any, reason: str):
    """A reader must learn what to do next, not only that it failed; a number that is none proves nothing."""
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
def test_each_limit_of_the_training_has_its_sentence(place: str, value: Any, reason: str):
    """Data that silently failed to load is a known way to a useless adapter."""
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
def test_a_run_that_cannot_be_made_again_stays(run: Run, reason: str):
    """The users could not verify their best model again before its machine was gone."""
    assert [f"The run cannot be reproduced: {reason}."] == reasons(run=run)


def test_a_model_made_from_files_needs_no_commit():
    """Its files' hashes say which it is."""
    assert [] == reasons(run=Run("nko", RUN.run_id, RUN.dataset_sha256, {**LOCK, "kind": "path", "commit": ""}))


def test_the_built_in_gate_cannot_bear_witness():
    """It has no kernel: a recipe that deploys it must say that it needs no witness."""
    gate = {"kind": "builtin", "witnesses": {"valid": 0, "missing": 500, "malformed": 0}}
    evaluation = EVALUATION | {"gate": EVALUATION["gate"] | gate}
    waived = Promotion(min_rows=500, max_worse=0, needs_witness=False, provenance="")

    assert [
        "Decisions without a witness: 500, with a malformed one: 0, of 500; the built-in gate gives none."
    ] == reasons(evaluation)
    assert [] == reasons(evaluation, limits=waived)


def test_limits_can_be_set():
    """The thresholds of the release gate are the users' to choose."""
    evaluation = changed(changed(EVALUATION, "rows", {"test": 500, "scored": 500}), "conditions.1.worse", 2)
    limits = Promotion(min_rows=501, max_worse=2, needs_witness=True, provenance="")

    assert ["500 test rows were scored; the limit is 501."] == reasons(evaluation, limits=limits)


def test_two_lines_of_one_condition_prove_nothing():
    """The better one must not be the one that counts."""
    evaluation = changed(EVALUATION, "conditions.2.partition", "all")

    assert "The evaluation has no condition adapter_gated or baseline over all scored rows." in reasons(evaluation)


def test_nothing_known_is_no_go():
    """What the files do not say counts against the adapter: every limit complains, and none fails."""
    assert [
        "The evidence is unknown; only real evidence can promote an adapter.",
        "The adapter may be untrained: done.json records no training step or no trained parameter.",
        "Rows of train used in training: unknown; in the dataset: unknown.",
        "Rows of valid used in training: unknown; in the dataset: unknown.",
        "Training steps skipped because a number was not finite: unknown.",
        "0 test rows were scored; the limit is 500.",
        "The evaluation has no condition adapter_gated or baseline over all scored rows.",
        "The CER of adapter_gated or of the baseline is unknown.",
        "The change of CER has no 95 % interval.",
        "Rows made worse by adapter_gated: unknown; the limit is 0.",
        "The adapter was not checked for degenerate answers on all test rows.",
        "The gate decided on 0 of unknown test rows.",
        "Decisions without a witness: unknown, with a malformed one: unknown, of 0.",
        "The trained adapter is unknown, the evaluated one is unknown.",
        "The run cannot be reproduced: its environment lacks mlx, mlx_lm, platform, python.",
        "The run cannot be reproduced: it has no run id or no manifest of its dataset.",
        "The run cannot be reproduced: its base model is not locked.",
    ] == reasons({}, {}, {}, run=Run("nko", "", "", {}))


def places(facts: Any, path: str = "") -> list[str]:
    """Every key of nested tables, dotted."""
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
"""Facts that a decision tells, and does not rest on."""


@pytest.mark.parametrize("place", sorted({*places(EVALUATION)} - IGNORED))
def test_no_fact_of_an_evaluation_may_be_missing(place: str):
    """An older or a half-written file must not slip through for want of a number."""
    assert [] != reasons(changed(EVALUATION, place, ABSENT))
