"""Which evidence may promote an adapter: real rows of the deployment's provenance, whatever a recipe says."""

import math

import pytest

from tests.helpers.promotions import DATASET, DONE, EVALUATION, RUN, changed, reasons
from thunder_train.config.evaluate import Promotion
from thunder_train.evaluate.promotion import decide

LENIENT = Promotion(min_rows=1, max_worse=10**9, needs_witness=False, provenance="")
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
def test_only_real_evidence_can_promote(kinds: list[str]):
    """A model that learnt to undo our own noise has shown nothing about a recogniser, whatever the recipe allows."""
    dataset = DATASET | {"evidence_kinds": kinds, "sources": []}
    found = reasons(dataset=dataset, limits=LENIENT)

    if set(kinds) == {"real"}:
        assert [] == found
    else:
        told = ", ".join(sorted(kinds)) or "unknown"
        assert [f"The evidence is {told}; only real evidence can promote an adapter."] == found


@pytest.mark.parametrize("kind", ["synthetic", "smoke", "oracle"])
def test_one_source_of_another_kind_cannot_hide(kind: str):
    """A manifest that calls itself real, and holds a source that is not, is not real."""
    dataset = changed(DATASET, "sources.0.evidence_kind", kind)

    assert [
        f"The evidence is {', '.join(sorted(['real', kind]))}; only real evidence can promote an adapter."
    ] == reasons(dataset=dataset, limits=LENIENT)


@pytest.mark.parametrize("kind", ["synthetic", "smoke", "oracle"])
@pytest.mark.parametrize("cer", [0.0, -1.0, -math.inf])
def test_no_score_buys_off_the_kind_of_evidence(kind: str, cer: float):
    """Not a perfect one, and not an impossible one."""
    evaluation = changed(EVALUATION, "conditions.1.cer", cer)

    assert "NO-GO" == decide(evaluation, DATASET | {"evidence_kinds": [kind]}, DONE, LENIENT, RUN)["decision"]


def test_a_recipe_cannot_say_which_evidence_counts():
    """The keys of [promotion] hold limits; the kind of evidence is not among them."""
    assert {"min_rows", "max_worse", "needs_witness", "provenance"} == set(Promotion.__dataclass_fields__)


@pytest.mark.parametrize(("given", "told"), [({"provenance": "studio"}, "studio"), ({"provenance": ""}, "unknown")])
def test_evidence_of_another_provenance_cannot_promote(given: dict[str, str], told: str):
    """A gain on studio speech is none on the radio."""
    limits = Promotion(min_rows=500, max_worse=0, needs_witness=True, provenance="radio")

    assert [] == reasons(limits=limits)
    assert [f"The provenance of the evidence is {told}; the deployment's is radio."] == reasons(
        dataset=DATASET | given, limits=limits
    )
