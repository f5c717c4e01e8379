"""Source files as others write them: read whole, or refused with the place and the mend."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import material
from thunder_train import ThunderError, sources
from thunder_train.rows import Loaded

PREDICTION = {
    "audio_path": "a/1.wav",
    "split": "test",
    "script": "nko",
    "mode": "trajectory",
    "asr_text": "ߞߏ",
    "ctc_confidence": 0.5,
    "partition": "boundary",
}


def read(folder: Path, content: Any) -> Loaded:
    """What a ChatML file gives."""
    return material.read(folder, content, kind="chatml")


def refusal(folder: Path, content: Any) -> str:
    """The text of the error that such a file gives."""
    return material.refusal(folder, content, kind="chatml")


def joined(folder: Path, predictions: list[Any], references: list[Any]) -> Loaded:
    """What two files of the row contract give."""
    for name, rows in (("p.jsonl", predictions), ("r.jsonl", references)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sources.read(material.source(kind="rows", path="p.jsonl", references="r.jsonl"), folder)


def mismatch(folder: Path, predictions: list[Any], references: list[Any]) -> str:
    """The text of the error that two such files give."""
    with pytest.raises(ThunderError) as error:
        joined(folder, predictions, references)
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "in.json: is empty; add rows, or remove the source"),
        (" \n\n", "in.json: is empty; add rows, or remove the source"),
        (b"{}\n\xff{}", "in.json:2: is not UTF-8; save the file as UTF-8"),
        (
            "{}\n{ߞ}",
            "in.json:2:2: is not JSON: JSON is malformed: object keys must be strings; mend or remove the line",
        ),
        ('\n{"a":\n', "in.json:2:6: is not JSON: Input data was truncated; mend or remove the line"),
        ("[]", "in.json:1: is not a JSON object; mend or remove the line"),
        ("{}", "in.json:1: lacks messages; add them"),
        (
            '{"messages": [{"role": "user", "content": null}]}',
            "in.json:1: Expected `str`, got `null` - at `$.messages[0].content`; mend the row",
        ),
        (
            '{"messages": [{"role": "human", "content": "a"}]}',
            "in.json:1: unknown role 'human'; use one of: system, user, assistant\n"
            "in.json:1: is not a question and its answer; end it with the answer to learn",
        ),
    ],
)
def test_wrong_lines_are_refused_with_their_place(tmp_path, content, expected):
    """A file of a thousand lines is mended by line number."""
    assert expected == refusal(tmp_path, content)


def test_missing_file_is_refused(tmp_path):
    """The path as the recipe wrote it, not a machine's own."""
    with pytest.raises(ThunderError) as error:
        sources.read(material.source(), tmp_path)

    assert "in.json: is missing; mend the source's path or add the file" == str(error.value)


def test_path_with_a_null_byte_is_refused(tmp_path):
    """TOML can write one, and Python answers with a ValueError."""
    with pytest.raises(ThunderError) as error:
        sources.read(material.source(path="in\0.json"), tmp_path)

    assert r"'in\x00.json': is no path; mend the source's path" == str(error.value)


def test_a_thousand_bad_lines_are_told_in_twenty(tmp_path):
    """An error must fit a screen."""
    lines = refusal(tmp_path, "[]\n" * 1000).split("\n")

    assert (21, "... and 980 more") == (len(lines), lines[-1])


def test_deep_json_is_refused_not_a_crash(tmp_path):
    """A hostile file must not end in a traceback."""
    text = "[" * 100_000

    assert refusal(tmp_path, text).startswith("in.json:1:100001: is not JSON:")


def test_byte_order_mark_and_carriage_returns_are_no_mistake(tmp_path):
    """Files that passed through Windows are UTF-8 all the same."""
    line = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'

    loaded = read(tmp_path, b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())

    assert [("in:1", "b"), ("in:2", "b")] == [(row.row_id, row.target_text) for row in loaded.rows]


def test_conversations_are_kept_as_they_are(tmp_path):
    """ChatML that others made is not rendered again."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    row = read(tmp_path, {"id": "x", "group": "g", "messages": messages}).rows[0]

    assert ("in:x", "g", messages) == (row.row_id, row.group, list(row.messages))


def test_join_takes_the_first_key_that_both_sides_carry(tmp_path):
    """References without audio_path fall back to segment_id; the order of the files does not matter."""
    predictions = [PREDICTION | {"segment_id": "s1"}, PREDICTION | {"segment_id": "s2", "audio_path": "a/2.wav"}]
    references = [{"segment_id": "s2", "reference_text": "ߓ"}, {"segment_id": "s1", "reference_text": "ߊ"}]

    loaded = joined(tmp_path, predictions, references)

    assert [("p:s1", "a/1.wav", "ߊ"), ("p:s2", "a/2.wav", "ߓ")] == [
        (row.row_id, row.group, row.target_text) for row in loaded.rows
    ]


def test_join_prefers_audio_path_over_segment(tmp_path):
    """Segment names may repeat between recordings; paths do not."""
    predictions = [PREDICTION | {"segment_id": "s"}, PREDICTION | {"segment_id": "s", "audio_path": "a/2.wav"}]
    references = [
        {"audio_path": "a/2.wav", "segment_id": "s", "reference_text": "ߓ"},
        {"audio_path": "a/1.wav", "segment_id": "s", "reference_text": "ߊ"},
    ]

    assert ["ߊ", "ߓ"] == [row.target_text for row in joined(tmp_path, predictions, references).rows]


def test_unjoined_rows_are_counted(tmp_path):
    """A row that finds no partner is lost to training, and must show."""
    predictions = [PREDICTION, PREDICTION | {"audio_path": "a/2.wav"}]
    references = [{"audio_path": name, "reference_text": "ߊ"} for name in ("a/1.wav", "a/3.wav", "a/4.wav")]

    loaded = joined(tmp_path, predictions, references)

    assert {"prediction without a reference": 1, "reference without a prediction": 2} == loaded.dropped
    assert {"p.jsonl": 2, "r.jsonl": 3} == loaded.rows_read


def test_join_key_that_repeats_is_refused(tmp_path):
    """First-wins would pair a hypothesis with another's reference in silence."""
    references = [{"audio_path": "a/1.wav", "reference_text": text} for text in "ߊߋ"]

    assert ("r.jsonl:2: audio_path 'a/1.wav' is also at r.jsonl:1; a join key must be unique") == mismatch(
        tmp_path, [PREDICTION], references
    )


def test_files_without_a_common_key_are_refused(tmp_path):
    """No key, no join: guessing by line order would be worse."""
    assert "p.jsonl, r.jsonl: share no join key; give both files one of: audio_path, segment_id, feat_id" == mismatch(
        tmp_path, [PREDICTION], [{"reference_text": "ߊ"}]
    )


def test_missing_contract_fields_are_named_for_every_line(tmp_path):
    """The row contract's required fields, all problems at once."""
    lame = {name: value for name, value in PREDICTION.items() if name not in ("split", "asr_text")}

    assert ("p.jsonl:2: lacks split, asr_text; add them\nr.jsonl:1: lacks reference_text; add them") == mismatch(
        tmp_path, [PREDICTION, lame], [{"audio_path": "a/1.wav"}]
    )


def test_telemetry_never_holds_reference_side_numbers(tmp_path):
    """cer_edits is computed from the reference: a prompt that shows it leaks."""
    prediction = PREDICTION | {"cer_edits": 3, "trajectory_scalars": {"velocity": 0.25}}

    row = joined(tmp_path, [prediction], [{"audio_path": "a/1.wav", "reference_text": "ߊ"}]).rows[0]

    assert {"ctc_confidence": 0.5, "velocity": 0.25} == row.telemetry
