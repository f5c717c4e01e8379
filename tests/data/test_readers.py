"""Files as others write them, in every format: read whole, or refused with their place and a hint."""

import gzip
import lzma
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.inputs import FIELDS, PREDICTION, lines, read, read_source, refusal, write
from tests.helpers.packing import Pack, zstd
from thunder_train import ThunderError
from thunder_train.data import packed, readers

THREE = [{"text": f"ߞߏ{number}", "id": number} for number in range(3)]


def parquet(path: Path, columns: dict[str, Any], **given: Any) -> None:
    """A Parquet file."""
    pq.write_table(pa.table(columns), path, **given)


def error_of(folder: Path, **given: Any) -> str:
    """The text of the error that a source gives as its files lie there."""
    with pytest.raises(ThunderError) as error:
        read_source(folder, **given)
    return str(error.value)


# Formats


@pytest.mark.parametrize(
    "name", ["in.jsonl", "in.json", "IN.JSONL", "in.jsonl.gz", "in.json.zst", "in.csv", "in.csv.gz"]
)
def test_the_name_tells_the_format(tmp_path: Path, name: str) -> None:
    """The same rows in any wrapping give the same ids and texts."""
    content = b"id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in THREE).encode()
    content = content if ".csv" in name else lines(*THREE)
    packers: dict[str, Pack] = {"gz": gzip.compress, "zst": zstd}
    packed = packers.get(name.rpartition(".")[2], bytes)(content)

    rows, ledger = read(tmp_path, packed, path=name)

    assert [(f"{name.partition('.')[0]}:{row['id']}", row["text"]) for row in THREE] == [
        (row.row_id, row.target_text) for row in rows
    ]
    assert {name: 3} == ledger.rows_read


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    """Nulls count as absent, inside nested values too; columns that no field needs may hold anything."""
    scalars = pa.array(
        [{"velocity": 0.5, "jerk": None}, None], pa.struct({"velocity": pa.float32(), "jerk": pa.float32()})
    )
    columns = {name: [value, value] for name, value in PREDICTION.items() if name != "audio_path"}
    columns |= {"audio_path": ["a", "b"], "trajectory_scalars": scalars, "sound": [b"\xff", b""]}
    parquet(tmp_path / "p.parquet", columns)
    parquet(tmp_path / "r.parquet", {"audio_path": ["b", "a"], "reference_text": ["ߋ", "ߊ"]})

    rows, _ = read_source(tmp_path, kind="rows", path="p.parquet", references="r.parquet")

    assert [("p:a", 1, "ߊ"), ("p:b", 2, "ߋ")] == [(row.row_id, row.line, row.target_text) for row in rows]
    assert [{"ctc_confidence": 0.5, "velocity": 0.5}, {"ctc_confidence": 0.5}] == [row.telemetry for row in rows]


def test_csv_cells_are_numbers_or_json_where_a_field_is(tmp_path: Path) -> None:
    """A table has no types: a confidence is a number all the same, and a text of digits stays a text."""
    row = {**PREDICTION, "asr_text": "12", "feat_id": "007", "trajectory_scalars": '"{""velocity"": 0.25}"'}
    content = ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n"
    write(tmp_path / "p.csv", content)
    write(tmp_path / "r.csv", "feat_id,reference_text\n007,ߊ\n")

    rows, _ = read_source(tmp_path, kind="rows", path="p.csv", references="r.csv")

    assert [("p:007", "12", {"ctc_confidence": 0.5, "velocity": 0.25})] == [
        (row.row_id, row.asr_text, row.telemetry) for row in rows
    ]


def test_the_place_of_a_csv_row_is_its_first_line(tmp_path: Path) -> None:
    """A quoted cell may hold line ends, and an editor counts them."""
    rows, _ = read(tmp_path, '\ufeffid,text\r\n1,"a\r\nb"\r\n\r\n2,"c,""d"""\r\n', path="in.csv")

    assert [("in:1", 2, "a\r\nb"), ("in:2", 5, 'c,"d"')] == [(row.row_id, row.line, row.target_text) for row in rows]


def test_byte_order_mark_and_carriage_returns_are_no_mistake(tmp_path: Path) -> None:
    """Files that passed through Windows are UTF-8 all the same."""
    rows, _ = read(tmp_path, b'\xef\xbb\xbf{"text": "b"}\r\n\r\n{"text": "c"}')

    assert [(1, "b"), (3, "c")] == [(row.line, row.target_text) for row in rows]


def test_colons_in_texts_are_no_repeated_keys(tmp_path: Path) -> None:
    """Keys are counted by their colons; texts may hold any number of them, however the JSON is spaced."""
    texts = ["a:b", '":', '" : ', '{"a":1,"a":2}']

    rows, _ = read(tmp_path, [{"text": text, "x": {"y": [{"z": ":"}]}} for text in texts])

    assert texts == [row.target_text for row in rows]


# Refusals


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "in.jsonl: is empty; add rows, or remove the source"),
        (b"\xef\xbb\xbf \n\n", "in.jsonl: is empty; add rows, or remove the source"),
        (b'{"text": ""}\n\xff{}', "in.jsonl:2: is not UTF-8 but perhaps Windows-1252; save the file as UTF-8"),
        (b'{"text": "\xed\xa0\x80"}', "in.jsonl:1: is not UTF-8; save the file as UTF-8"),
        ('{"text": ""}'.encode("utf-16-le"), "in.jsonl: is UTF-16 without its mark; save the file as UTF-8"),
        (
            '{"text": ""}\n{ߞ}',
            "in.jsonl:2:2: is not JSON: JSON is malformed: object keys must be strings; correct or remove the line",
        ),
        ('\n{"a":\n', "in.jsonl:2:6: is not JSON: Input data was truncated; correct or remove the line"),
        ("[]", "in.jsonl: is empty; add rows, or remove the source"),
        ('{"text": ""}\n[]', "in.jsonl:2: is not a JSON object; correct or remove the line"),
        (
            '{"text": "ߞ\\ud800"}',
            "in.jsonl:1:12: holds half of a character, \\ud800; correct or remove the line",
        ),
        (
            '{"text": "\\\\\\ud83d\\ude00\\udfffx"}',
            "in.jsonl:1:25: holds half of a character, \\udfff; correct or remove the line",
        ),
        (
            '{"text": "a", "x": NaN}',
            "in.jsonl:1: is not JSON: it has no number NaN; write null instead",
        ),
        (
            '{"text": "a", "x": -Infinity}',
            "in.jsonl:1: is not JSON: it has no number Infinity; write null instead",
        ),
        ('{"text": "a", "x": 1e999}', "in.jsonl:1: is not JSON: Number out of range; correct or remove the line"),
        (
            '{"x": ' + "9" * 5000 + "}",
            "in.jsonl:1: is not JSON: Integer value out of range; correct or remove the line",
        ),
        ("[" * 1_000_000, "in.jsonl:1: is nested too deep; correct or remove the line"),
        (
            '{"text": ' + "[" * 1_000_000 + "]" * 1_000_000 + "}",
            "in.jsonl:1: is nested too deep; correct or remove the line",
        ),
        ('{"text": "a", "text": "b"}', "in.jsonl:1: has the key 'text' twice; keep one of them"),
        ('{"text" :"a", "text": "b"}', "in.jsonl:1: has the key 'text' twice; keep one of them"),
        ('{"text": "a", "x": [{"y": 1, "\\u0079": 2}]}', "in.jsonl:1: has the key 'y' twice; keep one of them"),
    ],
)
def test_wrong_lines_are_refused_with_their_place(tmp_path: Path, content: Any, expected: str) -> None:
    """A file of a thousand lines is corrected by line number."""
    assert expected == refusal(tmp_path, content)


def test_of_a_thousand_bad_lines_twenty_are_listed(tmp_path: Path) -> None:
    """An error must fit a screen, and a million of them the memory."""
    content = "".join(f'{{"a{number}": 1, "a{number}": 2}}\n' for number in range(1000))

    problems = refusal(tmp_path, content).split("\n")

    assert (21, "... and 980 more") == (len(problems), problems[-1])


def test_equal_problems_are_one_line_with_their_first_places(tmp_path: Path) -> None:
    """A file of a wrong kind is one mistake, not a thousand."""
    expected = "in.jsonl:2, 3, 4 and 996 more: is not a JSON object; correct or remove the line"

    assert expected == refusal(tmp_path, '{"text": "a"}\n' + "[]\n" * 999)


def test_long_line_is_refused_without_holding_it(tmp_path: Path) -> None:
    """A hundred megabytes in one line are another format, or an accident; the lines after it are read all the same."""
    long = write(tmp_path / "in.jsonl.gz", gzip.compress(b'{"text": "' + b"a" * 100 * 2**20 + b'"}\n[]\n', 1))
    tracemalloc.start()

    message = error_of(tmp_path, path=long.name)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message == (
        "in.jsonl.gz:1: is longer than 16 MiB; write one row a line, as short as a text\n"
        "in.jsonl.gz:2: is not a JSON object; correct or remove the line"
    )
    assert peak < 4 * packed.LINE_LIMIT


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, "gz"), (zstd, "zst"), (lzma.compress, "xz")])
def test_packed_file_that_is_cut_short_is_refused(tmp_path: Path, pack: Pack, suffix: str) -> None:
    """The rows before the cut are not the dataset."""
    name = f"in.jsonl.{suffix}"
    reason = "Compressed file ended before the end-of-stream marker was reached"

    packed_rows = pack(lines(*THREE))

    message = refusal(tmp_path, packed_rows[: len(packed_rows) // 2], path=name)

    assert f"{name}:1: is cut short or damaged: {reason}; make or copy the file again" == message


def test_file_that_is_not_packed_as_its_name_says_is_refused(tmp_path: Path) -> None:
    """Its bytes decide: text under such a name is read, anything else was damaged."""
    what = "in.jsonl.gz: is not a gzip file, although its name says so"

    assert 3 == len(read(tmp_path, THREE, path="in.jsonl.gz")[0])
    assert f"{what}; make or copy the file again, or correct its name" == refusal(
        tmp_path, b"\x00" + gzip.compress(lines(*THREE)), path="in.jsonl.gz"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,text\n", "in.csv: is empty; add rows, or remove the source"),
        ("id,text\n1\n\n2,a,b\n",
         "in.csv:2: has 1 cell, the header 2; correct the row; quote a cell that holds a comma\n"
         "in.csv:4: has 3 cells, the header 2; correct the row; quote a cell that holds a comma"),
        ('id,text\n1,a\n2,"b\n', "in.csv:3: is not CSV: unexpected end of data; correct the quotes of this row"),
        ('id,text\n1,"a"b\n', "in.csv:2: is not CSV: ',' expected after '\"'; correct the quotes of this row"),
        ("text,text\na,b\n", "in.csv:1: has the column 'text' twice; keep one of them"),
        (b"id,text\n1,\xff\n", "in.csv:2: is not UTF-8 but perhaps Windows-1252; save the file as UTF-8"),
        ("id,text\n1,\n", "in.csv:2: lacks text; add it"),
    ],
)  # fmt: skip
def test_wrong_table_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    """A ragged row has lost a cell, and nobody knows which."""
    assert expected == refusal(tmp_path, content, path="in.csv")


def test_csv_cell_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """Neither a word nor NaN is a confidence."""
    head = ",".join(PREDICTION)
    cells = [",".join(map(str, (PREDICTION | {"ctc_confidence": value}).values())) for value in ("high", "nan")]
    write(tmp_path / "r.csv", "audio_path,reference_text\na/1.wav,ߊ\n")
    write(tmp_path / "p.csv", "\n".join([head, *cells]))

    assert (
        "p.csv:2: ctc_confidence is a text, not a number; correct the row\n"
        "p.csv:3: ctc_confidence is not a number; correct the row"
    ) == error_of(tmp_path, kind="rows", path="p.csv", references="r.csv")


def test_values_that_json_cannot_say_are_refused_by_row(tmp_path: Path) -> None:
    """NaN in a table often means absent, but it may as well be a bug upstream."""
    parquet(
        tmp_path / "in.parquet", {"text": ["a", "b", "c"], "asr_text": ["", "", ""], "id": [1.0, float("nan"), 3.0]}
    )

    assert "in.parquet: row 2: id holds nan; write text or a number, or leave it empty" in error_of(
        tmp_path, path="in.parquet"
    )


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """A renamed file, or one that was cut short."""
    parquet(tmp_path / "in.parquet", {"text": ["a"]})
    whole = (tmp_path / "in.parquet").read_bytes()

    message = refusal(tmp_path, whole[:-9], path="in.parquet")

    assert message.startswith("in.parquet: row 1: is damaged: ")
    assert message.endswith("; make or copy the file again")
    hint = "make or copy the file again, or correct its name"
    expected = f"in.parquet: is not a Parquet file, although its name says so; {hint}"
    assert expected == refusal(tmp_path, b"a,b", path="in.parquet")


def test_parquet_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    """As a key that an object has twice: a reader would keep one of them."""
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "in.parquet")

    assert "in.parquet: has the column 'text' twice; keep one of them" in error_of(tmp_path, path="in.parquet")


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    """As an empty file of any format."""
    parquet(tmp_path / "in.parquet", {"text": pa.array([], pa.string())})

    assert "in.parquet: is empty; add rows, or remove the source" == error_of(tmp_path, path="in.parquet")


@pytest.mark.parametrize("name", ["in.txt", "in", "in.gz", "in.txt.bz2"])
def test_format_that_neither_name_nor_content_tells_is_refused(tmp_path: Path, name: str) -> None:
    """Guessing would read half of some files. What begins as JSON is JSON."""
    hint = "call it .jsonl, .json, .csv, .tsv or .parquet as its content is"
    prose = '; write a line of text as {"text": "..."}, a line `ID TEXT` as {"feat_id": "...", "asr_text": "..."}'

    assert f"{name}: is of an unknown format; {hint}{prose}" == refusal(tmp_path, "a,b\n1,2\n", path=name)
    assert 3 == len(read(tmp_path, THREE, path=name)[0])


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    (tmp_path / "in.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    hint = 'name a file, a pattern such as folder/*.jsonl, or set kind = "folder" for a train and a valid file'

    assert f"in.jsonl: is a folder; {hint}" == error_of(tmp_path, path="in.jsonl")
    assert "pipe.jsonl: is not a file; name a file" == error_of(tmp_path, path="pipe.jsonl")
    assert "gone.jsonl: is missing; correct the source's path or add the file" == error_of(tmp_path, path="gone.jsonl")
    assert r"'in\x00.jsonl': is not a path; correct the source's path" == error_of(tmp_path, path="in\0.jsonl")


def test_document_of_a_gigabyte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is held whole while its rows are read; a small packed one may be any size."""
    monkeypatch.setattr(packed, "WHOLE_LIMIT", 10)

    message = refusal(tmp_path, gzip.compress(b"[" + b" " * 11), kind="report", path="in.json.gz", fields=FIELDS)

    assert "in.json.gz: is longer than 0 MiB; write its rows as JSONL, a line each" == message


def test_text_of_a_file_is_whole_and_strict(tmp_path: Path) -> None:
    """Templates are read by the same rules."""
    write(tmp_path / "a.j2", b"\xef\xbb\xbfa\r\n")
    write(tmp_path / "b.j2", b"\n\xff")

    assert "a\r\n" == readers.text("a.j2", tmp_path)
    with pytest.raises(ThunderError, match=r"^b\.j2:2: is not UTF-8 but perhaps Windows-1252; save the file as UTF-8$"):
        readers.text("b.j2", tmp_path)
