"""Rows of CSV and Parquet files, as objects like those of JSONL.

Input: CSV with a header line, UTF-8 and comma-separated; Parquet.  Output: (line or row number, object).
CSV is read with Python's csv, not pyarrow's: only it knows on which line of the file a row starts.
"""

import csv
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from thunder_train.data.streams import LINE_LIMIT, Problems, lines, opened, shown

Numbered = tuple[int, dict[str, Any]]
"""Where an object stands: its first line (JSONL, CSV) or its number (Parquet, a list), from 1; and the object."""


def csv_rows(path: str, root: Path, problems: Problems) -> Iterator[Numbered]:
    """Each row with the line where it starts; empty cells are left out, the others are text."""
    csv.field_size_limit(LINE_LIMIT)
    reader = csv.reader(_decoded(path, root, problems), strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if cells and not header:
                header = cells
                _check_header(path, header, problems)
            elif cells and len(cells) != len(header):
                what = f"has {len(cells)} cells, the header {len(header)}"
                problems.add(what, f"{path}:{line}", "mend the row; quote a cell that holds a comma")
            elif cells:
                yield line, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            line = reader.line_num + 1
    except csv.Error as error:
        problems.add(f"is not CSV: {error}", f"{path}:{line}", "mend the quotes of this row")


def _decoded(path: str, root: Path, problems: Problems) -> Iterator[str]:
    for number, line in lines(path, root, problems):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            problems.add("is not UTF-8", f"{path}:{number}", "save the file as UTF-8")
            yield "\n"


def _check_header(path: str, header: list[str], problems: Problems) -> None:
    for name in sorted({name for name in header if header.count(name) > 1}):
        problems.add(f"has the column {shown(name)} twice", f"{path}:1", "keep one of them")


def parquet_rows(path: str, root: Path, problems: Problems, columns: Collection[str]) -> Iterator[Numbered]:
    """Each row with its number; nulls are left out. columns: those to read, of which not all need be there."""
    import pyarrow as pa  # late: few sources are tables
    import pyarrow.parquet as pq

    number = 0
    with opened(path, root) as stream:
        try:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            names = file.schema_arrow.names
            for name in sorted({name for name in names if names.count(name) > 1}):
                problems.add(f"has the column {shown(name)} twice", path, "keep one of them")
            chosen = [name for name in names if name in columns] or names
            for batch in file.iter_batches(batch_size=4096, columns=chosen, use_threads=False):
                for row in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    try:
                        value = {name: _plain(inner, name) for name, inner in row.items() if inner is not None}
                    except _OddError as odd:
                        problems.add(str(odd), f"{path}: row {number}", "write text or a number, or leave it empty")
                    else:
                        yield number, value
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # KeyError: a map with a key twice
            told = " ".join(str(error).split())[:200]
            problems.add(f"is not whole Parquet: {told}", f"{path}: row {number + 1}", "make or copy it again")


class _OddError(Exception):
    """A value that JSON cannot say: NaN, a time, bytes."""


def _plain(value: Any, name: str) -> Any:
    """A value of a table without the nulls inside it. name: its column, for the error."""
    if isinstance(value, dict):
        return {str(member): _plain(inner, name) for member, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner, name) for inner in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise _OddError(f"{name} holds {value if isinstance(value, float) else f'a {type(value).__name__}'}")
