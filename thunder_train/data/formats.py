"""File formats as others write them: JSON lines, whole JSON documents, CSV, Parquet; plain or packed.

Input: regular files, also .gz and .zst.  Output: lines, bytes, or objects with their line or row number. Problems of a
file are collected in `Problems`, with `file:line:column` where the format has it.
CSV is read with Python's csv, not pyarrow's: only it knows on which line of the file a row starts.
"""

import csv
import gzip
import io
import json
import math
import re
import stat
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from thunder_train import SHOWN_PROBLEMS, ThunderError, raise_all
from thunder_train.core.text import quoted

LINE_LIMIT = 16 * 2**20
"""Most bytes of a line, its end included: a row is a short text, so a longer line is another format or an accident."""
WHOLE_LIMIT = 2**28
"""Most bytes, unpacked, of a file that is read whole: a gzip file of a megabyte may hold a gigabyte."""
VALUES_LIMIT = 2**23
"""Most values of such a file: each takes some 75 bytes of memory, and may be two bytes in the file."""
GROUP_LIMIT = 2**30
"""Most bytes, unpacked, of a column in a row group of Parquet; writers begin another long before."""
PACKED_TEXT = 50
"""How many times smaller texts may become; what shrinks more is the same value many times."""
ROWS_AT_ONCE = 64
"""Rows of Parquet in memory: a value that many rows share is stored once, and unpacked for each of them."""
AS_LINES = "write its rows as JSONL, a line each"
SHORTER = "write one row a line, as short as a text"
BUFFER = 2**18
DAMAGE = (OSError, EOFError, zlib.error, ValueError)
"""What gzip, zlib and pyarrow raise for a file that is cut short or damaged."""
DECODE = msgspec.json.Decoder().decode
HALF = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)", re.DOTALL)
"""Group 1: an escape that is half of a surrogate pair, without the other half."""
Numbered = tuple[int, dict[str, Any]]
"""The place of an object, from 1: its first line (JSONL, CSV) or its number (Parquet, a list); and the object."""


class Problems:
    """Problems of one file: the first few are kept, the others counted, however many there are."""

    def __init__(self) -> None:
        self.first: list[ThunderError] = []
        self.more = 0

    def add(self, what: str, where: str, hint: str) -> None:
        """Note one problem."""
        self.keep(ThunderError(what, where=where, hint=hint))

    def keep(self, problem: ThunderError) -> None:
        """Note one problem that is an error already."""
        if len(self.first) < SHOWN_PROBLEMS:
            self.first.append(problem)
        else:
            self.more += 1

    def raise_all(self) -> None:
        """Raise one error that holds them all; do nothing when there is none."""
        raise_all(self.first + ([ThunderError(f"... and {self.more} more")] if self.more else []))


# Opening


@contextmanager
def opened(path: str, root: Path) -> Iterator[BinaryIO]:
    """The bytes of a file under root, unpacked as its name says.

    Errors: missing, unreadable, and anything but a regular file, which might never end.
    """
    with _regular(path, root) as file:
        yield _unpacked(path, file)


def _regular(path: str, root: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG((root / path).stat().st_mode):
            hint = "name a file; for those of a folder write a pattern, as folder/*.jsonl"
            raise ThunderError("is not a file", where=path, hint=hint)
        return open(root / path, "rb", buffering=BUFFER)
    except FileNotFoundError:
        raise ThunderError("is missing", where=path, hint="correct the source's path or add the file") from None
    except ValueError:
        raise ThunderError("is not a path", where=repr(path), hint="correct the source's path") from None
    except OSError as error:
        hint = "check the path and its rights"
        raise ThunderError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error


def _unpacked(path: str, file: BinaryIO) -> BinaryIO:
    if path.lower().endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER)
    if path.lower().endswith(".zst"):
        import pyarrow as pa  # late: few files are packed so, and it takes a fifth of a second

        return io.BufferedReader(pa.CompressedInputStream(file, "zstd"), BUFFER)
    return file


def whole(path: str, root: Path) -> bytes:
    """The bytes of a file, a byte-order mark skipped. Errors: as `opened`; damaged; over WHOLE_LIMIT."""
    with opened(path, root) as stream:
        try:
            content = stream.read(WHOLE_LIMIT + 1)
        except DAMAGE as error:
            raise ThunderError(f"is cut short or damaged: {error}", where=path, hint="make or copy it again") from None
    if len(content) > WHOLE_LIMIT:
        raise ThunderError(f"is longer than {WHOLE_LIMIT >> 20} MiB", where=path, hint=AS_LINES)
    return content.removeprefix(b"\xef\xbb\xbf")


def lines(path: str, root: Path, problems: Problems) -> Iterator[tuple[int, bytes]]:
    """Each line and its number from 1, a byte-order mark skipped; over-long lines and a damaged end are problems."""
    with opened(path, root) as stream:
        number = 0
        try:
            while line := stream.readline(LINE_LIMIT + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if len(line) > LINE_LIMIT:
                    what = f"is longer than {LINE_LIMIT >> 20} MiB"
                    problems.add(what, f"{path}:{number}", SHORTER)
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(LINE_LIMIT)
                else:
                    yield number, line
        except DAMAGE as error:
            what = f"is cut short or damaged: {error}"
            problems.add(what, f"{path}:{number + 1}", "make or copy the file again")


# JSON


def repeated_key(content: bytes, value: dict[str, Any]) -> str | None:
    """A key that some object of a JSON text has twice; decoders keep the last. value: the text, decoded.

    Every key is followed by a colon, so as many colons as keys prove that none is repeated. Only when texts hold colons
    too, the JSON is read again to make sure.
    """
    colons = content.count(b":")
    if colons in (len(value), _shallow(value)) or colons == count_keys(value):
        return None
    spaced = any(space in content for space in (b" :", b"\t:", b"\r:", b"\n:"))
    if not spaced and content.count(b'":') == count_keys(value):
        return None
    return first_repeated(content)


def _shallow(value: dict[str, Any]) -> int:
    """Keys of an object and of the objects in it, no deeper: nearly always all there are, and fast."""
    return len(value) + sum([len(inner) for inner in value.values() if inner.__class__ is dict])


def count_keys(value: Any) -> int:
    """Keys of all objects inside a value."""
    count, left = 0, [value]
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            count += len(inner)
            left.extend(inner.values())
        elif isinstance(inner, list):
            left.extend(inner)
    return count


def first_repeated(content: bytes) -> str | None:
    """The first key that an object of a JSON text has twice."""
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        repeated.extend(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]

    json.loads(content.decode(), object_pairs_hook=look)
    return repeated[0] if repeated else None


def fault(content: bytes, path: str, first_line: int, error: Exception) -> ThunderError:
    """Why bytes are not JSON, and where. first_line: the line of the file on which they start; error: the decoder's."""
    try:
        content.decode()
    except UnicodeDecodeError as wrong:
        return not_utf8(content, wrong, path, first_line)
    hint = "correct or remove the line"
    if isinstance(error, RecursionError):
        return ThunderError("is nested too deep", where=f"{path}:{first_line}", hint=hint)
    message, _, byte = str(error).removesuffix(")").rpartition(" (byte ")
    if isinstance(error, msgspec.ValidationError):  # a number that no float or int holds; msgspec does not say where
        what = f"is not JSON: {str(error).partition(' - at ')[0]}"
        return ThunderError(what, where=f"{path}:{first_line}", hint=hint)
    before = content[: int(byte)] if message else content.rstrip()
    what = f"is not JSON: {message or error}"
    half = next((match for match in HALF.finditer(content) if match[1]), None)
    if half and (not message or "surrogate" in message):
        before, what = content[: half.start()], f"holds half of a character, {half[1].decode()}"
    text = before.decode(errors="ignore")
    line, column = first_line + text.count("\n"), len(text) - text.rfind("\n")
    return ThunderError(what, where=f"{path}:{line}:{column}", hint=hint)


def not_utf8(content: bytes, error: UnicodeDecodeError, path: str, first_line: int) -> ThunderError:
    """The error for bytes that are not UTF-8, with their line."""
    line = first_line + content.count(b"\n", 0, error.start)
    return ThunderError("is not UTF-8", where=f"{path}:{line}", hint="save the file as UTF-8")


# Tables


def csv_rows(path: str, root: Path, problems: Problems) -> Iterator[Numbered]:
    """Each row with the line where it starts; empty cells are left out, the others are text."""
    csv.field_size_limit(LINE_LIMIT)
    source = _CsvLines(path, root, problems)
    reader = csv.reader(source, strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if cells and not header:
                header = cells
                _check_columns(header, f"{path}:1", problems)
            elif cells and len(cells) != len(header):
                what = f"has {len(cells)} cells, the header {len(header)}"
                problems.add(what, f"{path}:{line}", "correct the row; quote a cell that holds a comma")
            elif cells:
                yield line, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            line = reader.line_num + 1
            source.row_bytes = 0
    except csv.Error as error:
        problems.add(f"is not CSV: {error}", f"{path}:{line}", "correct the quotes of this row")


class _CsvLines:
    """The lines of a CSV file as text. row_bytes: read since the row began, which quotes let go on for many lines."""

    def __init__(self, path: str, root: Path, problems: Problems) -> None:
        self.path, self.problems, self.row_bytes = path, problems, 0
        self.lines = lines(path, root, problems)

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        number, line = next(self.lines)
        self.row_bytes += len(line)
        if self.row_bytes > LINE_LIMIT:
            raise csv.Error(f"a row is longer than {LINE_LIMIT >> 20} MiB")
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.problems.add("is not UTF-8", f"{self.path}:{number}", "save the file as UTF-8")
            return "\n"


def _check_columns(names: list[str], where: str, problems: Problems) -> None:
    for name in sorted(name for name, count in Counter(names).items() if count > 1):
        problems.add(f"has the column {quoted(name)} twice", where, "keep one of them")


def parquet_rows(path: str, root: Path, problems: Problems, columns: Collection[str]) -> Iterator[Numbered]:
    """Each row with its number; nulls are left out. columns: those to read; the file may lack some of them."""
    import pyarrow as pa  # late: few sources are tables

    number = 0
    with opened(path, root) as stream:
        try:
            for rows in _parquet_tables(stream, path, problems, columns):
                for row in rows.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    try:
                        value = {name: _plain(inner, name) for name, inner in row.items() if inner is not None}
                    except _NoJsonError as error:
                        problems.add(str(error), f"{path}: row {number}", "write text or a number, or leave it empty")
                    else:
                        yield number, value
        except _TooLongError as error:
            problems.add(str(error), f"{path}: row {number + 1}", "write shorter values, and fewer rows in a row group")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # KeyError: a map with a key twice
            reason = " ".join(str(error).split())[:200]
            problems.add(f"is not whole Parquet: {reason}", f"{path}: row {number + 1}", "make or copy it again")


class _TooLongError(Exception):
    """A table that would take more memory than a row of text ever needs."""


def _parquet_tables(stream: BinaryIO, path: str, problems: Problems, columns: Collection[str]) -> Iterator[Any]:
    """A few rows at a time. Raises _TooLongError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=False)
    names = file.schema_arrow.names
    _check_columns(names, path, problems)
    chosen = [name for name in names if name in columns] or names
    types = {name: file.schema_arrow.field(name).type for name in _long_columns(file.metadata, chosen)}
    shared = [name for name, kind in types.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    if shared:  # a value of such a column is one value in memory, however many rows have it
        more = {"read_dictionary": shared, "metadata": file.metadata}
        file = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=False, **more)
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=chosen, use_threads=False):
        longest = max(map(_longest, batch.columns), default=0)
        if longest > LINE_LIMIT:
            raise _TooLongError(f"has a value longer than {LINE_LIMIT >> 20} MiB")
        at_once = ROWS_AT_ONCE if longest * ROWS_AT_ONCE <= LINE_LIMIT else 1
        yield from (batch.slice(start, at_once) for start in range(0, batch.num_rows, at_once))


def _longest(column: Any) -> int:
    """Bytes of the longest text of a column; of a nested column those of a row on average."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    kind = values.type
    if any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        return int(pc.max(pc.binary_length(values)).as_py() or 0)
    return int(values.nbytes // max(1, len(values)))


def _long_columns(metadata: Any, chosen: list[str]) -> list[str]:
    """The columns that may hold a very long value in few bytes. Raises _TooLongError for one over GROUP_LIMIT."""
    found = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            name = chunk.path_in_schema.partition(".")[0]
            if name in chosen and chunk.total_uncompressed_size > GROUP_LIMIT:
                raise _TooLongError(f"{name} has more than {GROUP_LIMIT >> 30} GiB in row group {group}")
            packed = chunk.total_uncompressed_size / max(1, chunk.total_compressed_size)
            if name in chosen and chunk.total_uncompressed_size > LINE_LIMIT and packed > PACKED_TEXT:
                found[name] = True
    return [*found]


class _NoJsonError(Exception):
    """A value that JSON does not have: NaN, a time, bytes."""


def _plain(value: Any, name: str) -> Any:
    """A value of a table without the nulls inside it. name: its column, for the error."""
    if isinstance(value, dict):
        return {str(member): _plain(inner, name) for member, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner, name) for inner in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise _NoJsonError(f"{name} holds {value if isinstance(value, float) else f'a {type(value).__name__}'}")
