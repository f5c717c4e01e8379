"""Rows of tables in text: CSV of any separator, TSV.

Input: a file with a header line.  Output: each row with the line where it starts, its cells as text.
It is read with Python's csv, not pyarrow's: only Python's knows on which line of the file a row starts.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thunder_train.core.text import quoted
from thunder_train.data import packed
from thunder_train.data.json_rows import Numbered
from thunder_train.data.packed import lines, not_utf8
from thunder_train.data.problems import Problems

SEPARATORS = (",", "\t", ";", "|")
"""In the order in which they are preferred when several fit a file equally well."""
SAMPLE = 100
"""Rows by which the separator is chosen."""


class Table:
    """A text table. header: the names of its columns as the file has them, once a row was read."""

    def __init__(self, path: str, root: Path, problems: Problems) -> None:
        self.path, self.root, self.problems = path, root, problems
        self.header: list[str] = []
        self.separator = ","

    def rows(self) -> Iterator[Numbered]:
        """Each row with the line where it starts; empty cells are left out, the others are text."""
        csv.field_size_limit(packed.LINE_LIMIT)
        source = _Lines(self.path, self.root, self.problems)
        first = source.declared_separator()
        self.separator = first or separator(self.path, self.root)
        is_quoted = self.separator != "\t" or not _is_unquoted(self.path, self.root)
        quotes: dict[str, Any] = {"quoting": csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE}
        reader = csv.reader(source, strict=True, delimiter=self.separator, **quotes)
        skipped = source.skipped
        line = 1 + skipped
        try:
            for cells in reader:
                if cells and not self.header:
                    self.header = [name.strip() for name in cells]
                    check_columns(self.header, f"{self.path}:{line}", self.problems)
                elif any(cells):
                    row = self._row(cells, line)
                    if row:
                        yield line, row
                line = reader.line_num + 1 + skipped
                source.row_bytes = 0
        except csv.Error as error:
            self.problems.add(f"is not CSV: {error}", f"{self.path}:{line}", "correct the quotes of this row")

    def _row(self, cells: list[str], line: int) -> dict[str, Any]:
        """A row by its header; {}, and a problem, if its cells do not fit."""
        names = self.header  # spreadsheets write empty cells at the end
        if len(cells) > len(names):
            cells = cells[: len(names)] if not any(cells[len(names) :]) else cells
        if len(cells) != len(names):
            count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
            hint = f"correct the row; quote a cell that holds {NAMES[self.separator]}"
            self.problems.add(f"has {count}, the header {len(names)}", f"{self.path}:{line}", hint)
            return {}
        return {name: cell for name, cell in zip(names, cells, strict=True) if cell and name}


NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
"""A separator in an error message."""


class _Lines:
    """The lines of a table as text. row_bytes: read since the row began, which quotes let go on for many lines."""

    def __init__(self, path: str, root: Path, problems: Problems) -> None:
        self.path, self.problems, self.row_bytes = path, problems, 0
        self.lines = lines(path, root, problems)
        self.skipped = 0
        """Lines before the header."""

    def declared_separator(self) -> str:
        """What Excel's own first line `sep=;` names, which is skipped; "" without one."""
        first = next(self.lines, None)
        if first is None:
            return ""
        declared = first[1].rstrip(b"\r\n")
        if len(declared) == 5 and declared[:4].lower() == b"sep=" and chr(declared[4]) in SEPARATORS:
            self.skipped = 1
            return chr(declared[4])
        self.lines = itertools.chain([first], self.lines)
        return ""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        number, line = next(self.lines)
        self.row_bytes += len(line)
        if self.row_bytes > packed.LINE_LIMIT:
            raise csv.Error(f"a row is longer than {packed.LINE_LIMIT >> 20} MiB")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.problems.keep(not_utf8(line, error, self.path, number))
            return "\n"


def separator(path: str, root: Path) -> str:
    """The separator that gives a header of several columns and rows of as many cells.

    Python's own csv.Sniffer is misled by punctuation in texts; here the header decides, and the rows confirm it.
    """
    sample = [line for _, line in itertools.islice(lines(path, root, Problems()), SAMPLE)]
    text = [line.decode(errors="replace") for line in sample if line.strip()]
    best, best_score = ",", (0.0, 0)
    for candidate in SEPARATORS:
        header, fitting, count = _fit(text, candidate)
        if header > 1 and (score := (fitting / max(1, count), header)) > best_score:
            best, best_score = candidate, score
    return best


def _fit(text: list[str], candidate: str) -> tuple[int, int, int]:
    """Columns of the header, rows of as many cells, and rows."""
    fitting = count = columns = 0
    try:
        for cells in csv.reader(iter(text), delimiter=candidate):
            if not columns:
                columns = len(cells)
                continue
            count += 1
            fitting += len(cells) == columns
    except csv.Error:
        pass
    return columns, fitting, count


def _is_unquoted(path: str, root: Path) -> bool:
    """Whether the quotes of a tab-separated file are part of its texts, as in Common Voice.

    So it is if every line has as many tabs as the header, and some line makes no sense with quotes that enclose cells.
    """
    tabs, is_strange = -1, False
    for _, line in lines(path, root, Problems()):
        if line.isspace():
            continue
        tabs = line.count(b"\t") if tabs < 0 else tabs
        if line.count(b"\t") != tabs:
            return False
        if not is_strange and b'"' in line:
            try:
                next(csv.reader([line.decode(errors="replace")], delimiter="\t", strict=True))
            except csv.Error:
                is_strange = True
    return is_strange


def check_columns(names: list[str], where: str, problems: Problems) -> None:
    """A problem for each name that several columns have."""
    for name in sorted(name for name, count in Counter(names).items() if name and count > 1):
        problems.add(f"has the column {quoted(name)} twice", where, "keep one of them")
