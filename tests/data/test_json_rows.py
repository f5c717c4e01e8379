"""JSON of any layout: a row a line, a list, a document."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import lines, read, refusal
from tests.helpers.packing import Pack, zstd

ROWS = [{"text": f"a{number}"} for number in range(3)]
TEXTS = ["a0", "a1", "a2"]


@pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in.ndjson", "in.csv", "in"])
@pytest.mark.parametrize(
    ("content", "places"),
    [
        (lines(*ROWS), [1, 2, 3]),
        (json.dumps(ROWS), [1, 2, 3]),
        (json.dumps(ROWS, indent=1), [2, 5, 8]),
        ("\ufeff\n" + json.dumps(ROWS, indent=1), [3, 6, 9]),
        (json.dumps(ROWS, indent=1).encode("utf-16"), [2, 5, 8]),
    ],
)
def test_the_first_byte_tells_the_layout(tmp_path: Path, name: str, content: Any, places: list[int]) -> None:
    """A list in a .jsonl file and lines in a .json file are as common as the opposite."""
    rows, ledger = read(tmp_path, content, path=name)

    assert (TEXTS, places, {name: 3}) == (
        [row.target_text for row in rows],
        [row.line for row in rows],
        ledger.rows_read,
    )


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("name", ["in.json", "in.json.gz", "in.json.xz"])
def test_the_first_bytes_tell_how_a_file_is_packed(tmp_path: Path, pack: Pack, name: str) -> None:
    """Browsers and servers unpack files, or do not, and keep the name."""
    assert TEXTS == [row.target_text for row in read(tmp_path, pack(json.dumps(ROWS).encode()), path=name)[0]]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("document", "path"), [({"data": ROWS}, "data"), ({"v": 1, "a": {"b": ROWS}}, "a.b")])
def test_list_inside_a_document_is_named(tmp_path: Path, document: Any, path: str, indent: int | None) -> None:
    """The sentence says the key to set, and with that key the rows are read."""
    content = json.dumps(document, indent=indent)

    assert f'in.json:1: lacks text; set rows = "{path}"' == refusal(tmp_path, content, path="in.json")
    assert TEXTS == [row.target_text for row in read(tmp_path, content, path="in.json", rows=path)[0]]


@pytest.mark.parametrize("column", [["1", "2"], {"0": "1", "1": "2"}])
def test_columns_are_no_row(tmp_path: Path, column: Any) -> None:
    """What to_json of pandas writes when it is not told otherwise."""
    hint = 'write an object a line, as to_json(FILE, orient="records", lines=True) of pandas does'

    assert f"in.json:1: holds columns instead of rows; {hint}" == refusal(
        tmp_path, {"text": column, "b": column}, path="in.json"
    )


def test_row_of_a_list_is_named_by_line_or_number(tmp_path: Path) -> None:
    """A line of a megabyte names no row."""
    bad = [{"text": "a"}, {"text": 1}, {"text": "b"}, 5]
    what = "text is a number, not a text; write it in quotes"
    more = "is not a JSON object; correct or remove the row"

    assert f"in.json: row 2: {what}\nin.json: row 4: {more}" == refusal(tmp_path, json.dumps(bad), path="in.json")
    assert f"in.json:5: {what}\nin.json:11: {more}" == refusal(tmp_path, json.dumps(bad, indent=1), path="in.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "\n".join(json.dumps(row, indent=1) for row in ROWS),
            "in.json:4: begins another object: only objects of one line each may follow one another; "
            "write each on a line, as `jq -c . FILE` does, or as one list",
        ),
        ("[1]\n[2]\n", "in.json: holds several lists; write one object a line, or one list of objects"),
        (
            "text,id\na,1\n",
            "in.json: is not JSON: it begins with 'text,id'; write an object a line or a list of objects; "
            "call it .csv or .tsv if it is a table",
        ),
        ('[{"text": "a"}, {"text": "b", "text": "c"}]', "in.json: row 2: has the key 'text' twice; keep one of them"),
        (
            '[\n{"text": "a"},\n{"text": b}]',
            "in.json:3:10: is not JSON: JSON is malformed: invalid character; correct or remove the line",
        ),
        ('["a", "b"]', 'in.json: row 1, 2: is not a JSON object; write it as {"text": "..."}'),
        (
            '[[{"role": "user", "content": "q"}]]',
            'in.json: row 1: is not a JSON object; write it as {"messages": [...]}',
        ),
        (
            '{"text": "a"},\n{"text": "b"},\n',
            "in.json:1, 2: is not JSON: a comma follows the object; remove the comma, or make the file one list",
        ),
        (
            "[{'text': 'a'}]",
            "in.json:1: is not JSON: its texts stand between ' instead of \"; write it with json.dumps instead of str",
        ),
        (
            '{"text": "a"}\r{"text": "b"}\r',
            "in.json: has the line ends of old Macs, CR alone; save it with LF at line ends",
        ),
        (
            json.dumps({"u1": {"text": "a"}, "u2": {"text": "b"}}),
            "in.json:1: lacks text; write a list of rows instead of an object that holds them by name, "
            "or map them in fields",
        ),
    ],
)
def test_other_layouts_are_told(tmp_path: Path, content: str, expected: str) -> None:
    """What to do depends on what the file is."""
    assert expected == refusal(tmp_path, content, path="in.json")


def test_path_of_rows_is_refused_where_there_is_none(tmp_path: Path) -> None:
    """A key that does nothing would hide a mistake."""
    hint = "leave it out: the lines of this file are its rows"

    assert f"in.jsonl: rows: has no member 'data'; {hint}" == refusal(tmp_path, ROWS, rows="data")
    assert f"in.csv: rows: has no member 'data'; {hint}" == refusal(tmp_path, "text\na\n", rows="data", path="in.csv")
    assert "in.json: is empty; add rows, or remove the source" == refusal(tmp_path, "\n", rows="data", path="in.json")
