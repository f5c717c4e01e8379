"""Reads the rows of a source file strictly: every malformed byte, missing field and wrong type is an error.

Input: JSON lines, lists and documents, text tables, Parquet and Arrow, as others wrote them.  Output: objects or
structs with their place. A `Reader` streams one file, and raises all its problems together at the end.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.core import files
from thunder_train.data import dataset_folder, foreign, formats, json_rows, kinds, packed
from thunder_train.data.arrow_rows import TypedTable
from thunder_train.data.csv_rows import Table
from thunder_train.data.field_map import FieldMap, decoded
from thunder_train.data.json_rows import Numbered
from thunder_train.data.packed import not_utf8, whole
from thunder_train.data.problems import Problems, in_words
from thunder_train.data.rows import Ledger, key_text

STRUCTURED = (
    *("messages", "conversations", "history", "tools", "trajectory_scalars", "telemetry", "witness", "edit_budget"),
    *("reason_codes", "hypotheses", "n_best_hypotheses", "char_posteriors_summary"),
)
"""Fields that may hold their value as a text of JSON: a cell of a table has no other way."""
NUMBERS = ("trajectory_scalars", "telemetry", "edit_budget", "char_posteriors_summary")
"""Those whose members are numbers where a cell looks like one."""
SHARD = re.compile(r"data-\d{5}-of-\d{5}")
"""What the library `datasets` calls each file of any dataset that it saves."""
Shape = TypeVar("Shape", bound=msgspec.Struct)


def text(path: str, root: Path) -> str:
    """The text of a file under root, a byte-order mark skipped. Errors: missing, unreadable, not UTF-8, empty."""
    content = whole(path, root)
    if not content.strip():
        raise ThunderError("is empty", where=path, hint="add rows, or remove the source")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(content, error, path, 1) from None


def paths(pattern: str, root: Path) -> list[str]:
    """The files that match a source's path; at least one. Raises ThunderError for an address of another machine."""
    foreign.refuse_address(pattern)
    matches = files.expand(pattern, root)
    if not matches:
        raise ThunderError("matches no file", where=pattern, hint="correct the source's path or add the files")
    return (dataset_folder.rows_in(pattern, root) if (root / pattern).is_dir() else []) or matches


@cache
def stem(path: str) -> str:
    """The first part of the ids of a file's rows: its name up to the first dot; of a saved dataset with its folder."""
    name, folder = Path(path).name.partition(".")[0], Path(path).parent.name
    return f"{folder}{name.removeprefix('data')}" if folder and SHARD.fullmatch(name) else name


def place(path: str, line: int, is_numbered: bool) -> str:
    """The place of a row for error messages. is_numbered: line is its number."""
    return f"{path}: row {line}" if is_numbered else f"{path}:{line}"


def full_id(path: str, name: str | int | float, row: msgspec.Struct) -> str:
    """The id of a row in the dataset: its file's stem and its own id there, or a digest of its content."""
    name = key_text(name)
    if not name:
        name = hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:12]
    return f"{stem(path)}:{name}"


class Reader:
    """One source file, read once from its start.

    columns: those to read of a typed table.  source: for the hints of its problems, and for the path of the list of
    rows in a JSON document.
    """

    def __init__(self, path: str, root: Path, columns: Collection[str] = (), source: Source | None = None) -> None:
        self.path, self.root, self.columns, self.source = path, root, columns, source
        self.problems = Problems(path)
        self.count = 0
        self.unused: Counter[str] = Counter()
        """Fields that the field map does not read, and the rows that have them."""
        self.form = formats.form(path, root)
        self.layout = json_rows.layout(path, root) if self.form == formats.JSON else json_rows.LINES
        if source and source.rows and self.layout == json_rows.LINES:
            hint = "leave it out: the lines of this file are its rows"
            raise ThunderError(f"has no member {source.rows!r}", where=f"{path}: rows", hint=hint)
        self.part: packed.Part | None = None
        """The lines that are read, if not all."""
        self.table: Table | TypedTable | None = None
        self.is_numbered = self.form == formats.TYPED
        """Whether rows are known by their number instead of their line."""
        self.raw: dict[str, Any] = {}
        """The row that was read last, as its file has it."""

    def where(self, line: int) -> str:
        """The place of a row for error messages."""
        return place(self.path, line, self.is_numbered)

    def objects(self) -> Iterator[Numbered]:
        """Each object with its place; any other value is a problem."""
        if self.form == formats.TABLE:
            self.table = Table(self.path, self.root, self.problems)
        elif self.form == formats.TYPED:
            self.table = TypedTable(self.path, self.root, self.problems, self.columns)
        objects = self.table.rows() if self.table else self._json()
        for item in objects:
            self.count += 1
            yield item

    def _json(self) -> Iterator[Numbered]:
        rows, layout = self.source.rows if self.source else "", self.layout
        if layout == json_rows.LINES or (layout == json_rows.ONE_LINE and not rows):
            return json_rows.line_rows(self.path, self.root, self.problems, self.part)
        if layout == json_rows.OBJECT and not rows:
            return iter([(1, json_rows.single(self.path, self.root))])
        return self._document(json_rows.Document(self.path, self.root, rows))

    def _document(self, document: json_rows.Document) -> Iterator[Numbered]:
        self.is_numbered = not document.has_lines
        for number, line, value in document.items(
            self.problems, lambda number, line: self.where(number if self.is_numbered else line)
        ):
            yield number if self.is_numbered else line, value

    def mapped(self, field_map: FieldMap) -> Iterator[Numbered]:
        """Each object in canonical fields; a word that no enum lists is a problem, and its row is left out."""
        columns = field_map.columns
        for line, raw in self.objects():
            self.raw = raw
            if not columns.issuperset(raw):
                for name in raw.keys() - columns:
                    self.unused[name] += 1
            values, problems = field_map.applied(raw)
            for what, hint in problems:
                self.problems.add(what, self.where(line), hint)
            if not problems:
                yield line, values

    def mapped_rows(self, field_map: FieldMap, shape: type[Shape]) -> Iterator[tuple[int, Shape]]:
        """Each row as a struct with its place; a missing or wrong field is a problem, and its row is left out."""
        for line, values in self.mapped(field_map):
            row = self.shaped(line, values, shape)
            if row is not None:
                yield line, row

    def shaped(self, line: int, value: dict[str, Any], shape: type[Shape]) -> Shape | None:
        """The object as a struct; None, and a problem, when a field is missing or of a wrong type.

        Fields that the struct does not have are ignored, null counts as absent, a cell of CSV may be a number or JSON.
        """
        try:
            if self.form == formats.TABLE:
                return _from_cells(value, shape)
            return msgspec.convert(value, shape)
        except (ValueError, RecursionError):
            cells = {name: decoded(item) if name in STRUCTURED else item for name, item in value.items()}
            given = {name: item for name, item in cells.items() if item is not None or name in _nullable(shape)}
        missing = [name for name in _required(shape) if name not in given]
        if self.layout in (json_rows.ONE_LINE, json_rows.OBJECT) and json_rows.are_columns(value):
            self.problems.add("holds columns instead of rows", self.where(line), json_rows.AS_RECORDS)
            return None
        if missing:
            self.add_missing(missing, line)
            return None
        try:
            return _from_cells(given, shape) if self.form == formats.TABLE else msgspec.convert(given, shape)
        except (ValueError, RecursionError) as error:
            what, hint = in_words(str(error))
            self.problems.add(what, self.where(line), "correct the row" if self.form == formats.TABLE else hint)
            return None

    def add_missing(self, missing: list[str], line: int) -> None:
        """A problem for fields that a row lacks. Columns that a table lacks are the problem of the file."""
        if not self.add_missing_columns(missing):
            hint = kinds.hint(self.raw, missing, self.source, self.columns)
            self.problems.add(f"lacks {', '.join(missing)}", self.where(line), hint)

    def add_missing_columns(self, fields: list[str]) -> bool:
        """Whether a table lacks the columns of some fields, which is a problem that shows its header."""
        header = [name for name in self.table.header if name] if self.table else []
        missing = [name for name in fields if not kinds.is_in_header(name, header, self.source)] if header else []
        if not missing:
            return False
        row, is_text = dict.fromkeys(header) | self.raw, isinstance(self.table, Table)
        if isinstance(self.table, Table):
            where, shown = f"{self.path}:1", f"its header is {kinds.shown(header, self.table.separator)}"
        else:
            where, shown = self.path, f"its columns are {kinds.shown(kinds.paths(row), ', ')}"
        hint = kinds.hint(row, missing, self.source, [*self.columns, *kinds.paths(row)], is_text)
        hint = "map them in fields" if hint == kinds.add(missing) else hint
        self.problems.add(f"lacks {', '.join(missing)}; {shown}", where, hint)
        return True

    def finish(self, ledger: Ledger) -> None:
        """Raise the file's problems, or note its number of rows."""
        if not (self.count or self.problems.first):
            what = "file" if self.source and self.source.kind == "folder" else "source"
            self.problems.add("is empty", self.path, f"add rows, or remove the {what}")
        self.problems.raise_all()
        is_again = self.path in ledger.rows_read
        ledger.rows_read[self.path] = self.count
        if isinstance(self.table, TypedTable):  # its other columns were not read
            self.unused.update({name: self.count for name in self.table.header if name not in self.columns})
        unused = ledger.unused_in(self.path)
        if is_again:  # a file with both texts, read for each: unused is what neither of them uses
            for name in unused.keys() - self.unused:
                del unused[name]
        else:
            unused.update(self.unused)


def first_row(path: str, root: Path, source: Source) -> dict[str, Any]:
    """The first row of a file, as it has it; {} if there is none."""
    return next(Reader(path, root, (), source).objects(), (0, {}))[1]


@cache
def _required(shape: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(shape) if field.required)


@cache
def _nullable(shape: type[msgspec.Struct]) -> frozenset[str]:
    """Fields in which null is a value of its own."""
    kinds = {field.name: getattr(field.type, "__args__", ()) for field in msgspec.structs.fields(shape)}
    return frozenset(name for name, kind in kinds.items() if type(None) in kind)


def _from_cells(value: dict[str, Any], shape: type[Shape]) -> Shape:
    """A row of a CSV file, whose cells are text, as a struct. Raises ValueError."""
    row = msgspec.convert({name: _cell(name, cell) for name, cell in value.items()}, shape, strict=False)
    for name, item in msgspec.structs.asdict(row).items():
        numbers = item.values() if isinstance(item, dict) else (item,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{name} is not a number")
    return row


def _cell(name: str, cell: Any) -> Any:
    """The value of a cell: JSON where a field is a list or a table, else its text."""
    if name in STRUCTURED and isinstance(cell, str):
        return decoded(cell)
    if name in NUMBERS and isinstance(cell, dict):
        return {member: _number(inner) for member, inner in cell.items()}
    return cell


def _number(cell: Any) -> Any:
    for read in (int, float):
        try:
            return read(cell) if isinstance(cell, str) else cell
        except ValueError:
            continue
    return cell
