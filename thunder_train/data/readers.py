"""Reads the rows of a source file strictly: every malformed byte, missing field and wrong type is an error.

Input: JSONL or JSON (plain, .gz, .zst), CSV, Parquet, as others wrote them.  Output: objects or structs with their
place. A `Reader` streams one file, and raises all its problems together at the end.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.core.text import quoted
from thunder_train.data.field_map import FieldMap
from thunder_train.data.formats import (
    DECODE,
    Numbered,
    Problems,
    csv_rows,
    fault,
    lines,
    not_utf8,
    parquet_rows,
    repeated_key,
    whole,
)
from thunder_train.data.rows import Ledger, key_text

PACKED = (".gz", ".zst")
STRUCTURED = (
    *("messages", "trajectory_scalars", "telemetry", "witness", "edit_budget", "reason_codes", "hypotheses"),
    *("n_best_hypotheses", "char_posteriors_summary"),
)
"""Fields that a cell of a CSV file may hold as JSON."""
NUMBERS = ("trajectory_scalars", "telemetry", "edit_budget", "char_posteriors_summary")
"""Those whose members are numbers where a cell looks like one."""
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
    """The files that match a source's path; at least one."""
    matches = files.expand(pattern, root)
    if not matches:
        raise ThunderError("matches no file", where=pattern, hint="correct the source's path or add the files")
    return matches


def stem(path: str) -> str:
    """The first part of the ids of a file's rows: its name up to the first dot."""
    return Path(path).name.partition(".")[0]


def form(path: str) -> str:
    """The format by a file's name: `.jsonl`, `.json`, `.csv` or `.parquet`."""
    name = Path(path)
    suffix = Path(name.stem).suffix.lower() if name.suffix.lower() in PACKED else name.suffix.lower()
    if suffix not in (".jsonl", ".json", ".csv", ".parquet") or (
        suffix == ".parquet" and suffix != name.suffix.lower()
    ):
        hint = "call it .jsonl, .json or .csv (these also .gz or .zst), or .parquet"
        raise ThunderError("is of an unknown format", where=path, hint=hint)
    return suffix


def place(path: str, line: int) -> str:
    """The place of a row for error messages."""
    return f"{path}: row {line}" if path.lower().endswith(".parquet") else f"{path}:{line}"


def full_id(path: str, name: str | int | float, row: msgspec.Struct) -> str:
    """The id of a row in the dataset: its file's stem and its own id there, or a digest of its content."""
    name = key_text(name)
    if not name:
        name = hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:12]
    return f"{stem(path)}:{name}"


class Reader:
    """One source file, read once from its start. columns: those to read of a table."""

    def __init__(self, path: str, root: Path, columns: Collection[str] = ()) -> None:
        self.path, self.root, self.columns = path, root, columns
        self.problems = Problems()
        self.count = 0
        self.unused: Counter[str] = Counter()
        """Fields that the field map does not read, and the rows that have them."""
        self.form = form(path)

    def where(self, line: int) -> str:
        """The place of a row for error messages."""
        return place(self.path, line)

    def objects(self) -> Iterator[Numbered]:
        """Each object with its place; any other value is a problem."""
        if self.form == ".csv":
            objects = csv_rows(self.path, self.root, self.problems)
        elif self.form == ".parquet":
            objects = parquet_rows(self.path, self.root, self.problems, self.columns)
        else:
            objects = self._json_lines()
        for item in objects:
            self.count += 1
            yield item

    def mapped(self, field_map: FieldMap) -> Iterator[Numbered]:
        """Each object in canonical fields; a word that no enum lists is a problem, and its row is left out."""
        columns = field_map.columns
        for line, raw in self.objects():
            if names := raw.keys() - columns:
                self.unused.update(names)
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
            if self.form == ".csv":
                return _from_cells(value, shape)
            return msgspec.convert(value, shape)
        except (ValueError, RecursionError):
            given = {name: item for name, item in value.items() if item is not None or name in _nullable(shape)}
        missing = [name for name in _required(shape) if name not in given]
        if missing:
            self.problems.add(f"lacks {', '.join(missing)}", self.where(line), "add them")
            return None
        try:
            return _from_cells(given, shape) if self.form == ".csv" else msgspec.convert(given, shape)
        except (ValueError, RecursionError) as error:
            self.problems.add(str(error), self.where(line), "correct the row")
            return None

    def finish(self, ledger: Ledger) -> None:
        """Raise the file's problems, or note its number of rows."""
        if not (self.count or self.problems.first):
            self.problems.add("is empty", self.path, "add rows, or remove the source")
        self.problems.raise_all()
        ledger.rows_read[self.path] = self.count
        ledger.unused_in(self.path).update(self.unused)

    def _json_lines(self) -> Iterator[Numbered]:
        for number, line in lines(self.path, self.root, self.problems):
            if line.isspace():
                continue
            try:
                value = DECODE(line)
            except (ValueError, RecursionError) as error:
                self.problems.keep(fault(line, self.path, number, error))
                continue
            if value.__class__ is not dict:
                self.problems.add("is not a JSON object", self.where(number), "correct or remove the line")
            elif not self.repeats(line, value, number):
                yield number, value

    def repeats(self, content: bytes, value: dict[str, Any], line: int) -> bool:
        """Whether an object has a key twice, which is a problem. content: its JSON."""
        if content.count(b":") == len(value):  # nearly always; see repeated_key
            return False
        try:
            key = repeated_key(content, value)
        except RecursionError as error:
            self.problems.keep(fault(content, self.path, line, error))
            return True
        if key is not None:
            self.problems.add(f"has the key {quoted(key)} twice", self.where(line), "keep one of them")
        return key is not None


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
    if name in STRUCTURED and isinstance(cell, str) and cell.startswith(("{", "[")):
        return DECODE(cell)
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
