"""The row contract: what a prediction needs, both texts in one file, lists of hypotheses, texts that are empty."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import drops, read, read_source, refusal, write
from thunder_train.data.rows import Ledger, Row

PAIR = {"kind": "rows", "path": "p.jsonl", "references": "r.jsonl"}


def joined(folder: Path, predictions: Any, references: Any, **given: Any) -> tuple[list[Row], Ledger]:
    """What two files of the row contract give."""
    write(folder / "p.jsonl", predictions)
    write(folder / "r.jsonl", references)
    return read_source(folder, **PAIR | given)


def pairs(folder: Path, content: Any, name: str = "p.jsonl", **given: Any) -> tuple[list[Row], Ledger]:
    """What one file with both texts gives."""
    return read(folder, content, kind="rows", path=name, **given)


@pytest.mark.parametrize("key", ["audio_path", "segment_id", "feat_id"])
def test_a_key_and_a_text_are_enough(tmp_path: Path, key: str) -> None:
    """
    Few recognisers write a partition, and most of them no confidence.
    """
    rows, ledger = joined(tmp_path, [{key: "x", "asr_text": "a"}], [{key: "x", "reference_text": "b"}])

    assert [("p:x", "a", "b", "", {}, {key: "x"}, "", "")] == [
        (
            row.row_id,
            row.asr_text,
            row.target_text,
            row.partition,
            row.telemetry,
            row.keys,
            row.own_split,
            row.given_split,
        )
        for row in rows
    ]
    assert [] == ledger.dropped


def test_what_a_row_may_carry_is_typed(tmp_path: Path) -> None:
    """
    A confidence in quotes may be a word next time, and a comparison of texts is no comparison of numbers.
    """
    rows = [{"feat_id": 1, "asr_text": "a", "reference_text": "b", "ctc_confidence": "0.9"}]

    assert "in.jsonl:1: ctc_confidence is a text, not a number; write it without quotes" == refusal(
        tmp_path, rows, kind="rows"
    )


def test_keys_are_compared_without_blanks_and_as_texts(tmp_path: Path) -> None:
    """
    Tables write 7 as 7.0 beside empty cells, and hands leave blanks.
    """
    predictions = [{"feat_id": 7.0, "asr_text": "a"}, {"feat_id": " x ", "asr_text": "c"}]
    references = [{"feat_id": "7", "reference_text": "b"}, {"feat_id": "x", "reference_text": "d"}]

    assert [("p:7", "b"), ("p:x", "d")] == [
        (row.row_id, row.reference_text) for row in joined(tmp_path, predictions, references)[0]
    ]


def test_constants_take_the_type_of_their_field_and_reach_their_side(tmp_path: Path) -> None:
    """
    A constant that stands for the reference must not fill a prediction, nor the reverse.
    """
    constants = {"ctc_confidence": "0.5", "split": "test", "partition": "uncertain", "telemetry.duration": 2}

    rows, _ = joined(
        tmp_path,
        [{"feat_id": 1, "asr_text": "a"}],
        [{"feat_id": 1}],
        constants=constants | {"reference_text": "b"},
    )

    assert [("b", {"ctc_confidence": 0.5, "duration": 2}, "test", "uncertain")] == [
        (row.reference_text, row.telemetry, row.own_split, row.partition) for row in rows
    ]


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ({"ctc_confidence": "high"}, "constants.ctc_confidence is a text, not a number; correct 'high'"),
        ({"ctc_confidence": "nan"}, "constants.ctc_confidence is 'nan'; give a finite number"),
        ({"partition": 1}, "constants.partition is a number, not a text; correct 1"),
    ],
)
def test_a_constant_of_another_type_is_refused(tmp_path: Path, constants: dict[str, Any], expected: str) -> None:
    """
    It would be wrong in every row, so it is one problem of the recipe.
    """
    assert f"in.jsonl: {expected}" == refusal(
        tmp_path, [{"feat_id": 1, "asr_text": "a"}], kind="rows", constants=constants
    )


def test_one_file_may_hold_both_texts(tmp_path: Path) -> None:
    """
    Nothing is joined there, so no key is needed; a row without one is called by a digest of itself.
    """
    rows, ledger = pairs(
        tmp_path,
        [
            {"asr_text": "a", "reference_text": "b"},
            {"asr_text": "a", "reference_text": "b", "id": 7, "feat_id": "f"},
            {"asr_text": "a", "reference_text": "b", "audio_path": "x.wav", "segment_id": "s"},
            {"asr_text": "a", "reference_text": None, "feat_id": "g"},
        ],
    )

    assert ["p:925323e3f389", "p:7", "p:x.wav:s"] == [row.row_id for row in rows]
    assert [("p.jsonl", 4, "p:g", "prediction whose reference is null")] == drops(ledger)


def test_a_file_with_both_texts_may_be_named_twice(tmp_path: Path) -> None:
    """
    Then it is joined with itself; what neither side reads is counted once.
    """
    row = {"feat_id": 1, "hyp": "a", "ref": "b", "length": 3}
    fields = {"asr_text": "hyp", "reference_text": "ref"}
    write(tmp_path / "p.jsonl", [row])

    rows, ledger = read_source(tmp_path, **PAIR | {"references": "p.jsonl", "fields": fields})

    assert [("a", "b")] == [(row.asr_text, row.reference_text) for row in rows]
    assert {"p.jsonl": {"length": 1}} == ledger.unused


@pytest.mark.parametrize("heard", [None, "", " \n"])
def test_a_recogniser_may_hear_nothing(tmp_path: Path, heard: str | None) -> None:
    """
    Left out, such a row would make a recogniser that says nothing look better than one that tries.
    """
    rows, ledger = joined(
        tmp_path,
        [{"feat_id": 1, "asr_text": heard, "partition": "stable"}],
        [{"feat_id": 1, "reference_text": "b"}],
        use=("stable",),
    )

    assert ([("b", False)], []) == ([(row.target_text, row.is_silent) for row in rows], ledger.dropped)
    assert "" == rows[0].asr_text.strip()


def test_null_of_another_name_is_a_hypothesis_too(tmp_path: Path) -> None:
    """
    A field map must not turn null into a missing field; another null field of the row changes nothing.
    """
    rows, _ = pairs(
        tmp_path,
        [{"out": {"hyp": None}, "reference_text": "b", "audio_path": None}],
        fields={"asr_text": "out.hyp"},
    )

    assert [("", "b")] == [(row.asr_text, row.reference_text) for row in rows]


def test_an_empty_reference_is_silence_and_null_is_none(tmp_path: Path) -> None:
    """
    Nothing was said, or nobody wrote down what was.
    """
    references = [{"feat_id": 1, "reference_text": " "}, {"feat_id": 2, "reference_text": None}]

    rows, ledger = joined(tmp_path, [{"feat_id": 1, "asr_text": "a"}, {"feat_id": 2, "asr_text": "c"}], references)

    assert [("p:1", True)] == [(row.row_id, row.is_silent) for row in rows]
    assert [("p.jsonl", 2, "p:2", "prediction whose reference is null")] == drops(ledger)


def test_silence_is_never_stable(tmp_path: Path) -> None:
    """
    To keep what a recogniser invented in silence would teach to invent.
    """
    row = {"asr_text": "a", "reference_text": "", "partition": "stable"}

    assert [("", True)] == [(row.target_text, row.is_silent) for row in pairs(tmp_path, [row], use=("stable",))[0]]


def test_an_empty_cell_of_a_table_is_null(tmp_path: Path) -> None:
    """
    A table has no other way to say it; a column that it lacks is a problem of the whole file.
    """
    table = "feat_id,asr_text,reference_text\n1,,b\n2,a,\n"

    rows, ledger = pairs(tmp_path, table, "p.csv")

    assert [("p:1", "", "b")] == [(row.row_id, row.asr_text, row.reference_text) for row in rows]
    assert [("p.csv", 3, "p:2", "prediction whose reference is null")] == drops(ledger)


# Lists of hypotheses


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"hypotheses": ["a", "b"]}, {}),
        ({"n_best_hypotheses": [{"text": "a", "score": -1.5}, {"text": "b"}]}, {}),
        ({"input": ["a", "b"]}, {"hypotheses": "input", "asr_text": "input[0]"}),
        ({"out": {"alternatives": [{"words": "a"}, {"words": "b"}]}}, {"hypotheses": "out.alternatives[].words"}),
        ({"asr_text": "a", "hypotheses": ["a", "b"]}, {}),
    ],
    ids=["list", "the contract's name", "mapped", "a member of each", "with a text"],
)
def test_hypotheses_are_a_list_of_texts(tmp_path: Path, row: dict[str, Any], fields: dict[str, str]) -> None:
    """
    The first one stands for all where no text is named.
    """
    rows, _ = pairs(tmp_path, [{"reference_text": "b", **row}], fields=fields)

    assert [("a", ("a", "b"))] == [(row.asr_text, row.hypotheses) for row in rows]


@pytest.mark.parametrize("path", ["input[1]", "input.1"])
def test_a_path_may_name_an_item_of_a_list(tmp_path: Path, path: str) -> None:
    """
    Lists of hypotheses are the usual shape of data for generative correction.
    """
    assert ["b"] == [
        row.asr_text
        for row in pairs(tmp_path, [{"input": ["a", "b"], "reference_text": "c"}], fields={"asr_text": path})[0]
    ]


def test_a_cell_may_hold_a_list(tmp_path: Path) -> None:
    """
    As JSON, for a cell has no other way; a path reaches into it.
    """
    table = 'asr_text,list,reference_text\na,"[""a"", ""b""]",c\n'
    fields = {"hypotheses": "list", "telemetry.c": "list[1]"}

    rows, _ = pairs(tmp_path, table, "p.csv", fields=fields)

    assert [(("a", "b"), {"c": "b"})] == [(row.hypotheses, row.telemetry) for row in rows]


def test_hypotheses_may_be_a_text_of_json(tmp_path: Path) -> None:
    """
    As a table that was made to JSON has them.
    """
    rows, _ = pairs(tmp_path, [{"hypotheses": "['a', 'b']", "reference_text": "b"}])

    assert [("a", ("a", "b"))] == [(row.asr_text, row.hypotheses) for row in rows]


def test_both_texts_of_one_field_are_refused(tmp_path: Path) -> None:
    """
    A recogniser without any error is a mistake in the map, unless the two lie in two files.
    """
    fields = {"asr_text": "t", "reference_text": "t"}
    rows = [{"t": "a", "feat_id": 1}]

    assert "in.jsonl: 'asr_text' and 'reference_text' are both read from 't'; correct one of them" == refusal(
        tmp_path, rows, kind="rows", fields=fields
    )
    assert 1 == len(joined(tmp_path, rows, rows, fields=fields)[0])


def test_one_text_may_hold_all_hypotheses(tmp_path: Path) -> None:
    """
    Some data sets join them with full stops: the text as a whole is on the hypothesis side.
    """
    rows, _ = pairs(tmp_path, [{"asr_text": "a", "hypotheses": "a. b.", "reference_text": "b"}])

    assert [("a. b.",)] == [row.hypotheses for row in rows]


@pytest.mark.parametrize("cell", ["['a', 'b']", '["a", "b"]'])
def test_a_list_is_no_text(tmp_path: Path, cell: str) -> None:
    """
    As a text it would be scored with its brackets.
    """
    hint = 'map it to hypotheses, or its first item: asr_text = "FIELD[0]"'

    for value in (cell, ["a", "b"]):
        row = {"asr_text": value, "reference_text": "b"}
        assert f"in.jsonl:1: asr_text is a list, not a text; {hint}" == refusal(tmp_path, [row], kind="rows")


@pytest.mark.parametrize("between", ["|", "\n", " <sep> "])
def test_hypotheses_that_were_joined_are_no_best_one(tmp_path: Path, between: str) -> None:
    """
    All of them as one would count every word of the others as an error.
    """
    rows = [{"hypotheses": f"a{between}b", "reference_text": "b"}]

    assert (
        f"in.jsonl:1: hypotheses is one text, with {between.strip(' ')!r} between several; "
        "write a list of texts, or map the text to asr_text"
    ) == refusal(tmp_path, rows, kind="rows")


@pytest.mark.parametrize(
    ("hypotheses", "expected"),
    [
        ([{"score": 1}], 'has a hypothesis without a text; write texts, or {"text", "score"}'),
        (["a"] * 1001, "has 1001 hypotheses; give at most 1000"),
        (5, "hypotheses is a number, not a text or a list; write it in quotes"),
    ],
)
def test_wrong_hypotheses_are_refused(tmp_path: Path, hypotheses: Any, expected: str) -> None:
    """
    A prompt with half of them would be another task.
    """
    row = {"asr_text": "a", "reference_text": "b", "hypotheses": hypotheses}

    assert f"in.jsonl:1: {expected}" == refusal(tmp_path, [row], kind="rows")


@pytest.mark.parametrize("given", [{"hypotheses": []}, {"asr_text": None, "hypotheses": []}, {"asr_text": ""}])
def test_no_hypothesis_at_all_is_a_recogniser_that_heard_nothing(tmp_path: Path, given: dict[str, Any]) -> None:
    """
    An empty list says it as clearly as an empty text.
    """
    rows, _ = pairs(tmp_path, [{"reference_text": "b", **given}])

    assert [("", ())] == [(row.asr_text, row.hypotheses) for row in rows]


def test_telemetry_of_a_row_comes_from_all_its_fields(tmp_path: Path) -> None:
    """
    The contract spreads it over three fields; prompts see one table.
    """
    row = {
        "asr_text": "a",
        "reference_text": "b",
        "ctc_confidence": 0.5,
        "trajectory_scalars": {"jerk": 1.5},
        "char_posteriors_summary": {"mean_entropy": 2.5},
        "telemetry": {"am_score": -1, "wer": 0.1},
    }

    rows, ledger = pairs(tmp_path, [row])

    assert {"ctc_confidence": 0.5, "jerk": 1.5, "mean_entropy": 2.5, "am_score": -1} == rows[0].telemetry
    assert {"p.jsonl": {"telemetry.wer": 1}} == ledger.unused


def test_deep_telemetry_is_refused(tmp_path: Path) -> None:
    """
    Writing it would exceed Python's recursion limit.
    """
    telemetry: Any = {}
    for _ in range(40):
        telemetry = {"c": telemetry}

    assert "in.jsonl:1: telemetry is nested deeper than 32; map its members one by one" == refusal(
        tmp_path, [{"asr_text": "a", "reference_text": "b", "telemetry": telemetry}], kind="rows"
    )


def test_a_row_may_be_given_to_a_split(tmp_path: Path) -> None:
    """
    By its source as a whole, or by a word of its own.
    """
    rows = [{"asr_text": "a", "reference_text": "b", "split": "dev"}]

    assert [("dev", "test")] == [(row.own_split, row.given_split) for row in pairs(tmp_path, rows, split="test")[0]]


def test_rows_of_one_recording_are_named_by_their_offset(tmp_path: Path) -> None:
    """A manifest of NeMo cuts a recording into many rows, which differ in nothing else that names them."""
    row = {"audio_filepath": "a.wav", "duration": 1.5, "text": "b", "pred_text": "c"}
    write(tmp_path / "m.json", [row | {"offset": 0.0}, row | {"offset": 1.5}])

    rows, ledger = read_source(tmp_path, kind="nemo", path="m.json")

    assert (["m:a.wav:0", "m:a.wav:1.5"], [{"audio_path": "a.wav"}] * 2) == (
        [row.row_id for row in rows],
        [row.keys for row in rows],
    )
    assert {"duration": 2} == ledger.unused["m.json"]


@pytest.mark.parametrize(
    ("declared", "mode", "expected"),
    [
        ("real", "trajectory", "real"),
        ("real", "synthetic", "synthetic"),
        ("real", " Synthetic-noise", "synthetic"),
        ("smoke", "synthetic", "smoke"),
        ("real", "", "real"),
    ],
)
def test_a_row_that_calls_itself_synthetic_is_not_real(tmp_path: Path, declared: str, mode: str, expected: str) -> None:
    """
    A source is declared once, by hand; a row says of itself how it was made.
    """
    row = {"feat_id": "1", "asr_text": "a", "reference_text": "b", "mode": mode}
    rows, _ = pairs(tmp_path, [row], evidence_kind=declared)

    assert [expected] == [row.evidence_kind for row in rows]
