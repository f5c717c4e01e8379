"""The built-in gate: its decisions, and decisions.jsonl."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.gates import DIGITS, HYPOTHESIS, LOOP, PROPOSAL, WHERE, WITNESS, external, policy, prediction
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.core.characters import KEEP, Orthography
from thunder_train.data.orthography import TABLES
from thunder_train.evaluate import gate

KEEPING = Orthography(
    "keeping", r"\u07ca-\u07ea\u200b-\u200f\u202a-\u202e", "", "", marks_per_letter=(0.0, 4.0), invisible=KEEP
)
"""An orthography whose texts hold invisible characters."""
TEXTS = st.text(alphabet="ߊߋߌߓߕ\u07eb\u07f2 ", max_size=40)


@pytest.mark.parametrize(
    ("partition", "hypothesis", "proposal", "expected"),
    [
        ("boundary", "ߊ ߓߊ ߕߊ", "ߊ ߓߍ ߕߊ", ("accept", "within the edit budget", 1, 2)),
        ("boundary", "ߊ ߓߊ ߕߊ", "ߊ ߓߍ ߕߍߣ", ("reject", "over the edit budget", 3, 2)),
        ("boundary", "ߊߓߊߕߊߡߊߟߊߛߊߣߊߝߊ", "ߊߓߍߕߍߡߍߟߊߛߊߣߊߝߊ", ("accept", "within the edit budget", 3, 3)),
        ("boundary", "ߓߊ", "", ("reject", "the proposal is empty", 2, 2)),
        ("boundary", "ߓߊ", " ", ("reject", "the proposal is empty", 2, 2)),
        ("boundary", "", "ߓߊ", ("accept", "within the edit budget", 2, 2)),
        ("stable", "ߓߊ", "ߓߍ", ("reject", "partition stable is left unchanged", 1, 2)),
        ("novelty", "ߓߊ", "ߓߍ", ("reject", "partition novelty is blocked", 1, 2)),
        ("stable", "ߓߊ", "ߓߊ", ("reject", "nothing to change", 0, 2)),
        ("twilight", "ߓߊ", "ߓߍ", ("accept", "within the edit budget", 1, 2)),
        ("", "ߓߊ", "ߓߍ", ("accept", "within the edit budget", 1, 2)),
    ],
)
def test_partition_and_budget_decide(
    partition: str, hypothesis: str, proposal: str, expected: tuple[object, ...]
) -> None:
    """
    Stable text stays, novel text is not rewritten, and other text may have a few edits.
    """
    ruling = gate.rule(partition, hypothesis, proposal, policy())

    assert expected == (ruling.verdict, ruling.reason, ruling.edits, ruling.budget)


@pytest.mark.parametrize(
    ("proposal", "reason"),
    [
        ("\u200b", "the proposal is empty"),
        ("\u200d\ufeff \u3164", "the proposal is empty"),
        ("ߓ\u200bߊ", "the proposal has invisible character U+200B"),
        ("\u202eߓߊ", "the proposal has invisible character U+202E"),
        ("ߓߊ\u200f", "the proposal has invisible character U+200F"),
        ("ߓ\x00ߊ", "the proposal has invisible character U+0000"),
        ("ߓ\x1bߊ", "the proposal has invisible character U+001B"),
        ("ߓ\ufffd", "the proposal has replacement character U+FFFD"),
        ("ߓߊ\nߊ", "the proposal has line break or tab U+000A"),
        ("ߓߊ\u2028ߊ", "the proposal has line break or tab U+2028"),
        ("ߓ\ud800", "the proposal has lone surrogate"),
    ],
)
@pytest.mark.parametrize("table", [None, TABLES["bridge-toneless"], KEEPING], ids=["none", "bridge", "keeping"])
def test_no_answer_leaves_with_what_no_text_may_hold(proposal: str, reason: str, table: Orthography | None) -> None:
    """
    Each is within the budget, and none is an edit that a reader sees: a text may vanish, or be turned round.
    """
    ruling = gate.rule("boundary", "ߓߊ", proposal, policy(), table)

    if table is KEEPING and "U+20" in reason and "U+2028" not in reason:
        assert "within the edit budget" == ruling.reason  # this orthography says that it writes them
    else:
        assert ("reject", reason) == (ruling.verdict, ruling.reason)


@pytest.mark.parametrize(
    ("hypothesis", "proposal", "expected"),
    [
        ("ߓߊ", "ߓa", "the proposal has stray script"),
        ("ߓa", "ߓߊa", "within the edit budget"),
        ("ߓߊ", "ߓߊ!", "within the edit budget"),
    ],
)
def test_a_letter_of_another_script_is_not_brought_in(hypothesis: str, proposal: str, expected: str) -> None:
    """
    A row with one in its reference is dropped; a recogniser may write it, and then the answer may leave it.
    """
    assert expected == gate.rule("", hypothesis, proposal, policy(), TABLES["bridge-toneless"]).reason


@pytest.mark.parametrize("partition", ["Stable", "NOVELTY", "novelty"])
def test_partitions_are_matched_without_case(partition: str) -> None:
    """
    A router that writes Stable means the same; its rows would be rewritten by an oversight.
    """
    assert "reject" == gate.rule(partition, "ߓߊ", "ߓߍ", policy(preserved=("STABLE",))).verdict
    assert {} == gate.judge([prediction("a", partition=partition)], policy(), WHERE).header["unknown_partitions"]


def test_the_policy_names_the_orthography() -> None:
    """
    Another one may decide otherwise, so replay must see the difference.
    """
    table = TABLES["bridge-toneless"]
    described = gate.policy_of(policy(), table)["orthography"]

    assert ("bridge-toneless", 64) == (described["name"], len(described["sha256"]))
    assert described != gate.policy_of(policy(), replace(table, letters="a-z"))["orthography"]
    assert "orthography" not in gate.policy_of(policy())


def test_marks_in_another_order_are_nothing_to_change() -> None:
    """
    Edits are counted after NFC, as errors are: an equal text is no proposal.
    """
    assert "nothing to change" == gate.rule("boundary", "ߊ\u07eb\u07f2", "ߊ\u07f2\u07eb", policy()).reason


@pytest.mark.parametrize(
    ("length", "floor", "relative", "expected"),
    [
        (9, 2, 0.2, 2),
        (15, 2, 0.2, 3),
        (19, 2, 0.2, 3),
        (100, 0, 0.29, 29),
        (0, 2, 0.2, 2),
        (30, 0, 0.1, 3),
        (9, 0, 0.0, 0),
    ],
)
def test_budget_is_the_larger_of_floor_and_share(length: int, floor: int, relative: float, expected: int) -> None:
    """
    One missing vowel is a large share of a short text and still a safe repair. As floats, 0.29 x 100 is 28.999...
    """
    assert expected == gate.edit_budget("ߊ" * length, policy(floor=floor, relative=relative))


@given(hypothesis=TEXTS, proposal=TEXTS, partition=st.sampled_from([*sorted(gate.PARTITIONS), "other"]))
def test_no_text_leaves_the_gate_beyond_its_budget(hypothesis: str, proposal: str, partition: str) -> None:
    """
    For any proposal, the final text is within the budget, and unchanged where the policy says so.
    """
    row = prediction("a", proposal, asr_text=hypothesis, partition=partition)

    decision = gate.judge([row], policy(), WHERE).decisions[0]

    assert gate.edits_between(hypothesis, decision["final"]) <= gate.edit_budget(hypothesis, policy())
    assert hypothesis == decision["final"] or partition not in ("stable", "novelty")


def test_decisions_are_sorted_and_contain_everything_but_the_reference() -> None:
    """
    The whole file: the policy, each proposal, its verdict and the final text.
    """
    judged = gate.judge([prediction("b", partition="stable"), prediction("a", telemetry={"jerk": 1})], policy(), WHERE)
    settings = {"blocked": ["novelty"], "floor": 2, "kind": "builtin", "preserved": ["stable"], "relative": 0.2}
    both = {"hypothesis": HYPOTHESIS, "proposal": PROPOSAL, "edits": 1, "budget": 2, "gate": "builtin", "witness": None}
    accepted = {"verdict": "accept", "reason": "within the edit budget", "final": PROPOSAL}
    rejected = {"verdict": "reject", "reason": "partition stable is left unchanged", "final": HYPOTHESIS}
    header = {"schema": "thunder.decisions/1", "gate": settings, "policy_sha256": files.digest(settings), "rows": 2}

    assert [
        header | {"unknown_partitions": {}},
        {"id": "a", "partition": "boundary", **both, **accepted},
        {"id": "b", "partition": "stable", **both, **rejected},
    ] == [json.loads(line) for line in gate.as_jsonl(judged).splitlines()]
    assert "SECRET" not in gate.as_jsonl(judged)


def test_rows_of_unknown_partitions_are_counted() -> None:
    """
    A router with a new partition is no error, but it must be visible: no policy names that partition.
    """
    rows = [prediction("a", partition="twilight"), prediction("b", partition=""), prediction("c")]

    assert {"twilight": 1, "": 1} == gate.judge(rows, policy(), WHERE).header["unknown_partitions"]


def test_the_policy_hash_follows_the_policy_and_nothing_else() -> None:
    """
    The order of partitions and the timeout of an external gate do not affect the decisions.
    """
    first, second = policy(preserved=("stable", "recovery")), policy(preserved=("recovery", "stable"), timeout_s=9)
    hashes = [files.digest(gate.policy_of(each)) for each in (first, second, policy(), policy(floor=3))]

    assert (hashes[0], 3) == (hashes[1], len(set(hashes)))


def test_an_id_of_two_rows_is_an_error() -> None:
    """
    A verdict belongs to an id; with two rows of one id it could go to the wrong one.
    """
    with pytest.raises(ThunderError) as error:
        gate.judge([prediction("a"), prediction("b"), prediction("a")], policy(), WHERE)

    assert f"{WHERE}: 1 ids occur in several rows, first 'a'; build the data again" == str(error.value)


@pytest.mark.parametrize(
    ("witness", "expected"),
    [
        (None, ""),
        (WITNESS, ""),
        (WITNESS | {"token": DIGITS.upper()}, "token is not 32 hex digits"),
        (WITNESS | {"token": DIGITS + "\n"}, "token is not a line of at most 200 characters"),
        (WITNESS | {"token": DIGITS[1:]}, "token is not 32 hex digits"),
        (WITNESS | {"token": DIGITS + "0"}, "token is not 32 hex digits"),
        (WITNESS | {"slice_id": " "}, "lacks slice_id"),
        (WITNESS | {"policy_hash": 7}, "lacks policy_hash"),
        (WITNESS | {"policy_hash": "a\x1b[2J"}, "policy_hash is not a line of at most 200 characters"),
        (WITNESS | {"graph_snapshot_hash": "a" * 201}, "graph_snapshot_hash is not a line of at most 200 characters"),
        ({"token": DIGITS}, "lacks slice_id"),
        (DIGITS, "is not an object"),
    ],
)
def test_a_witness_is_checked_for_its_format(witness: object, expected: str) -> None:
    """
    Only the kernel can check whether a witness is genuine; its format can be checked here.
    """
    assert expected == gate.witness_problem(witness)


def test_the_builtin_gate_invents_no_witness() -> None:
    """
    A witness in the row's own record was issued for another text, so promotion reports it as missing.
    """
    judged = gate.judge([prediction("a", witness=WITNESS)], policy(), WHERE)

    assert judged.decisions[0]["witness"] is None
    assert {"valid": 0, "missing": 1, "malformed": 0} == gate.summary(judged)["witnesses"]


def test_the_summary_counts_verdicts_and_reasons() -> None:
    """
    The gate part of eval.json, counted by hand.
    """
    rows = [prediction("a"), prediction("b", HYPOTHESIS), prediction("c", partition="stable"), prediction("d")]
    judged = gate.judge(rows, policy(), WHERE)

    assert {
        "kind": "builtin",
        "policy_sha256": judged.header["policy_sha256"],
        "accepted": 2,
        "rejected": 2,
        "reasons": {"nothing to change": 1, "partition stable is left unchanged": 1, "within the edit budget": 2},
        "witnesses": {"valid": 0, "missing": 4, "malformed": 0},
    } == gate.summary(judged)


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    """
    decisions.jsonl contains everything; its format is checked line by line.
    """
    judged, path = gate.judge([prediction("a"), prediction("b")], policy(), WHERE), tmp_path / "smoke" / gate.FILE
    files.write_text(path, gate.as_jsonl(judged))

    assert judged == gate.read(path)


@pytest.mark.parametrize(
    ("line", "old", "new", "expected"),
    [
        (
            1,
            '"thunder.decisions/1"',
            '"thunder.decisions/2"',
            "Invalid enum value 'thunder.decisions/2' - at `$.schema`",
        ),
        (2, '"verdict": "accept"', '"verdict": "ok"', "Invalid enum value 'ok' - at `$.verdict`"),
        (2, '"edits": 1', '"edits": "1"', "Expected `int`, got `str` - at `$.edits`"),
        (2, '"final"', '"last"', "Object missing required field `final`"),
    ],
)
def test_a_damaged_file_is_an_error_with_its_line(tmp_path: Path, line: int, old: str, new: str, expected: str) -> None:
    """
    An incomplete decision must not be used.
    """
    path = tmp_path / "smoke" / gate.FILE
    text = gate.as_jsonl(gate.judge([prediction("a")], policy(), WHERE))
    assert old in text
    files.write_text(path, text.replace(old, new))

    with pytest.raises(ThunderError) as error:
        gate.read(path)

    assert f"{path}:{line}: {expected}; run `./doit evaluate:smoke`" == str(error.value)


@pytest.mark.parametrize(
    ("hypothesis", "proposal", "expected"),
    [
        ("", "", ("reject", gate.UNCHANGED)),
        ("", "ߊߓ", ("accept", gate.WITHIN)),
        ("", "ߊ ߓ", ("reject", gate.OVER)),
        ("ߊ", "", ("reject", gate.EMPTY)),
    ],
)
def test_an_empty_hypothesis_is_decided_like_any_other(
    hypothesis: str, proposal: str, expected: tuple[str, str]
) -> None:
    """A recogniser may have heard nothing: the floor of the budget allows two letters there, and no text is erased."""
    ruling = gate.rule("boundary", hypothesis, proposal, policy())

    assert expected == (ruling.verdict, ruling.reason)


def test_an_external_gate_gets_empty_texts(tmp_path: Path) -> None:
    """Its verdict on them is final, too."""
    rows = [prediction("a", "ߊ ߓ ߕ", asr_text=""), prediction("b", "", asr_text="ߊ")]
    judged = gate.judge(rows, external(tmp_path, LOOP), WHERE)

    assert [("", "ߊ ߓ ߕ"), ("ߊ", "")] == [(each["hypothesis"], each["final"]) for each in judged.decisions]


def test_without_a_row_to_judge_there_is_a_header(tmp_path: Path) -> None:
    """A dataset may have no test rows, or a chat's only; the file says what would have decided."""
    files.write_text(tmp_path / gate.FILE, gate.as_jsonl(gate.judge([], policy(), WHERE)))

    assert [] == (read := gate.read(tmp_path / gate.FILE)).decisions
    assert (0, "builtin") == (read.header["rows"], read.header["gate"]["kind"])
