"""Rows of typed tables: Parquet, Arrow files and streams, Feather.

Input: a file, and the columns to read.  Output: each row with its number; nulls are left out. Lists and structs are
JSON's lists and objects. Members that are bytes, as the sound of an audio column, are not read.
"""

import io
import math
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from thunder_train import ThunderError
from thunder_train.core import extras
from thunder_train.core.text import quoted
from thunder_train.data import arrow_messages, packed
from thunder_train.data.arrow_messages import TooLongError
from thunder_train.data.csv_rows import check_columns
from thunder_train.data.json_rows import Numbered
from thunder_train.data.problems import Problems

GROUP_LIMIT = 2**30
"""Most bytes, unpacked, of a column in a row group of Parquet or of a batch of Arrow; writers begin another before."""
PACKED_TEXT = 50
"""How many times smaller texts may become; what shrinks more is the same value many times."""
ROWS_AT_ONCE = 64
"""Rows in memory: a value that many rows share is stored once, and unpacked for each of them."""
FILE_MARK = b"ARROW1"


class TypedTable:
    """A table with types. header: the names of its columns, once its rows are read.

    columns: the members to read, also dotted; the file may lack some. It is read whole if it has none of them.
    """

    def __init__(self, path: str, root: Path, problems: Problems, columns: Collection[str]) -> None:
        self.path, self.root, self.problems, self.columns = path, root, problems, columns
        self.header: list[str] = []

    def rows(self) -> Iterator[Numbered]:
        """Each row with its number, from 1. Errors: pyarrow is not installed."""
        try:
            import pyarrow as pa  # late: few sources are typed tables
        except ImportError:
            what, hint = "is Parquet, Arrow or Feather, which needs pyarrow", f"run `{extras.command('parquet')}`"
            raise ThunderError(what, where=self.path, hint=hint) from None

        path, problems, number = self.path, self.problems, 0
        with packed.opened(path, self.root) as stream:
            try:
                is_parquet = stream.peek(4)[:4] == b"PAR1"  # type: ignore[attr-defined]
                if is_parquet and not isinstance(getattr(stream, "raw", None), io.FileIO):
                    problems.add("is Parquet that is packed again", path, "unpack it: Parquet is read from its end")
                    return
                for rows in self._parquet(stream) if is_parquet else self._arrow(stream):
                    for row in rows.to_pylist(maps_as_pydicts="strict"):
                        number += 1
                        try:
                            value = {name: _plain(inner, name) for name, inner in row.items() if inner is not None}
                        except _NoJsonError as error:
                            hint = "write text or a number, or leave it empty"
                            problems.add(str(error), f"{path}: row {number}", hint)
                        else:
                            yield number, value
            except TooLongError as error:
                hint = "write shorter values, and fewer rows in a row group"
                problems.add(str(error), f"{path}: row {number + 1}", hint)
            except (*packed.DAMAGE, KeyError, pa.ArrowException, struct.error) as error:  # KeyError: a key twice
                reason = " ".join(str(error).split())[:200]
                problems.add(f"is damaged: {reason}", f"{path}: row {number + 1}", packed.COPY_AGAIN)

    def _chosen(self, schema: Any) -> list[str]:
        """The columns to read; all but bytes, if none of those is there. Sets the header."""
        import pyarrow as pa

        self.header = names = schema.names
        check_columns(names, self.path, self.problems)
        readable = [field.name for field in schema if not pa.types.is_binary(field.type)]
        return [name for name in names if name in self.columns] or readable

    def _parquet(self, stream: BinaryIO) -> Iterator[Any]:
        """A few rows at a time. Raises TooLongError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        options: dict[str, Any] = {"page_checksum_verification": True, "pre_buffer": False}
        file = pq.ParquetFile(stream, **options)
        chosen = self._chosen(file.schema_arrow)
        types = {name: file.schema_arrow.field(name).type for name in _long_columns(file.metadata, chosen)}
        shared = [name for name, kind in types.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
        if shared:  # a value of such a column is one value in memory, however many rows have it
            file = pq.ParquetFile(stream, read_dictionary=shared, metadata=file.metadata, **options)
        leaves = _leaves(file.metadata, chosen)
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=leaves, use_threads=False):
            yield from _few(batch)

    def _arrow(self, stream: BinaryIO) -> Iterator[Any]:
        """A few rows at a time. Raises TooLongError. An Arrow file is a stream between a mark and a footer."""
        import pyarrow as pa

        with packed.opened(self.path, self.root) as first_pass:
            arrow_messages.check(_after_mark(first_pass), GROUP_LIMIT)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        reader = pa.ipc.open_stream(_after_mark(stream), options=options)
        chosen = self._chosen(reader.schema)
        for batch in reader:
            batch.validate(full=True)  # anyone's bytes: an offset may point anywhere
            yield from _few(batch.select(chosen))


def _after_mark(stream: BinaryIO) -> BinaryIO:
    if stream.peek(8).startswith(FILE_MARK):  # type: ignore[attr-defined]
        stream.read(8)
    return stream


def _few(batch: Any) -> Iterator[Any]:
    """The rows of a batch, so few at a time that their values fit in memory. Raises TooLongError."""
    longest = max(map(_longest, batch.columns), default=0)
    if longest > packed.LINE_LIMIT:
        raise TooLongError(f"has a value longer than {packed.LINE_LIMIT >> 20} MiB")
    at_once = ROWS_AT_ONCE if longest * ROWS_AT_ONCE <= packed.LINE_LIMIT else 1
    return (batch.slice(start, at_once) for start in range(0, batch.num_rows, at_once))


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
    """The columns that may hold a very long value in few bytes. Raises TooLongError for one over GROUP_LIMIT."""
    long = []
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            leaf = chunk.path_in_schema
            name = leaf if leaf in chosen else leaf.partition(".")[0]
            is_read = name in chosen and not _is_bytes(metadata.schema.column(index))
            if is_read and chunk.total_uncompressed_size > GROUP_LIMIT:
                raise TooLongError(f"{quoted(name)[1:-1]} has more than {GROUP_LIMIT >> 30} GiB in row group {group}")
            ratio = chunk.total_uncompressed_size / max(1, chunk.total_compressed_size)
            if is_read and chunk.total_uncompressed_size > packed.LINE_LIMIT and ratio > PACKED_TEXT:
                long.append(name)
    return [*dict.fromkeys(long)]


def _leaves(metadata: Any, chosen: list[str]) -> list[str]:
    """The dotted paths to read of some columns: structs without their members that are bytes."""
    leaves = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    wanted = [leaf.path for leaf in leaves if leaf.path in chosen]
    wanted += [leaf.path for leaf in leaves if leaf.path.partition(".")[0] in chosen and not _is_bytes(leaf)]
    return [*dict.fromkeys(wanted)]


def _is_bytes(leaf: Any) -> bool:
    """Whether a leaf of Parquet is bytes inside a struct or list, which no text is."""
    return "." in leaf.path and leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"


class _NoJsonError(Exception):
    """A value that JSON does not have: NaN, a time, bytes."""


def _plain(value: Any, name: str) -> Any:
    """A value of a table without the nulls inside it. name: its column, for the error."""
    if isinstance(value, dict):
        members = ((str(member), inner) for member, inner in value.items())
        return {member: _plain(inner, name) for member, inner in members if not isinstance(inner, bytes | None)}
    if isinstance(value, list):
        return [_plain(inner, name) for inner in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    shown = value if isinstance(value, float) else "bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"
    raise _NoJsonError(f"{quoted(name)[1:-1]} holds {shown}")
