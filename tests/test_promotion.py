"""Why an adapter may not be promoted, each reason as its exact sentence."""

from typing import Any

import pytest

from thunder_train.promotion import Limits, decide

DATASET: dict[str, Any] = {"evidence_kinds": ["real"], "splits": {"train": {"rows": 16}, "valid": {"rows": 4}}}
DONE: dict[str, Any] = {"rows": {"train": 16, "valid": 4}, "skipped_steps": 0}


def evaluation(
    condition: str = "adapter_gated", cer: float = 0.25, worse: int = 0, scored: int = 500
) -> dict[str, Any]:
    """An eval.json in which one condition beats a baseline of 0.31."""
    lines = [("baseline", 0.31, 0), (condition, cer, worse)]
    conditions = [{"condition": name, "partition": "all", "cer": rate, "worse": bad} for name, rate, bad in lines]
    return {"rows": {"test": 500, "scored": scored}, "conditions": conditions}


def test_an_adapter_that_holds_every_limit_goes():
    """GO is possible, else the rule would say nothing."""
    decision = decide(evaluation(), DATASET, DONE)

    assert {
        "schema": "thunder.promotion/1",
        "decision": "GO",
        "reasons": [],
        "limits": {"condition": "adapter_gated", "evidence_kind": "real", "min_rows": 500, "max_worse": 0},
    } == decision


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cer": 0.31}, "The CER of adapter_gated is 0.3100, not below the baseline's 0.3100."),
        ({"worse": 1}, "Rows made worse by adapter_gated: 1; the limit is 0."),
        ({"scored": 499}, "499 test rows were scored; the limit is 500."),
        ({"scored": 499}, "1 of 500 test rows have no reference."),
        (
            {"condition": "adapter_blind"},
            "No gate has judged the proposals: the evaluation has no condition adapter_gated.",
        ),
    ],
)
def test_each_broken_limit_has_its_sentence(given: dict[str, Any], reason: str):
    """A reader must learn what to do next, not only that it failed."""
    decision = decide(evaluation(**given), DATASET, DONE)

    assert "NO-GO" == decision["decision"]
    assert reason in decision["reasons"]


def test_synthetic_evidence_cannot_promote():
    """A model that learnt to undo our own noise has shown nothing about a recogniser."""
    decision = decide(evaluation(), DATASET | {"evidence_kinds": ["smoke", "synthetic"]}, DONE)

    assert ["The evidence is smoke, synthetic; only real evidence can promote an adapter."] == decision["reasons"]


def test_one_synthetic_source_among_real_ones_cannot_promote():
    """Mixed evidence is not real evidence."""
    decision = decide(evaluation(), DATASET | {"evidence_kinds": ["real", "synthetic"]}, DONE)

    assert "NO-GO" == decision["decision"]


def test_training_on_fewer_rows_than_the_dataset_has_is_told():
    """Data that silently failed to load is a known way to a useless adapter."""
    decision = decide(evaluation(), DATASET, {"rows": {"train": 15, "valid": 4}, "skipped_steps": 2})

    assert [
        "Rows of train used in training: 15; in the dataset: 16.",
        "Training steps skipped because a number was not finite: 2.",
    ] == decision["reasons"]


def test_nothing_known_is_no_go():
    """What the files do not say counts against the adapter."""
    decision = decide({}, {}, {})

    assert [
        "The evidence is unknown; only real evidence can promote an adapter.",
        "Rows of train used in training: unknown; in the dataset: unknown.",
    ] == decision["reasons"][:2]
    assert "NO-GO" == decision["decision"]


def test_limits_can_be_set():
    """The thresholds of the release gate are the users' to choose."""
    decision = decide(evaluation(scored=499, worse=2), DATASET, DONE, Limits(min_rows=100, max_worse=2))

    assert ["1 of 500 test rows have no reference."] == decision["reasons"]
