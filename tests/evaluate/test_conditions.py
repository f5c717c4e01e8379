"""eval.json: the table of conditions counted by hand, confusions, and example rows."""

from dataclasses import fields
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers.evaluations import LOSSES, prediction, settings
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.profiles import PROFILES, Profile
from thunder_train.core import files
from thunder_train.evaluate.conditions import confusions, evaluate
from thunder_train.evaluate.error_rates import described
from thunder_train.evaluate.gate import Judged, judge

ROWS = [
    prediction("ߊߋ", "ߊߌ", "ߊߋ", "ߊߌ"),  # 1 edit -> 0
    prediction("ߞߋ", "ߞߌ", "ߞߋ", "ߞߍ"),  # 1 -> 1
    prediction("ߓߊ", "ߓߊ", "ߓߊ", "ߓ"),  # 0 -> 1
    prediction("ߛߊ", "ߛߎ", "ߛߎ", "ߛߎ", "stable"),  # 1 -> 0, but the gate leaves stable rows alone
    prediction("ߡߊߡߊ", "ߡߏߡߏߡߏ", "ߡߊߡߊ", "ߡߏߡߏߡߏ", "recovery"),  # 4 -> 0, and 4 edits are over the budget of 2
]
"""14 code points of reference; the baseline has 7 edits."""


TEXTS = st.text(alphabet="ߊߓߞ ", max_size=8)


def scored(rows: list[dict[str, Any]], given: Evaluate | None = None) -> dict[str, Any]:
    """eval.json of predictions, with the built-in gate."""
    given = given or settings()
    return evaluate(rows, judge(rows, given.gate, "test"), LOSSES, given, "5" * 64)


def line(evaluation: dict[str, Any], condition: str, partition: str = "all") -> dict[str, Any]:
    """A line of the table, without its intervals."""
    lines = [
        each for each in evaluation["conditions"] if (condition, partition) == (each["condition"], each["partition"])
    ]
    assert 1 == len(lines)
    return {name: value for name, value in lines[0].items() if not name.endswith(("_low", "_high"))}


@pytest.mark.parametrize(
    ("condition", "kinds", "moves", "rates"),
    [
        ("baseline", (5, 2, 0), (0, 0, 0, 0), (None, None)),
        ("base_blind", (4, 2, 0), (1, 1, 0, 0), (None, None)),
        ("adapter_blind", (1, 1, 0), (5, 3, 1, 1), (None, None)),
        ("adapter_gated", (4, 3, 0), (3, 1, 1, 1), (3 / 5, 1 / 3)),
        ("oracle_gated", (2, 1, 0), (3, 3, 0, 0), (3 / 5, 0.0)),
    ],
)
def test_conditions_table_by_hand(
    condition: str, kinds: tuple[int, ...], moves: tuple[int, ...], rates: tuple[float | None, float | None]
) -> None:
    """Every column: the gate accepts 3 of 5 proposals, and one of these makes its row worse."""
    assert {
        "condition": condition,
        "partition": "all",
        "n": 5,
        "groups": 5,
        "too_few_groups": True,
        "cer": sum(kinds) / 14,
        "delta_pp": 100 * (sum(kinds) - 7) / 14,
        "sub": kinds[0],
        "del": kinds[1],
        "ins": kinds[2],
        "changed": moves[0],
        "better": moves[1],
        "same": moves[2],
        "worse": moves[3],
        "accept_rate": rates[0],
        "false_accept_rate": rates[1],
    } == line(scored(ROWS), condition)


def test_each_partition_has_its_own_lines() -> None:
    """A gain on one partition must not hide a loss on another."""
    evaluation = scored(ROWS)

    assert (0.0, 0.5) == (
        line(evaluation, "adapter_blind", "stable")["cer"],
        line(evaluation, "adapter_gated", "stable")["cer"],
    )
    assert [
        (condition, partition)
        for condition in ("baseline", "base_blind", "adapter_blind", "adapter_gated", "oracle_gated")
        for partition in ("all", "boundary", "recovery", "stable")
    ] == [(each["condition"], each["partition"]) for each in evaluation["conditions"]]


def test_every_line_has_intervals_around_its_figures() -> None:
    """A rate without its interval looks more certain than it is; the baseline does not differ from itself."""
    rows = [row | {"id": f"{copy}{row['id']}", "group": str(copy)} for row in ROWS for copy in range(20)]
    lines = scored(rows)["conditions"]

    for each in lines:
        assert 20 == each["groups"]
        assert each["cer_low"] - 1e-6 <= each["cer"] <= each["cer_high"] + 1e-6  # ends are rounded
        assert each["delta_low"] - 1e-6 <= each["delta_pp"] <= each["delta_high"] + 1e-6
    assert [(0.0, 0.0)] == [
        (each["delta_low"], each["delta_high"]) for each in lines if each["condition"] == "baseline"
    ][:1]


def test_rows_of_few_groups_have_no_interval() -> None:
    """A hundred rows of one recording show how that recording varies, and nothing of the next."""
    rows = [row | {"id": f"{copy}{row['id']}", "group": "one"} for row in ROWS for copy in range(20)]
    first = scored(rows)["conditions"][0]

    assert (100, 1, True, None, None) == tuple(
        first[name] for name in ("n", "groups", "too_few_groups", "cer_low", "delta_high")
    )


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip), TEXTS), min_size=1, max_size=5))
@hypothesis.example([("", "  ߊ", "ߊ")])
@hypothesis.example([("ߊߋ", "  ߓߔ", "ߓߋ")])
def test_no_gated_text_is_better_than_that_of_the_oracle(texts: list[tuple[str, str, str]]) -> None:
    """The oracle is an upper bound behind this gate: no answer within the budget is nearer to the reference."""
    rows = [
        prediction(asr, reference, "", adapter) | {"id": str(number)}
        for number, (asr, reference, adapter) in enumerate(texts)
    ]
    evaluation = scored(rows)
    baseline, gated, oracle = (line(evaluation, name)["cer"] for name in ("baseline", "adapter_gated", "oracle_gated"))

    assert oracle <= min(baseline, gated)


def test_oracle_takes_the_better_of_what_an_external_gate_accepted() -> None:
    """An external gate is not asked about texts that no model proposed: its verdicts limit the oracle."""
    verdicts = ("accept", "reject", "accept", "accept", "accept")
    decisions = [
        {
            "id": row["id"],
            "verdict": verdict,
            "reason": "because",
            "witness": None,
            "final": row["adapter" if verdict == "accept" else "asr_text"],
        }
        for row, verdict in zip(ROWS, verdicts, strict=True)
    ]
    judged = Judged({"gate": {"kind": "external"}, "policy_sha256": "5" * 64}, decisions)

    evaluation = evaluate(ROWS, judged, LOSSES, settings(gate={"command": ("cc-agp-bridge",)}))

    gated, oracle = (line(evaluation, name) for name in ("adapter_gated", "oracle_gated"))
    assert (2 / 14, 4 / 5, 1 / 4) == (gated["cer"], gated["accept_rate"], gated["false_accept_rate"])
    assert (1 / 14, 3 / 5, 0.0) == (oracle["cer"], oracle["accept_rate"], oracle["false_accept_rate"])


def test_the_profile_of_the_recipe_decides() -> None:
    """Counted in words, each of the five rows has an error before; better and worse are counted in words, too."""
    blind = line(scored(ROWS, settings(profile="wer-nfc-pooled")), "adapter_blind")

    assert (2 / 5, 3, 1, 1) == tuple(blind[name] for name in ("cer", "better", "same", "worse"))


def test_a_per_row_profile_averages_the_rates_of_the_rows() -> None:
    """5 rows: 0, 1/2, 1/2, 0, 0."""
    evaluation = scored(ROWS, settings(profile="cer-codepoint-raw-clamped-per-row"))

    assert (1 / 5, "per row") == (line(evaluation, "adapter_blind")["cer"], evaluation["profile"]["average"])


def test_every_profile_is_reported_beside_the_one_that_decides() -> None:
    """A number of another definition can be compared here with one of the same name and hash."""
    evaluation = scored(ROWS)

    rates = {each["name"]: each["cer"]["adapter_blind"] for each in evaluation["profiles"]}
    assert list(PROFILES) == list(rates)
    assert (2 / 14, 2 / 5) == (rates["cer-codepoint-nfc-pooled"], rates["wer-nfc-pooled"])
    assert described(PROFILES["cer-codepoint-nfc-pooled"]) == evaluation["profile"]
    assert files.is_sha256(evaluation["profile"]["sha256"])


def test_a_profile_of_the_users_is_reported_and_may_decide() -> None:
    """Scores of somebody else's definition are comparable without a change of this program."""
    keys = {key.name: key.default for key in fields(Profile) if key.metadata} | {"unit": "word", "marks": "stripped"}
    evaluation = scored(ROWS, settings(profile="mine", profiles={"mine": keys}))

    mine = evaluation["profiles"][-1]
    assert [*PROFILES, "mine"] == [each["name"] for each in evaluation["profiles"]]
    assert described(Profile(name="mine", unit="word", marks="stripped")) == evaluation["profile"]
    assert (line(evaluation, "adapter_blind")["cer"], 2 / 5) == (
        mine["cer"]["adapter_blind"],
        mine["cer"]["adapter_blind"],
    )
    assert {"sub": 2, "del": 0, "ins": 0} == mine["edits"]["adapter_blind"]


def test_rows_without_a_reference_are_counted_not_scored() -> None:
    """A missing or blank reference must not count as a perfect or an empty answer; the gate and the probe see them."""
    rows = [prediction("ߊ", "ߋ", "ߊ", "ߊ"), prediction("ߞ", "", "ߞ", "ߞ"), prediction("ߓ", " ", "ߓ", "ߓ")]
    evaluation = scored(rows)

    assert ({"test": 3, "scored": 1}, 1) == (evaluation["rows"], line(evaluation, "baseline")["n"])
    assert (3, 3) == (evaluation["probe"]["adapter"]["rows"], evaluation["gate"]["rejected"])


def test_no_test_rows_still_give_an_evaluation() -> None:
    """A dataset may have no test split; its losses are reported, and there are no lines of conditions."""
    evaluation = scored([])

    assert ([], []) == (evaluation["conditions"], evaluation["confusions"])
    assert ({"base", "adapter"}, {"mlx": "0.32.4"}) == (set(evaluation["losses"]), evaluation["environment"])


def test_the_gate_is_reported_with_its_reasons() -> None:
    """The reasons for rejections show what to train next."""
    gate = scored(ROWS)["gate"]

    assert ("builtin", 3, 2) == (gate["kind"], gate["accepted"], gate["rejected"])
    assert {
        "within the edit budget": 3,
        "over the edit budget": 1,
        "partition stable is left unchanged": 1,
    } == gate["reasons"]
    assert {"valid": 0, "missing": 5, "malformed": 0} == gate["witnesses"]


def test_the_adapter_is_named_by_its_hash() -> None:
    """Promotion compares it with the one that was trained."""
    assert "5" * 64 == scored(ROWS)["adapter_sha256"]


def test_an_evaluation_is_the_same_to_the_byte() -> None:
    """The manifest hashes eval.json: it may not depend on the time or on the order of rows."""
    assert files.canonical(scored(ROWS)) == files.canonical(scored(ROWS))
    assert scored(ROWS)["confusions"] == scored(ROWS[::-1])["confusions"]


def test_confusions_are_counted_from_the_reference_to_the_text() -> None:
    """The most frequent first; "" for a letter that one side lacks."""
    pairs = [("ߞߍ", "ߞߋ"), ("ߓߍ", "ߓߋ"), ("ߊߓ", "ߊ ߓ"), ("ߛߛ", "ߛ")]

    assert [["ߋ", "ߍ", 2], ["", "ߛ", 1], [" ", "", 1]] == confusions(pairs)


def test_a_mark_is_shown_on_its_letter() -> None:
    """A mark alone is unreadable, and in a right-to-left line it would combine with its neighbour."""
    assert [["ߊ\u07eb", "ߊ", 1]] == confusions([("ߓߊ", "ߓߊ\u07eb")])


def test_confusions_are_cut_and_ties_have_an_order() -> None:
    """A page shows 20; which of equally frequent ones it omits must not depend on the order of rows."""
    pairs = [("ߊ", letter) for letter in "ߐߏߎߍߌ"]

    assert [["ߌ", "ߊ", 1], ["ߍ", "ߊ", 1]] == confusions(pairs, most=2) == confusions(pairs[::-1], most=2)


def spaced(asr: str = " ߊ", base: str = "ߊ", adapter: str = "ߊ") -> dict[str, Any]:
    """A prediction whose texts had blanks around them, as the worker writes it."""
    raw = {
        name: text for name, text in {"asr_text": asr, "base": base, "adapter": adapter}.items() if text.strip() != text
    }
    return prediction(asr.strip(), "ߊ", base.strip(), adapter.strip()) | {"raw": raw}


def test_blanks_around_a_text_are_no_edits() -> None:
    """An adapter that only strips Whisper's leading blank has repaired nothing, and the gate has nothing to accept."""
    evaluation = scored([spaced()])

    assert (0.0, 0.0) == (line(evaluation, "baseline")["cer"], line(evaluation, "adapter_gated")["cer"])
    assert (0, {"nothing to change": 1}) == (
        line(evaluation, "adapter_blind")["changed"],
        evaluation["gate"]["reasons"],
    )


def test_raw_profiles_count_the_texts_as_they_came() -> None:
    """Raw is raw: a blank before the hypothesis is an edit, and so is one before an answer."""
    evaluation = scored([spaced(adapter="ߊ ")])
    rates = {each["name"]: each["cer"] for each in evaluation["profiles"]}

    expected = {"baseline": 1.0, "base_blind": 0.0, "adapter_blind": 1.0, "adapter_gated": 1.0, "oracle_gated": 1.0}
    assert expected == rates["cer-codepoint-raw-per-row"]
    assert dict.fromkeys(expected, 0.0) == rates["cer-codepoint-nfc-pooled"] == rates["cer-spaceless-raw-pooled"]


def test_under_a_raw_profile_the_gate_still_accepts_no_blank() -> None:
    """So an adapter that only strips blanks cannot be promoted under any profile."""
    rows = [spaced(), spaced() | {"id": "2"}]
    evaluation = scored(rows, settings(profile="cer-codepoint-raw-per-row"))

    assert (1.0, 0.0, 1.0) == tuple(
        line(evaluation, name)["cer"] for name in ("baseline", "adapter_blind", "adapter_gated")
    )
    assert (2, 0) == tuple(line(evaluation, "adapter_blind")[name] for name in ("n", "changed"))


def test_a_copy_that_an_external_gate_accepts_changes_no_blank() -> None:
    """Else an adapter that only strips blanks could be promoted under a raw profile."""
    row = spaced()
    decision = {"id": row["id"], "verdict": "accept", "reason": "", "witness": None, "final": row["adapter"]}
    judged = Judged({"gate": {"kind": "external"}, "policy_sha256": "5" * 64}, [decision])
    given = settings(gate={"command": ("cc-agp-bridge",)}, profile="cer-codepoint-raw-per-row")

    evaluation = evaluate([row], judged, LOSSES, given)

    assert (1.0, 1.0) == (line(evaluation, "adapter_gated")["cer"], line(evaluation, "oracle_gated")["cer"])
