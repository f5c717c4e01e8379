"""Tables with types: nested values, Arrow of both layouts, and what a damaged or hostile one may claim."""

import gzip
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from tests.helpers.inputs import read_source
from thunder_train import ThunderError
from thunder_train.core import extras
from thunder_train.data import arrow_rows

TURNS = [{"role": "user", "content": "q", "weight": None}, {"role": "assistant", "content": "a", "weight": None}]
SOUND = {"audio": [{"bytes": b"\xff\x00", "path": "a.wav"}, {"bytes": None, "path": "b.wav"}]}


def save(path: Path, table: pa.Table, compression: str | None = None) -> str:
    """Write a table in the format that the name says: Parquet, an Arrow file (.arrow), a stream (.ipc)."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path.name
    options = pa.ipc.IpcWriteOptions(compression=compression)
    writer = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
    with writer(str(path), table.schema, options=options) as file:
        file.write_table(table)
    return path.name


def error_of(folder: Path, **given: Any) -> str:
    """The text of the error that a source gives."""
    with pytest.raises(ThunderError) as error:
        read_source(folder, **given)
    return str(error.value)


FORMATS = pytest.mark.parametrize("name", ["in.parquet", "in.arrow", "in.ipc"])


@FORMATS
def test_members_of_structs_are_fields_and_sounds_are_not_read(tmp_path: Path, name: str) -> None:
    """An audio column of `datasets` holds a path and the sound itself."""
    texts = {"asr_text": ["x", None], "reference_text": ["y", "z"], "more": [b"1", b"2"]}
    save(tmp_path / name, pa.table(SOUND | texts))

    rows, ledger = read_source(tmp_path, kind="rows", path=name, fields={"audio_path": "audio.path"})

    assert [("in:a.wav", "x", "y"), ("in:b.wav", "", "z")] == [
        (row.row_id, row.asr_text, row.reference_text) for row in rows
    ]
    assert {"more": 2} == ledger.unused[name]


@FORMATS
@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("chatml", {"messages": [TURNS] * 2}),
        ("sharegpt", {"conversations": [{"from": ["human", "gpt"], "value": ["q", "a"]}] * 2}),
        ("sharegpt", {"conversations": [[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]] * 2}),
        ("completions", {"prompt": pa.array(["q"] * 2).dictionary_encode(), "completion": ["a", "a"]}),
        ("completions", {"prompt": pa.array(["q"] * 2, pa.large_string()), "completion": ["a", "a"]}),
    ],
)
def test_lists_and_dictionaries_are_values(tmp_path: Path, name: str, kind: str, columns: dict[str, Any]) -> None:
    """A list of structs, `datasets`' Sequence (a struct of lists), a column of repeated words."""
    save(tmp_path / name, pa.table(columns))

    rows, _ = read_source(tmp_path, kind=kind, path=name)

    assert [["q", "a"]] * 2 == [[message["content"] for message in row.messages] for row in rows]


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("name", ["in.arrow", "in.ipc", "in.feather"])
def test_arrow_may_be_compressed(tmp_path: Path, name: str, compression: str | None) -> None:
    """Feather is by default."""
    table = pa.table({"text": [f"a{number}" for number in range(1000)]})
    if name == "in.feather":
        feather.write_feather(table, tmp_path / name, compression=compression or "uncompressed")
    else:
        save(tmp_path / name, table, compression)

    rows, _ = read_source(tmp_path, path=name)

    assert (1000, "a999", 1000) == (len(rows), rows[-1].target_text, rows[-1].line)


@pytest.mark.parametrize("name", ["in.arrow", "in.ipc"])
def test_arrow_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    """Arrow's own reader takes a stream without its end for whole, and would give fewer rows."""
    save(tmp_path / name, pa.table({"text": ["a", "b"]}))
    content = (tmp_path / name).read_bytes()
    end = content.rindex(b"\xff\xff\xff\xff\x00\x00\x00\x00") + 8

    for size in range(0, end, 8):
        (tmp_path / name).write_bytes(content[:size])
        assert error_of(tmp_path, path=name).startswith(f"{name}: ")


def test_batch_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes may say that they unpack to any number; they are not unpacked."""
    monkeypatch.setattr(arrow_rows, "GROUP_LIMIT", 2**20)
    save(tmp_path / "in.ipc", pa.table({"text": ["a" * 2**21]}), "zstd")
    hint = "write shorter values, and fewer rows in a row group"

    assert (tmp_path / "in.ipc").stat().st_size < 2**12
    assert f"in.ipc: row 1: has more than 0 GiB in a batch; {hint}" == error_of(tmp_path, path="in.ipc")


@pytest.mark.parametrize(
    ("columns", "given", "expected"),
    [
        (
            {"translation": [{"en": "a", "fr": "b"}]},
            {"kind": "completions"},
            "in.parquet: lacks prompt, completion; its columns are translation.en, translation.fr; map them in fields",
        ),
        (
            {"messages": [TURNS]},
            {"kind": "text"},
            'in.parquet: lacks text; its columns are messages; its rows have messages: set kind = "chatml"',
        ),
        (
            {"text": [b"\xff"]},
            {},
            "in.parquet: row 1: text holds bytes; write text or a number, or leave it empty",
        ),
    ],
)
def test_columns_that_do_not_fit_are_shown(tmp_path: Path, columns: Any, given: Any, expected: str) -> None:
    """As the header of a text table."""
    save(tmp_path / "in.parquet", pa.table(columns))

    assert expected == error_of(tmp_path, **{"path": "in.parquet"} | given)


def test_parquet_that_is_packed_again_is_refused(tmp_path: Path) -> None:
    """It is read from its end, for which it would be unpacked again and again."""
    save(tmp_path / "in.parquet", pa.table({"text": ["a"]}))
    (tmp_path / "in.parquet.gz").write_bytes(gzip.compress((tmp_path / "in.parquet").read_bytes()))

    expected = "in.parquet.gz: is Parquet that is packed again; unpack it: Parquet is read from its end"
    assert expected == error_of(tmp_path, path="in.parquet.gz")


@FORMATS
def test_without_pyarrow_a_typed_table_names_the_command_that_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """
    Few users have Parquet, and pyarrow takes as much room as half of all other packages.
    """
    path = save(tmp_path / name, pa.table({"feat_id": ["a"], "asr_text": ["b"]}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(extras, "command", lambda extra: f"EXTRA={extra} ./doit")

    error = error_of(tmp_path, kind="rows", path=path)

    assert f"{path}: is Parquet, Arrow or Feather, which needs pyarrow; run `EXTRA=parquet ./doit`" == error
