"""Whatever a file holds, reading it gives rows or a ThunderError, and no row is lost in silence."""

import bz2
import gzip
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.inputs import FIELDS, PREDICTION, lines, read_source, report_row
from tests.helpers.packing import Pack, zstd
from thunder_train import ThunderError
from thunder_train.data import json_rows
from thunder_train.data.rows import Ledger, Row

TURNS = [{"role": "user", "content": "ߞ"}, {"role": "assistant", "content": "ߏ"}]
VALID: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": f"ߞߏ{number}"} for number in range(3)],
    "chatml": [{"messages": TURNS, "id": number} for number in range(3)],
    "sharegpt": [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 3,
    "alpaca": [{"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]}] * 3,
    "completions": [{"prompt": "a:b", "completion": str(number), "x": {"y": [1.5, None]}} for number in range(3)],
    "report": [report_row(number, d=bool(number)) for number in range(3)],
    "rows": [PREDICTION | {"audio_path": f"{number}.wav", "feat_id": number} for number in range(3)],
}
REFERENCES = lines(*({"audio_path": f"{number}.wav", "reference_text": "ߊ"} for number in range(1, 4)))
KINDS = st.sampled_from(sorted(VALID))
NAMES = st.sampled_from(
    [
        "in.jsonl",
        "in.json",
        "in.csv",
        "in.tsv",
        "in.parquet",
        "in.arrow",
        "in.jsonl.gz",
        "in.jsonl.xz",
        "in.csv.gz",
        "in",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*PREDICTION, "text", "a"]), inner),
    max_leaves=12,
)
Edits = list[tuple[float, int, bytes]]
PATCHES = st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b":", b"\\ud800"])
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), PATCHES),
    min_size=1,
    max_size=4,
)


def outcome(content: bytes, kind: str, name: str) -> tuple[list[Row], Ledger] | None:
    """What reading these bytes gives; None for a ThunderError. All texts can be written as UTF-8."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        (Path(folder) / "r.jsonl").write_bytes(REFERENCES)
        options = {"fields": FIELDS} if kind == "report" else {"references": "r.jsonl"} if kind == "rows" else {}
        try:
            rows, ledger = read_source(Path(folder), kind=kind, path=name, **options)
        except ThunderError as error:
            str(error).encode()
            return None
    json.loads(msgspec.json.encode(rows))
    return rows, ledger


def assert_no_row_is_lost(content: bytes, kind: str, name: str) -> None:
    """Each line that is not blank is a row, or is reported. What begins as a list is a list, and no lines."""
    result = outcome(content, kind, name)
    if result and not content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        rows, ledger = result
        count = sum(not line.isspace() for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line)
        dropped = [each for each in ledger.dropped if each.file == name]
        assert count == len(rows) + len(dropped) == ledger.rows_read[name]


def mutated(content: bytes, edits: Edits) -> bytes:
    """The bytes with some cut out and others put in. edits: where, as a share; bytes cut; bytes put in."""
    for share, cut, put in edits:
        start = int(share * len(content))
        content = content[:start] + put + content[start + cut :]
    return content


@settings(max_examples=300)
@given(st.binary(max_size=300), KINDS, NAMES)
def test_arbitrary_bytes_give_rows_or_an_error(content: Any, kind: str, name: str) -> None:
    """A renamed picture must not end in a traceback."""
    outcome(content, kind, name)


@settings(max_examples=400)
@given(KINDS, EDITS)
def test_damaged_lines_are_read_or_reported(kind: str, edits: Edits) -> None:
    """A flipped byte may leave another row, but never one row less."""
    if kind != "report":
        assert_no_row_is_lost(mutated(lines(*VALID[kind]), edits), kind, "in.jsonl")


@settings(max_examples=200)
@given(EDITS)
def test_damaged_documents_are_read_or_reported(edits: Edits) -> None:
    """A report is one JSON document, whose rows are decoded one by one."""
    result = outcome(mutated(json.dumps(VALID["report"]).encode(), edits), "report", "in.json")

    assert not result or len(result[0]) + len(result[1].dropped) == result[1].rows_read["in.json"]


@settings(max_examples=200)
@given(EDITS)
def test_damaged_tables_are_read_or_reported(edits: Edits) -> None:
    """A quote in the wrong place may join rows, and then their cells do not fit the header."""
    outcome(mutated('id,text\r\n1,ߞߏ\r\n2,"a,b"\r\n'.encode(), edits), "text", "in.csv")


@settings(max_examples=200)
@given(KINDS, EDITS, st.sampled_from([None, 1]))
def test_damaged_lists_are_read_or_reported(kind: str, edits: Edits, indent: int | None) -> None:
    """A list of rows, on one line or on many."""
    outcome(mutated(json.dumps(VALID[kind], indent=indent).encode(), edits), kind, "in.json")


NESTED = pa.table(
    {
        "text": ["ߞߏ", "a", "b"],
        "id": pa.array(["x", "y", "x"]).dictionary_encode(),
        "audio": [{"path": "p", "bytes": b"\xff"}, None, {"path": None, "bytes": None}],
        "split": ["train", None, "test"],
    }
)


@settings(max_examples=100)
@given(EDITS)
def test_damaged_parquet_is_read_or_reported(edits: Edits) -> None:
    """A flipped byte in its footer, its pages or its checksums."""
    sink = pa.BufferOutputStream()
    pq.write_table(NESTED, sink, write_page_checksum=True)

    outcome(mutated(sink.getvalue().to_pybytes(), edits), "text", "in.parquet")


@settings(max_examples=400)
@given(EDITS, st.sampled_from(["new_stream", "new_file"]), st.sampled_from([None, "lz4", "zstd"]))
def test_damaged_arrow_is_read_or_reported(edits: Edits, writer: str, compression: str | None) -> None:
    """Arrow's own reader trusts offsets and lengths, which a flipped byte may make anything."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with getattr(pa.ipc, writer)(sink, NESTED.schema, options=options) as file:
        file.write_table(NESTED)

    outcome(mutated(sink.getvalue().to_pybytes(), edits), "text", "in.arrow")


@settings(max_examples=300)
@given(st.lists(JSON, min_size=1, max_size=3), KINDS)
def test_any_json_gives_rows_or_an_error(values: list[Any], kind: str) -> None:
    """Well-formed, and of any shape; Python writes NaN and lone surrogates, which are refused."""
    content = "".join(json.dumps(value) + "\n" for value in values).encode()

    if kind != "report":
        assert_no_row_is_lost(content, kind, "in.jsonl")
    outcome(content, kind, "in.json")


@pytest.mark.parametrize(
    ("pack", "suffix"),
    [
        (lambda content: gzip.compress(content, mtime=0), "gz"),
        (zstd, "zst"),
        (bz2.compress, "bz2"),
        (lzma.compress, "xz"),
    ],
)
def test_packed_file_is_refused_wherever_it_is_cut(pack: Pack, suffix: str) -> None:
    """Not one offset may pass for the end."""
    packed = pack(lines(*VALID["text"]))

    whole = [size for size in range(len(packed) + 1) if outcome(packed[:size], "text", f"in.jsonl.{suffix}")]

    assert [len(packed)] == whole


PAIRS = st.lists(st.tuples(st.sampled_from(["a", "b", 'a":', "c:"]), st.integers(0, 2)), max_size=4)
SPACES = st.sampled_from(["", " ", "\t"])


@settings(max_examples=500)
@given(st.lists(PAIRS, max_size=3), SPACES, SPACES)
def test_repeated_keys_are_always_found(objects: list[list[tuple[str, int]]], before: str, after: str) -> None:
    """Counting colons is a short cut, which must never miss a repeated key."""
    inner = [
        "{" + ",".join(f"{json.dumps(key)}{before}:{after}{value}" for key, value in pairs) + "}" for pairs in objects
    ]
    content = f'{{"x"{before}:[{",".join(inner)}], "y": ":"}}'.encode()
    repeated = {key for pairs in objects for key, _ in pairs if [name for name, _ in pairs].count(key) > 1}

    key = json_rows.repeated_key(content, json.loads(content))

    assert key in repeated if repeated else key is None


KEY = st.sampled_from(["", "a", "b", "c", "d"])


@settings(max_examples=300)
@given(st.lists(st.tuples(KEY, KEY), max_size=5), st.lists(st.tuples(KEY, KEY), max_size=5))
def test_a_join_pairs_or_drops_every_row(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> None:
    """Whatever keys both sides carry: pairs agree in one of them, and each other row is dropped by name."""
    predictions = [
        PREDICTION | {"audio_path": f"{number}", "segment_id": segment, "feat_id": feat, "asr_text": f"{number}"}
        for number, (segment, feat) in enumerate(left)
    ]
    references = [
        {"segment_id": segment, "feat_id": feat, "reference_text": f"{number}"}
        for number, (segment, feat) in enumerate(right)
    ]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "p.jsonl").write_bytes(lines(*predictions))
        (Path(folder) / "r.jsonl").write_bytes(lines(*references))
        try:
            rows, ledger = read_source(Path(folder), kind="rows", path="p.jsonl", references="r.jsonl")
        except ThunderError:
            return
    pairs = [(left[int(row.asr_text)], right[int(row.reference_text)]) for row in rows]
    lost = [each.file for each in ledger.dropped]
    assert all(ours[0] == theirs[0] != "" or ours[1] == theirs[1] != "" for ours, theirs in pairs)
    assert (len(left), len(right)) == (len(rows) + lost.count("p.jsonl"), len(rows) + lost.count("r.jsonl"))
