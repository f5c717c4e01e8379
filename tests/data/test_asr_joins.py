"""Predictions and references that are joined: splits on either side, keys that do not meet, fields of one side."""

from pathlib import Path

import pytest

from tests.data.test_asr_rows import joined
from thunder_train import ThunderError


def test_the_split_of_a_reference_counts(tmp_path: Path) -> None:
    """
    A corpus says in its transcripts what its test set is, and a recogniser's output does not repeat it.
    """
    predictions = [{"feat_id": n, "asr_text": "a", **({"split": "dev"} if n == 2 else {})} for n in range(3)]
    references = [{"feat_id": n, "reference_text": "b", "split": ("test", 0, "valid")[n]} for n in range(3)]

    rows, _ = joined(tmp_path, predictions, references)

    assert [("b", "test"), ("b", "0"), ("b", "dev")] == [(row.reference_text, row.own_split) for row in rows]


@pytest.mark.parametrize("split", ["", "row", "divide", "test"])
def test_two_splits_of_a_row_contradict_each_other(tmp_path: Path, split: str) -> None:
    """
    One of them is wrong, unless the source says where the row goes.
    """
    sides = [{"feat_id": 1, "asr_text": "a", "split": "test"}], [{"feat_id": 1, "reference_text": "b", "split": "x"}]

    if split in ("divide", "test"):
        assert 1 == len(joined(tmp_path, *sides, split=split)[0])
        return
    with pytest.raises(ThunderError) as caught:
        joined(tmp_path, *sides, split=split)

    assert (
        "p.jsonl:1: split is 'test', but 'x' where its reference is; correct one of them, or set split = \"divide\""
    ) == str(caught.value)


def test_keys_of_which_none_is_on_both_sides_are_shown(tmp_path: Path) -> None:
    """
    Paths are often absolute on one side, and that all rows were dropped would not tell.
    """
    with pytest.raises(ThunderError) as caught:
        joined(tmp_path, [{"audio_path": "/d/a", "asr_text": "a"}], [{"audio_path": "a", "reference_text": "b"}])

    assert (
        "p.jsonl, r.jsonl: no audio_path is on both sides: '/d/a' here, 'a' there, for example; "
        "write audio_path alike in both, or map another key in fields"
    ) == str(caught.value)


def test_a_key_of_another_name_in_the_references_is_named(tmp_path: Path) -> None:
    """
    One map serves both files, so that a name of its own must be changed there.
    """
    with pytest.raises(ThunderError) as caught:
        joined(
            tmp_path,
            [{"path": "a", "asr_text": "a"}],
            [{"file_name": "a", "reference_text": "b"}],
            fields={"audio_path": "path"},
        )

    assert (
        "p.jsonl, r.jsonl: share no join key; call the field 'file_name' of the references audio_path, "
        "or give both files one of: audio_path, segment_id, feat_id"
    ) == str(caught.value)


def test_fields_of_the_other_side_are_counted(tmp_path: Path) -> None:
    """
    A recording's name in the references groups no rows.
    """
    references = [{"feat_id": 1, "reference_text": "b", "video_id": "v"}]

    _, ledger = joined(tmp_path, [{"feat_id": 1, "asr_text": "a", "reference_text": "c"}], references)

    assert {"p.jsonl": {"reference_text": 1}, "r.jsonl": {"video_id": 1}} == ledger.unused
