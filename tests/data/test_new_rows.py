"""Rows without references: the prompts of a dataset, a reason for each row that has none, no row lost."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.helpers.inputs import source, write
from tests.helpers.material import dataset
from thunder_train import ThunderError
from thunder_train.config.dataset import Dataset
from thunder_train.data import new_rows, sources
from thunder_train.data.examples import Composer, Example
from thunder_train.data.new_rows import NewRow
from thunder_train.data.rows import Ledger

SILENT = "the recogniser heard nothing"


def corrections(folder: Path, *given: Any, **more: Any) -> Dataset:
    """A dataset of corrections with these sources."""
    write(folder / "prompt.j2", "{{ partition }}: {{ asr_text }}{% for n in telemetry %} {{ n }}{% endfor %}")
    return dataset(sources=given or (source(kind="rows"),), system="s", orthography="", **more)


def read(folder: Path, content: Any, *given: Any, name: str = "new.jsonl", **more: Any) -> list[NewRow]:
    """The new rows in a file of this content."""
    write(folder / name, content)
    return list(new_rows.read(corrections(folder, *given, **more), name, folder))


def test_a_row_has_the_prompt_and_the_id_that_it_would_have_in_the_dataset(tmp_path: Path) -> None:
    """
    An adapter knows no other prompt, and of several templates the id chooses one.
    """
    telemetry = {"ctc_confidence": 0.5, "secret": 1, "cer": 3}
    rows = [
        {"audio_path": "a", "feat_id": "f", "asr_text": " x\u0301y ", "partition": "boundary", "telemetry": telemetry}
    ]
    write(tmp_path / "r.jsonl", [{"audio_path": "a", "reference_text": "z"}])
    joined = source(kind="rows", path="new.jsonl", references="r.jsonl")
    (new,) = read(tmp_path, rows, joined)
    (old,) = sources.read(joined, tmp_path, Ledger())
    example = Composer(corrections(tmp_path, joined), tmp_path).compose(old)

    assert isinstance(example, Example)
    assert (old.row_id, old.telemetry, example.messages[:-1]) == (new.row_id, new.telemetry, new.messages)
    assert ["s", "boundary: x\u0301y ctc_confidence"] == [each.content for each in new.messages]
    assert ({"audio_path": "a", "feat_id": "f"}, " x\u0301y ", "x\u0301y") == (new.keys, new.asr_text, new.hypothesis)


def test_every_row_is_answered_or_has_a_reason(tmp_path: Path) -> None:
    """
    As many rows come out as went in, in their order: a caller joins both by line.
    """
    texts = ["a", "", None, "  ", "\u200b", "a\tb", "a\ufffd", "a"]
    rows = read(tmp_path, [{"id": 1, "asr_text": text} for text in texts])

    assert [1, 2, 3, 4, 5, 6, 7, 8] == [row.line for row in rows]
    assert ["", SILENT, SILENT, SILENT, SILENT] == [row.reason for row in rows[:5]]
    assert "line break or tab U+0009 in the hypothesis" == rows[5].reason
    assert "replacement character U+FFFD in the hypothesis" == rows[6].reason
    assert [True, *[False] * 6, True] == [bool(row.messages) for row in rows]


def test_rows_that_cannot_be_read_are_named_at_once(tmp_path: Path) -> None:
    """
    Before anything is answered, and none is left out in silence.
    """
    with pytest.raises(ThunderError) as error:
        read(tmp_path, '{"asr_text": "a"}\n{"asr_text": \n{"feat_id": "x"}\n{"feat_id": "y"}\n{"asr_text": 7}\n')

    assert [
        "new.jsonl:2:13: is not JSON: Input data was truncated; correct or remove the line",
        "new.jsonl:3, 4: lacks asr_text; add it",
        "new.jsonl:5: asr_text is a number, not a text; write it in quotes",
    ] == str(error.value).split("\n")


@pytest.mark.parametrize(
    ("given", "row"),
    [
        ({"kind": "rows", "fields": {"asr_text": "hyp.text", "feat_id": "n"}}, {"hyp": {"text": "x"}, "n": "1"}),
        ({"kind": "nemo"}, {"audio_filepath": "1", "pred_text": "x", "duration": 1.5}),
        (
            {
                "kind": "report",
                "rows": "results",
                "fields": {"row_id": "n", "asr_text": "h", "reference_text": "r", "proposal_text": "p"},
                "constants": {"proposal_source": "base"},
            },
            {"n": "1", "h": "x"},
        ),
        ({"kind": "rows", "fields": {"asr_text": "hyp"}}, {"feat_id": "1", "asr_text": "x"}),
    ],
    ids=["mapped", "nemo", "report", "the contract's own names"],
)
def test_the_field_map_of_a_source_applies(tmp_path: Path, given: dict[str, Any], row: dict[str, Any]) -> None:
    """
    New rows come from the recogniser whose rows were trained on, or from one that keeps to the contract.
    """
    rows = read(tmp_path, [row], source(kind="nemo"), source(**given))

    assert [("x", "1")] == [(each.asr_text, next(iter(each.keys.values()))) for each in rows]


def test_a_document_of_a_report_is_read_as_one(tmp_path: Path) -> None:
    """
    A source says where the list of rows is.
    """
    given = source(kind="report", rows="results", fields={"row_id": "n", "asr_text": "h"})

    assert ["x", "y"] == [
        each.asr_text for each in read(tmp_path, {"results": [{"h": "x"}, {"h": "y"}]}, given, name="new.json")
    ]


def test_a_reference_is_noticed_and_never_shown(tmp_path: Path) -> None:
    """
    A row may have one; nothing that comes of the row knows it.
    """
    rows = read(tmp_path, [{"asr_text": "a", "reference_text": "SECRET"}, {"asr_text": "a", "reference_text": None}])

    assert [True, False] == [row.has_reference for row in rows]
    assert b"SECRET" not in msgspec.json.encode(rows)


def test_plain_text_has_a_row_a_line(tmp_path: Path) -> None:
    """
    The simplest file of a recogniser. An empty line is a row in which nothing was heard.
    """
    rows = read(tmp_path, "a\r\n\nb", name="new.txt")

    assert [(1, "a", ""), (2, "", SILENT), (3, "b", "")] == [(row.line, row.asr_text, row.reason) for row in rows]
    with pytest.raises(ThunderError, match=r"new\.txt:1: is not UTF-8"):
        read(tmp_path, b"\xff\n", name="new.txt")
    with pytest.raises(ThunderError, match=r"new\.txt: is empty; give a file with rows"):
        read(tmp_path, "", name="new.txt")


def test_hypotheses_are_enough(tmp_path: Path) -> None:
    """
    As in a dataset: the first is what the recogniser wrote.
    """
    assert ["x"] == [each.asr_text for each in read(tmp_path, [{"hypotheses": ["x", "y"]}])]
