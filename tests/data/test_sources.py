"""Rows of each kind of source, and which of them are dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import PREDICTION, drops, read, read_source, refusal, write
from thunder_train import ThunderError
from thunder_train.data.rows import Ledger, Row

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
PAIR = {"kind": "rows", "path": "p*.jsonl", "references": "r*.jsonl"}


def prediction(number: int, **given: Any) -> dict[str, Any]:
    """A prediction of the row contract."""
    return PREDICTION | {"audio_path": f"a/{number}.wav"} | given


def reference(number: int, text: str = "ߊ", **given: Any) -> dict[str, Any]:
    """A reference of the row contract."""
    return {"audio_path": f"a/{number}.wav", "reference_text": text} | given


def joined(folder: Path, predictions: Any, references: Any, **given: Any) -> tuple[list[Row], Ledger]:
    """What two files of the row contract give."""
    write(folder / "p.jsonl", predictions)
    write(folder / "r.jsonl", references)
    return read_source(folder, **PAIR | {"path": "p.jsonl", "references": "r.jsonl"} | given)


def mismatch(folder: Path, predictions: Any, references: Any, **given: Any) -> str:
    """The text of the error that two such files give."""
    with pytest.raises(ThunderError) as error:
        joined(folder, predictions, references, **given)
    return str(error.value)


# Conversations, completions, text


def test_conversations_are_kept_as_they_are(tmp_path: Path) -> None:
    """ChatML that others made is not rendered again."""
    turns = [{"role": "system", "content": "s"}, *TURNS, *TURNS]

    rows, ledger = read(tmp_path, [{"id": "x", "group": "g", "messages": turns}], kind="chatml")

    row = rows[0]
    assert ("in:x", {"video_id": "g"}, turns, "b") == (row.row_id, row.keys, list(row.messages), row.target_text)
    assert {"in.jsonl": 1} == ledger.rows_read


def test_completion_is_a_question_and_its_answer(tmp_path: Path) -> None:
    """The other common shape of a supervised row; what else it may carry is the same for all simple kinds."""
    extra = {"feat_id": 7, "partition": "boundary", "asr_text": "ߞߏ", "reference_text": "ߞߋ"}

    rows, _ = read(tmp_path, [{"prompt": "a", "completion": "b", **extra}], kind="completions")

    row = rows[0]
    assert (TURNS, "b", {"feat_id": "7"}) == (list(row.messages), row.target_text, row.keys)
    assert ("boundary", "ߞߏ", "ߞߋ", True) == (row.partition, row.asr_text, row.reference_text, row.is_given)


def test_plain_text_answers_no_hypothesis(tmp_path: Path) -> None:
    """Such a row has no prompt, so none may be missed."""
    rows, _ = read(tmp_path, [{"text": "ߞߏ"}, {"text": "ߞߋ", "id": 0}], kind="text")

    assert [("in:5b2879ebb7c8", "ߞߏ", (), True), ("in:0", "ߞߋ", (), True)] == [
        (row.row_id, row.target_text, row.messages, row.is_text) for row in rows
    ]


def test_pattern_reads_every_file_that_it_matches(tmp_path: Path) -> None:
    """Rows are named by their own file, in the order of the files' names."""
    for name in ("part.2", "part.1", "other"):
        write(tmp_path / f"{name}.jsonl", [{"text": name, "id": 1}])

    rows, ledger = read_source(tmp_path, path="part.*.jsonl")

    assert [("part:1", "part.1"), ("part:1", "part.2")] == [(row.row_id, row.target_text) for row in rows]
    assert {"part.1.jsonl": 1, "part.2.jsonl": 1} == ledger.rows_read


def test_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    """An empty source would otherwise pass for a small one."""
    with pytest.raises(ThunderError) as error:
        read_source(tmp_path, path="part-*.jsonl")

    assert "part-*.jsonl: matches no file; correct the source's path or add the files" == str(error.value)


def test_field_map_renames_fields_of_any_kind(tmp_path: Path) -> None:
    """A file of another's names is read without rewriting it; fields that the map does not name keep their own."""
    fields = {"messages": "chat.turns", "partition": "regime"}
    row = {"id": 1, "chat": {"turns": TURNS}, "regime": "b"}

    rows, _ = read(
        tmp_path,
        [row],
        kind="chatml",
        fields=fields,
        enums={"partition": {"b": "boundary"}},
        constants={"video_id": "v"},
    )

    assert [("in:1", "boundary", {"video_id": "v"})] == [(row.row_id, row.partition, row.keys) for row in rows]


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("chatml", {}, "lacks messages; add it"),
        ("chatml", {"messages": None}, "lacks messages; add it"),
        (
            "chatml",
            {"messages": [{"role": "user", "content": None}]},
            "a user message lacks content; add it, or leave out the row",
        ),
        (
            "chatml",
            {"messages": [{"role": "narrator", "content": "a"}]},
            "unknown role 'narrator'; use one of: system, user, assistant, tool, developer",
        ),
        (
            "chatml",
            {"messages": TURNS, "functions": [{"name": "f"}]},
            "has functions; write them as tools",
        ),
        ("completions", {"prompt": "a"}, "lacks completion; add it"),
        (
            "completions",
            {"prompt": 5, "completion": ""},
            "prompt is a number, not a text or a list; write it in quotes",
        ),
        ("text", {"messages": TURNS}, 'lacks text; its rows have messages: set kind = "chatml"'),
    ],
)
def test_row_of_another_shape_is_refused(tmp_path: Path, kind: str, row: dict[str, Any], expected: str) -> None:
    """A tool that loads such rows as nothing trains on nothing."""
    assert f"in.jsonl:1: {expected}" == refusal(tmp_path, [row], kind=kind)


# The row contract


def test_join_takes_the_first_key_that_both_sides_carry(tmp_path: Path) -> None:
    """References without audio_path fall back to segment_id; the order of the files does not matter."""
    predictions = [prediction(1, segment_id="s1", feat_id=3, video_id="v"), prediction(2, segment_id="s2")]
    references = [{"segment_id": "s2", "reference_text": "ߓ"}, {"segment_id": "s1", "reference_text": "ߊ"}]

    rows, ledger = joined(tmp_path, predictions, references)

    assert [("p:s1", "ߊ", "ߊ", 1), ("p:s2", "ߓ", "ߓ", 2)] == [
        (row.row_id, row.target_text, row.reference_text, row.line) for row in rows
    ]
    assert {"video_id": "v", "audio_path": "a/1.wav", "segment_id": "s1", "feat_id": "3"} == rows[0].keys
    assert ([], {"p.jsonl": 2, "r.jsonl": 2}) == (ledger.dropped, ledger.rows_read)


def test_join_prefers_audio_path_over_segment(tmp_path: Path) -> None:
    """Segment names may repeat between recordings; paths do not."""
    predictions = [prediction(1, segment_id="s"), prediction(2, segment_id="s")]
    references = [reference(2, "ߓ", segment_id="s"), reference(1, "ߊ", segment_id="s")]

    assert ["ߊ", "ߓ"] == [row.target_text for row in joined(tmp_path, predictions, references)[0]]


def test_join_prefers_a_key_that_all_rows_carry(tmp_path: Path) -> None:
    """Some segments have no name, every feature has: rows would be lost for the better key."""
    predictions = [prediction(1, segment_id="s", feat_id="f"), prediction(2, feat_id="g")]
    references = [
        {"segment_id": "s", "feat_id": "f", "reference_text": "ߊ"},
        {"feat_id": "g", "reference_text": "ߓ"},
    ]

    assert ["p:f", "p:g"] == [row.row_id for row in joined(tmp_path, predictions, references)[0]]


def test_key_that_only_some_rows_carry_loses_the_others_by_name(tmp_path: Path) -> None:
    """Better than no join at all, and every row without it is named."""
    predictions = [prediction(1, segment_id="s"), prediction(2)]
    references = [{"segment_id": "s", "reference_text": "ߊ"}, {"feat_id": "f", "reference_text": "ߓ"}]

    rows, ledger = joined(tmp_path, predictions, references)

    assert ["p:s"] == [row.row_id for row in rows]
    assert [
        ("r.jsonl", 2, "r:bd68f7fb06ad", "reference without a prediction"),
        ("p.jsonl", 2, "p:03ec934d08c6", "prediction without a reference"),
    ] == drops(ledger)


def test_unjoined_rows_are_dropped_by_name(tmp_path: Path) -> None:
    """A row that finds no partner is lost to training, and must show."""
    rows, ledger = joined(tmp_path, [prediction(1), prediction(2)], [reference(1), reference(3), reference(4)])

    assert ["p:a/1.wav"] == [row.row_id for row in rows]
    assert [
        ("p.jsonl", 2, "p:a/2.wav", "prediction without a reference"),
        ("r.jsonl", 2, "r:a/3.wav", "reference without a prediction"),
        ("r.jsonl", 3, "r:a/4.wav", "reference without a prediction"),
    ] == drops(ledger)
    assert {"p.jsonl": 2, "r.jsonl": 3} == ledger.rows_read


def test_join_goes_over_all_files_of_both_sides(tmp_path: Path) -> None:
    """Shards of predictions need not be cut where those of the references are."""
    write(tmp_path / "p-1.jsonl", [prediction(1)])
    write(tmp_path / "p-2.jsonl", [prediction(2), prediction(3)])
    write(tmp_path / "r-1.jsonl", [reference(3), reference(1)])
    write(tmp_path / "r-2.jsonl", [reference(2), reference(4)])

    rows, ledger = read_source(tmp_path, **PAIR)

    assert ["p-1:a/1.wav", "p-2:a/2.wav", "p-2:a/3.wav"] == [row.row_id for row in rows]
    assert [("r-2.jsonl", 2, "r-2:a/4.wav", "reference without a prediction")] == drops(ledger)


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        (
            [prediction(1)],
            [reference(1), reference(2), reference(1)],
            "r.jsonl:3: audio_path 'a/1.wav' is also at r.jsonl:1; ",
        ),
        ([prediction(1), prediction(1)], [reference(1)], "p.jsonl:2: audio_path 'a/1.wav' is also at p.jsonl:1; "),
        ([prediction(1), prediction(1)], [reference(2)], "p.jsonl:2: audio_path 'a/1.wav' is also at p.jsonl:1; "),
    ],
)
def test_join_key_that_repeats_is_refused(
    tmp_path: Path, predictions: list[Any], references: list[Any], expected: str
) -> None:
    """First-wins would pair a hypothesis with another's reference in silence."""
    assert f"{expected}a join key must be unique" == mismatch(tmp_path, predictions, references)


def test_join_key_that_repeats_in_another_file_is_refused(tmp_path: Path) -> None:
    """Both places are named, for either may be the wrong one."""
    write(tmp_path / "p.jsonl", [prediction(1)])
    write(tmp_path / "r-1.jsonl", [reference(2), reference(1)])
    write(tmp_path / "r-2.jsonl", [reference(1)])

    with pytest.raises(ThunderError) as error:
        read_source(tmp_path, **PAIR)

    assert "r-2.jsonl:1: audio_path 'a/1.wav' is also at r-1.jsonl:2; a join key must be unique" == str(error.value)

    (tmp_path / "r-1.jsonl").write_text(json.dumps([reference(2), reference(1)]))  # a list on one line
    with pytest.raises(ThunderError, match=r"^r-2\.jsonl:1: audio_path 'a/1\.wav' is also at r-1\.jsonl: row 2; "):
        read_source(tmp_path, **PAIR)


def test_files_without_a_common_key_are_refused(tmp_path: Path) -> None:
    """No key, no join: guessing by line order would be worse."""
    expected = "p.jsonl, r.jsonl: share no join key; give both files one of: audio_path, segment_id, feat_id"

    assert expected == mismatch(tmp_path, [prediction(1)], [{"reference_text": "ߊ"}])


def test_missing_contract_fields_are_named_for_every_line(tmp_path: Path) -> None:
    """The row contract asks for a text and a key; all problems of a file at once."""
    incomplete = {name: value for name, value in prediction(2).items() if name != "asr_text"}

    assert (
        "p.jsonl:2: lacks asr_text; add it\np.jsonl:3: partition is a number, not a text; write it in quotes"
    ) == mismatch(tmp_path, [prediction(1), incomplete, prediction(3, partition=3)], [reference(1)])
    assert "r.jsonl:1: lacks reference_text; add it" == mismatch(tmp_path, [incomplete], [{"audio_path": "a/1.wav"}])


def test_malformed_line_is_reported_before_a_missing_key(tmp_path: Path) -> None:
    """Rows that cannot be read carry no key, and that is not their fault."""
    write(tmp_path / "p.jsonl", [prediction(1)])
    write(tmp_path / "r.jsonl", '{ߞ}\n{"reference_text": "ߊ"}\n')

    with pytest.raises(ThunderError) as error:
        read_source(tmp_path, **PAIR)

    what = "is not JSON: JSON is malformed: object keys must be strings"
    assert f"r.jsonl:1:2: {what}; correct or remove the line" == str(error.value)


def test_telemetry_never_holds_reference_side_numbers(tmp_path: Path) -> None:
    """cer_edits is computed from the reference: a prompt that shows it leaks."""
    scalars = {"velocity": 0.25, "cer_edits": 3, "gain": 0.5}

    rows, _ = joined(
        tmp_path,
        [prediction(1, cer_edits=3, trajectory_scalars=scalars)],
        [reference(1)],
        reference_side=("telemetry.gain",),
    )

    assert {"ctc_confidence": 0.5, "velocity": 0.25} == rows[0].telemetry


@pytest.mark.parametrize(("use", "target"), [(("accepted",), "ߊ"), (("accepted", "stable"), "ߞߏ")])
def test_stable_rows_may_teach_to_leave_the_text_alone(tmp_path: Path, use: tuple[str, ...], target: str) -> None:
    """Declared, not assumed: the reference of a stable row may differ."""
    rows, _ = joined(
        tmp_path, [prediction(1, partition="stable"), prediction(2)], [reference(1), reference(2)], use=use
    )

    assert [target, "ߊ"] == [row.target_text for row in rows]


def test_contract_rows_of_other_names_are_mapped(tmp_path: Path) -> None:
    """One map serves both sides: each row gives what it has."""
    predictions = [{**prediction(1), "asr_text": None, "hyp": "ߞߋ", "audio": "a/1.wav", "audio_path": None}]

    rows, _ = joined(
        tmp_path,
        predictions,
        [{"audio": "a/1.wav", "truth": "ߊ"}],
        fields={"asr_text": "hyp", "audio_path": "audio", "reference_text": "truth"},
    )

    assert [("p:a/1.wav", "ߞߋ", "ߊ")] == [(row.row_id, row.asr_text, row.target_text) for row in rows]
