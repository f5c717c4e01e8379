"""What a small file unpacks to is bounded, and each bound is one error that names file, line and limit."""

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.inputs import source
from thunder_train import ThunderError
from thunder_train.data import arrow_rows, correction_reports, formats, json_rows, packed, readers
from thunder_train.data.problems import Problems
from thunder_train.data.rows import Ledger

SMALL = 2**12
"""Stands for each limit of bytes, which a test must not reach in earnest."""


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LINE_LIMIT", SMALL)
    monkeypatch.setattr(packed, "WHOLE_LIMIT", 64 * SMALL)
    monkeypatch.setattr(json_rows, "PIECE", SMALL // 4)
    monkeypatch.setattr(json_rows, "MOST_IN_PIECE", SMALL + SMALL // 4)


def told(path: Path, rows: str = "") -> str:
    """What the reader of a file says of it."""
    name, root = path.name, path.parent
    reader = readers.Reader(name, root, ["text"])
    if formats.suffix(name) == ".json":
        reader = correction_reports.Report(name, root, frozenset(), source(kind="report", rows=rows))
    with pytest.raises(ThunderError) as caught:
        _read(reader)
    return str(caught.value)


def _read(reader: readers.Reader) -> None:
    list(reader.objects())
    reader.finish(Ledger())


AS_LINES = "write its rows as JSONL, a line each"
SHORTER = "write one row a line, as short as a text"


@pytest.mark.parametrize(
    ("content", "rows", "expected"),
    [
        (b"[" + b" " * 64 * SMALL + b"]", "", f"x.json.gz: is longer than 0 MiB; {AS_LINES}"),
        (b"[" + b"0," * SMALL + b"0]", "", f"x.json.gz: holds more than 0 MiB without the end of a row; {SHORTER}"),
        (
            b'{"a":\n' + b"[" * SMALL + b"]" * SMALL + b"}",
            "rows",
            "x.json.gz:1: is nested too deep; correct or remove the line"
            if sys.version_info < (3, 14)  # which reads on while there is room on the stack
            else "x.json.gz: rows: is not a list of objects; set `rows` to the dotted path of the list of rows",
        ),
        (
            b'{"rows": [{}], "junk": "' + b"a" * SMALL + b'"}',
            "rows",
            "x.json.gz: holds more than 0 MiB beside its rows; remove what is not the list of rows",
        ),
        (
            b'[{"a": 1}, {"text": "' + b"a" * SMALL + b'"}]',
            "",
            "x.json.gz: [1]: is longer than 0 MiB; write one row a line, as short as a text",
        ),
    ],
)
def test_a_document_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, content: bytes, rows: str, expected: str
) -> None:
    """
    1.5 MB of gzip held a list that took 10 GB.
    """
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(content))

    assert expected == told(tmp_path / "x.json.gz", rows)


def test_a_line_without_an_end_is_one_problem_and_the_next_line_is_read(tmp_path: Path) -> None:
    """
    The rest of the line is skipped in pieces, so that memory holds one.
    """
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"{" + b"a" * 20 * SMALL + b'\n{"text": 1}\n['))

    problems = told(tmp_path / "x.jsonl.gz").splitlines()

    assert ["x.jsonl.gz:1: is longer than 0 MiB; write one row a line, as short as a text"] == problems[:1]
    assert [problem[:13] for problem in problems[1:]] == ["x.jsonl.gz:3:"]


def test_a_row_of_csv_cannot_go_on_for_ever_in_quotes(tmp_path: Path) -> None:
    """
    Each cell and each line is short, and the row has no end.
    """
    (tmp_path / "x.csv").write_bytes(b"text\nok\n" + b'"a\n",' * SMALL)

    assert "x.csv:3: is not CSV: a row is longer than 0 MiB; correct the quotes of this row" == told(tmp_path / "x.csv")


def test_many_columns_take_no_quadratic_time(tmp_path: Path) -> None:
    """
    A header of megabytes must be refused as fast as it is read.
    """
    (tmp_path / "x.csv").write_text(",".join(["a"] * 2000) + "\n")

    assert "x.csv:1: has the column 'a' twice; keep one of them" == told(tmp_path / "x.csv").splitlines()[0]


def test_a_value_of_parquet_that_all_rows_share_is_not_unpacked_for_each(tmp_path: Path) -> None:
    """
    50 kB of Parquet were 200 GB of rows.
    """
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 4096), pa.array(["a" * 50 * SMALL]))
    pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet", compression="gzip", store_schema=False)

    hint = "write shorter values, and fewer rows in a row group"
    assert f"x.parquet: row 1: has a value longer than 0 MiB; {hint}" == told(tmp_path / "x.parquet")


def test_a_row_group_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A page is unpacked as a whole.
    """
    monkeypatch.setattr(arrow_rows, "GROUP_LIMIT", SMALL)
    pq.write_table(pa.table({"text": [f"{number:09d}" for number in range(999)]}), tmp_path / "x.parquet")

    assert told(tmp_path / "x.parquet").startswith("x.parquet: row 1: text has more than 0 GiB in row group 0; ")


@pytest.mark.parametrize("packed_text", [0, arrow_rows.PACKED_TEXT])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_rows_are_the_same_however_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_text: int, kind: pa.DataType
) -> None:
    """
    What is read decides the numbers of a training.
    """
    monkeypatch.setattr(arrow_rows, "PACKED_TEXT", packed_text)
    texts = [None if number % 7 == 0 else f"ߞߊ {number % 50}" * (number % 9) for number in range(3000)]
    table = pa.table({"text": pa.array(texts, kind), "more": [{"a": [text]} for text in texts]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1000, data_page_size=512)

    rows = list(readers.Reader("x.parquet", tmp_path).objects())

    assert texts == [row.get("text") for _, row in rows]
    assert [{"a": [text]} for text in texts] == [row["more"] for _, row in rows]
    assert [*range(1, 3001)] == [number for number, _ in rows]


def test_a_key_that_stands_twice_beside_the_rows_is_still_found(tmp_path: Path) -> None:
    """
    The rows are checked one by one, and what is around them without them.
    """
    (tmp_path / "x.json").write_text('{"a": 1, "a": 2, "rows": [{"b": 1}]}')
    (tmp_path / "y.json").write_text('{"a": "x: y", "rows": [{"b": "c: d"}]}')

    assert "x.json: has the key 'a' twice; keep one of them" == told(tmp_path / "x.json", "rows")
    report = correction_reports.Report("y.json", tmp_path, frozenset(), source(kind="report", rows="rows"))
    assert [(1, {"b": "c: d"})] == list(report.objects())


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("rows", ["", "a.b"])
def test_items_of_a_long_list_have_their_lines(tmp_path: Path, indent: int | None, rows: str) -> None:
    """
    The list is looked at in pieces, which may end in a text or in an object inside a row.
    """
    inner = [{"c": "},{ }, \n", "d": [{"e": number}, {}]} for number in range(300)]
    content = json.dumps({"z": [1], "a": {"b": inner}} if rows else inner, indent=indent)
    (tmp_path / "x.json").write_text(content)
    document = json_rows.Document("x.json", tmp_path, rows)
    items = list(document.items(Problems(), lambda number, line: f"{number} {line}"))

    assert [(number, value) for number, _, value in items] == [*enumerate(inner, start=1)]
    lines = content.splitlines()
    assert all(not indent or lines[line - 1].strip() == "{" for _, line, _ in items)
    assert bool(indent) == document.has_lines
