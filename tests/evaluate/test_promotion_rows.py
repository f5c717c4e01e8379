"""Reasons that rest on rows, on other profiles, on limits below their floors, on looks, and on answers to a chat."""

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.evaluations import limits as probe
from tests.helpers.promotions import ABSENT, DATASET, DONE, EVALUATION, GATED, LIMITS, RUN, SHA, changed, reasons
from thunder_train.config.evaluate import Evaluate, Gate
from thunder_train.config.promotion import Promotion
from thunder_train.core import files
from thunder_train.evaluate.behind import Rows
from thunder_train.evaluate.promotion import decide

WITNESS = {"slice_id": "s", "graph_snapshot_hash": "g", "policy_hash": "p", "token": "0" * 32}


def decision(name: str, **given: Any) -> dict[str, Any]:
    """A line of decisions.jsonl: an accepted change, with a witness of its own."""
    witness = WITNESS | {"slice_id": name, "token": files.digest(name)[:32]}
    texts = {"hypothesis": "ab", "final": "ac", "verdict": "accept", "gate": "external"}
    return {"id": name, "partition": "boundary", "witness": witness, **texts, **given}


def row(name: str, reference: str = "ac", **given: Any) -> dict[str, Any]:
    """A line of predictions.jsonl."""
    ends = {"adapter_finish": "stop", "adapter_special": 0}
    texts = {"asr_text": "ab", "reference_text": reference, "base": "ab", "adapter": "ac"}
    return {"id": name, "group": name, "partition": "boundary", **texts, **ends, **given}


def behind(evaluation: dict[str, Any], rows: Rows, dataset: dict[str, Any] = DATASET) -> list[tuple[str, list[str]]]:
    """Each reason with its rows."""
    decided = decide(evaluation, dataset, DONE, LIMITS, RUN, None, rows)
    return [(each["text"], each["rows"]) for each in decided["reasons"]]


def test_rows_of_a_reason_are_named() -> None:
    """Who reads a reason wants to see the rows, and to correct them."""
    rows = Rows([row("good"), row("bad", "ab")], [decision("good"), decision("bad")])
    evaluation = changed(EVALUATION, "conditions.1.worse", 1)

    assert [("Rows made worse by adapter_gated: 1; the limit is 0.", ["bad"])] == behind(evaluation, rows)


def test_a_collapse_is_the_first_reason_and_names_its_rows() -> None:
    """Nothing else counts then."""
    sentence = "1 of 2 answers (1.3% to 98.7% of all) are empty; the limit is 5.0%"
    evaluation = changed(changed(EVALUATION, "probe.collapsed", [sentence]), "conditions.1.worse", 1)
    rows = Rows([row("good"), row("mute", adapter="")])

    assert [
        (f"The adapter has collapsed: {sentence}.", ["mute"]),
        ("Rows made worse by adapter_gated: 1; the limit is 0.", []),
    ] == behind(evaluation, rows)


def test_no_more_than_fifty_rows_are_named() -> None:
    """The file is committed."""
    decisions = [decision(str(number), partition="stable") for number in range(60)]

    ((text, ids),) = behind(EVALUATION, Rows((), decisions))
    assert ("Rows of partition stable or novelty that the gate changed: 60.", 50) == (text, len(ids))


@pytest.mark.parametrize("partition", ["stable", "Stable", "NOVELTY "])
def test_rows_that_must_stay_block_where_a_gate_changed_them(partition: str) -> None:
    """The recogniser was sure of a stable row; nobody can be of a novel one."""
    rows = Rows((), [decision("a", partition=partition), decision("b", partition=partition, final="ab")])

    assert [("Rows of partition stable or novelty that the gate changed: 1.", ["a"])] == behind(EVALUATION, rows)


def test_one_witness_for_many_slices_or_recordings_is_refused() -> None:
    """A token is made for one slice: whoever repeats it has asked no kernel."""
    token = {"token": "1" * 32}
    slices = Rows(
        (), [decision("a", witness=WITNESS | token), decision("b", witness=WITNESS | token | {"slice_id": "t"})]
    )
    shared = [decision("a", witness=WITNESS), decision("b", witness=WITNESS)]
    text = "Decisions whose witness is also that of another slice or recording: 2 of 500."

    assert [(text, ["a", "b"])] == behind(EVALUATION, slices)
    assert [(text, ["a", "b"])] == behind(EVALUATION, Rows([row("a"), row("b")], shared))
    assert [] == behind(EVALUATION, Rows([row("a", group="x"), row("b", group="x")], shared))


def test_rows_that_were_dropped_for_want_of_a_reference_are_lost_coverage() -> None:
    """The rows that nobody wrote down may be the hard ones; rows dropped for another reason are not lost."""
    dropped = {"prediction without a reference": 2, "empty target": 1, "duplicate": 9}
    lines = [{"id": "x", "reason": "empty target"}, {"id": "y", "reason": "duplicate"}]
    left = "those that are left may be the easy ones"
    what = f"3 rows of the dataset were dropped for want of a reference or a text: {left}."

    assert [(what, ["x"])] == behind(EVALUATION, Rows(dropped=lines), DATASET | {"dropped": dropped})


@pytest.mark.parametrize("pairs", [6, None])
def test_near_duplicates_of_train_and_test_block(pairs: int | None) -> None:
    """A model that has learned a sentence gives its twin, whatever was heard."""
    dataset = DATASET | {"near_duplicates_of_train_and_test": pairs}
    shown = "unknown" if pairs is None else "6"

    assert [f"Pairs of nearly equal texts in train and test: {shown}; the limit is 5."] == reasons(dataset=dataset)


def test_harm_under_any_pooled_profile_blocks() -> None:
    """A gain that turns into harm when words, or marks, are counted is none. A mean over rows is shown only."""
    evaluation = changed(EVALUATION, "profiles.1.cer.adapter_gated", 0.9)
    name, was = EVALUATION["profiles"][1]["name"], EVALUATION["profiles"][1]["cer"]["baseline"]

    assert [f"Under the profile {name}, the error rate rises from {was:.4f} to 0.9000."] == reasons(evaluation)
    assert [f"The error rate under the profile {name} is unknown."] == reasons(
        changed(EVALUATION, "profiles.1.cer.baseline", ABSENT)
    )


def test_rows_that_call_themselves_synthetic_are_named() -> None:
    """The rows know better than the table in thunder.toml."""
    assert 'Rows say themselves that their mode is synthetic; their source declares "real".' in reasons(
        dataset=DATASET | {"evidence_kinds": ["real", "synthetic"]}
    )


@pytest.mark.parametrize(
    ("limits", "settings", "key"),
    [
        (Promotion(min_rows=499), Evaluate(), "promotion.min_rows to 499; with one weaker than 500"),
        (Promotion(max_worse=1), Evaluate(), "promotion.max_worse to 1; with one weaker than 0"),
        (Promotion(max_near_duplicates=6), Evaluate(), "promotion.max_near_duplicates to 6; with one weaker than 5"),
        (Promotion(needs_witness=False), Evaluate(), "promotion.needs_witness to false; with one weaker than true"),
        (Promotion(), Evaluate(bootstrap=999), "evaluate.bootstrap to 999; with one weaker than 1000"),
        (Promotion(), Evaluate(probe=probe(empty=0.5)), "evaluate.probe.max_empty to 0.5; with one weaker than 0.05"),
    ],
)
def test_a_weaker_limit_is_relaxed_and_never_go(limits: Promotion, settings: Evaluate, key: str) -> None:
    """All else holds: the decision says by itself that it rests on a weaker limit."""
    decided = decide(EVALUATION, DATASET, DONE, limits, RUN, settings)

    assert ("RELAXED", [{"text": f"The recipe sets {key} there is no GO.", "rows": []}]) == (
        decided["decision"],
        decided["reasons"],
    )


def test_a_stricter_limit_is_no_reason() -> None:
    """Who asks for more is asked for no less."""
    strict = Promotion(min_rows=500, max_near_duplicates=5)

    assert (
        "GO"
        == decide(EVALUATION, DATASET, DONE, strict, RUN, Evaluate(bootstrap=9999, probe=probe(empty=0.0)))["decision"]
    )


@pytest.mark.parametrize(("look", "is_go"), [(1, True), (2, True), (40, False)])
def test_each_look_at_the_test_rows_widens_the_interval(look: int, is_go: bool) -> None:
    """A hundred adapters on the same rows find one that looks good by chance."""
    gated = {"delta_pp": -2.0, "delta_low": -3.0, "delta_high": -1.0}
    evaluation = changed(EVALUATION, "conditions.1", GATED | gated)
    decided = decide(evaluation, DATASET, DONE, LIMITS, replace(RUN, look=look))

    assert ("GO" if is_go else "NO-GO") == decided["decision"]
    assert (look, round(1 - 0.05 / look**2, 9)) == (decided["looks"]["count"], decided["looks"]["confidence"])
    if not is_go:
        low, high = decided["looks"]["low"], decided["looks"]["high"]
        level = "99.9969 % interval at look 40 at these test rows"
        what = f"The change of CER may be none: its {level} is {low:+.2f} to {high:+.2f} percentage points."
        assert [what] == [each["text"] for each in decided["reasons"]]


def test_rows_of_few_groups_give_no_interval_and_no_go() -> None:
    """Five hundred rows of one recording show nothing of the next one."""
    few = {"groups": 19, "too_few_groups": True, "delta_low": None, "delta_high": None}
    evaluation = changed(EVALUATION, "conditions.1", GATED | few)

    assert [
        "Groups of test rows (recordings, speakers): 19; fewer than 20 give no interval of the change of CER."
    ] == reasons(evaluation)


CHANGE = {"exact": 5.0, "exact_low": 1.0, "exact_high": 9.0, "cer": -3.0, "cer_low": -5.0, "cer_high": 1.0}
CHANGE |= {"wer": -3.0, "wer_low": -5.0, "wer_high": -1.0, "chrf": 4.0, "chrf_low": 2.0, "chrf_high": 6.0}
CHAT: dict[str, Any] = EVALUATION | {
    "rows": {"test": 500, "scored": 0, "chat": 500},
    "conditions": [],
    "profiles": [],
    "answers": {"rows": 500, "groups": 50, "scores": [], "change": CHANGE, "better": 300, "same": 0, "worse": 200},
    "gate": {"kind": "builtin", "accepted": 0, "rejected": 0, "witnesses": {"valid": 0, "missing": 0, "malformed": 0}},
}


def test_a_chat_is_compared_with_the_base_and_asks_for_no_gate() -> None:
    """No recogniser, so the base model's answers are the baseline; some rows may become worse."""
    decided = decide(CHAT, DATASET, DONE, Promotion(needs_witness=False), RUN)

    assert ("GO", []) == (decided["decision"], decided["reasons"])
    assert (2.0, 6.0) == (decided["looks"]["low"], decided["looks"]["high"])
    assert CHANGE == decided["attached"]["metrics"]["change"]


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("chrf_low", -0.5, "The change of chrF may be none: its 95 % interval is -0.50 to +6.00 points."),
        ("chrf_low", ABSENT, "The change of chrF has no 95 % interval."),
        ("cer_low", 0.5, "By cer, the answers are worse than the base's: -3.00 percentage points."),
        ("exact_high", -0.5, "By exact, the answers are worse than the base's: +5.00 percentage points."),
        ("wer", None, "The change of wer is unknown."),
    ],
)
def test_answers_must_be_nearer_to_the_expected_ones(place: str, value: Any, reason: str) -> None:
    """chrF must rise for sure, and no other score may be worse for sure."""
    assert [reason] == reasons(changed(CHAT, f"answers.change.{place}", value))


def test_answers_that_pass_no_declared_gate_are_no_go() -> None:
    """A recipe that declares a gate promises that what reaches a reader passes it."""
    gated = Evaluate(gate=Gate(command=("gate",)))

    assert ["The recipe declares a gate, and no answer to a chat passes it."] == reasons(CHAT, settings=gated)


def test_a_chat_of_few_rows_or_groups_is_no_go() -> None:
    """The same limits hold."""
    few = changed(changed(CHAT, "rows", {"test": 9, "scored": 0, "chat": 9}), "probe.adapter.rows", 9)
    few["answers"] |= {"rows": 9, "groups": 9, "too_few_groups": True}

    assert [
        "9 test rows were scored; the limit is 500.",
        "Groups of test rows (recordings, speakers): 9; fewer than 20 give no interval of the change of chrF.",
    ] == reasons(few)


def test_the_trained_adapter_must_be_the_one_that_answered_a_chat() -> None:
    """All that is no question of a gate holds for a chat, too."""
    other = f"The trained adapter is {SHA[:12]}, the evaluated one is 999999999999."

    assert [other] == reasons(changed(CHAT, "adapter_sha256", "9" * 64))
