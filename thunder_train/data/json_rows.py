"""Rows of JSON: an object a line, a list of objects, or a list inside one document.

Input: a file's bytes, whatever its name is.  Output: objects with their place; every malformed byte is a problem.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from thunder_train import ThunderError
from thunder_train.core.text import quoted
from thunder_train.data import packed
from thunder_train.data.packed import AS_LINES, SHORTER, lines, not_utf8
from thunder_train.data.problems import Problems

VALUES_LIMIT = 2**23
"""Most values of a file that is read whole: each takes some 75 bytes of memory, and may be two bytes in the file."""
DECODE = msgspec.json.Decoder().decode
HALF = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)", re.DOTALL)
"""Group 1: an escape that is half of a surrogate pair, without the other half."""
PYTHON = re.compile(rb"[\[\s]*\{\s*'")
"""How Python shows an object."""
NO_NUMBER = re.compile(rb"[:\[,]\s*-?(NaN|Infinity)\b")
"""What Python writes for a number that JSON does not have."""
AS_RECORDS = 'write an object a line, as to_json(FILE, orient="records", lines=True) of pandas does'
COMMA = re.compile(rb"\s*\{.*\}\s*,\s*", re.DOTALL)
AFTER = re.compile(r"trailing characters \(byte (\d+)\)")
"""What the decoder says of bytes that follow a value."""
CLOSE = re.compile(rb"\}\s*,")
"""Where an object of a list may end."""
PIECE = 2**22
"""Bytes of a list whose items are looked at together."""
STEP = 2**20
MOST_IN_PIECE = packed.LINE_LIMIT + PIECE + STEP
"""Most bytes of a piece, whose last item may be long."""
BLANK = b" \t\r\n"
NAMED = 3
"""Members of a document that a hint names."""
LINES, ONE_LINE, OBJECT, LIST = "lines", "one line", "object", "list"
"""Layouts of a JSON file: an object a line; one line, whose object is a row or holds the list of rows; one object on
several lines; a list."""
Numbered = tuple[int, dict[str, Any]]
"""The place of an object, from 1: its first line (JSON lines, CSV) or its number (Parquet, Arrow, a list on one line);
and the object."""


def layout(path: str, root: Path) -> str:
    """How a JSON file is laid out, by its first bytes; an empty one counts as an empty list."""
    with packed.opened(path, root) as stream:
        try:
            first = _next_line(stream).removeprefix(packed.MARK).strip()
            if not first or first.startswith(b"["):
                return LIST
            if not first.startswith(b"{"):
                return LINES
            if len(first) >= packed.LINE_LIMIT:
                return ONE_LINE
            try:
                DECODE(first)
            except msgspec.DecodeError as error:
                return OBJECT if "truncated" in str(error) else LINES
            return LINES if _next_line(stream) else ONE_LINE
        except (*packed.DAMAGE, RecursionError):
            return LINES


def single(path: str, root: Path) -> dict[str, Any]:
    """The object of a file that is one pretty-printed object. Raises ThunderError."""
    content = packed.whole(path, root)
    if content.count(b",") > VALUES_LIMIT:
        raise ThunderError(f"holds more than {VALUES_LIMIT >> 20} million values", path, AS_LINES)
    problems = Problems(path)
    try:
        value: dict[str, Any] = DECODE(content)
    except (ValueError, RecursionError) as error:
        raise malformed(content, path, error) from None
    repeats(content, value, path, path, problems)
    problems.raise_all()
    return value


def _next_line(stream: Any) -> bytes:
    """The next line that is not blank; b"" at the end."""
    while line := stream.readline(packed.LINE_LIMIT + 1):
        if line.strip(b"\xef\xbb\xbf \t\r\n"):
            return bytes(line)
    return b""


def line_rows(path: str, root: Path, problems: Problems, part: packed.Part | None = None) -> Iterator[Numbered]:
    """The object of each line that is not blank. part: which lines; all if not given."""
    decode = DECODE
    for number, line in lines(path, root, problems, part):
        try:
            value = decode(line)
        except (ValueError, RecursionError) as error:
            if not line.isspace():
                problems.keep(fault(line, path, number, error))
            continue
        if value.__class__ is not dict:
            problems.add("is not a JSON object", f"{path}:{number}", _as_object(value, "line"))
            continue
        colons = line.count(b":")  # as many as keys: nearly always; see repeated_key
        if colons == len(value) or colons == _shallow(value) or not repeats(line, value, path, number, problems):
            yield number, value


class Document:
    """A JSON file that is read whole. rows: the dotted path of the list of rows in it; "": the file is that list.

    around: the document without its rows.  Raises ThunderError if it is malformed.
    """

    def __init__(self, path: str, root: Path, rows: str) -> None:
        self.path, self.rows = path, rows
        self.content = packed.whole(path, root)
        self.around: dict[str, Any] = {}
        self.start, end = self._span() if self.content.strip(BLANK) else (0, 0)
        self.pieces = _pieces(self.content, self.start, end, path)
        self.first_piece = next(self.pieces, (b"", []))
        self.has_lines = self.first_piece[0].count(b"\n") >= len(self.first_piece[1]) > 0
        """Whether its rows lie on lines of their own."""

    def items(self, problems: Problems, place: Callable[[int, int], str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(number from 1, line, object) of each row, decoded one by one: memory holds the bytes, not all values.

        place: number, line -> the place of a row for error messages.
        """
        number, line = 0, 1 + self.content.count(b"\n", 0, self.start)
        for piece, listed in itertools.chain([self.first_piece], self.pieces):
            start = 0
            for raw in listed:
                part = bytes(raw)
                at = piece.index(part, start)
                number, line = number + 1, line + piece.count(b"\n", start, at)
                where, first = place(number, line), line
                start, line = at + len(part), line + part.count(b"\n")
                value = _object(part, self.path, where, first, problems)
                if value is not None:
                    yield number, first, value
            line += piece.count(b"\n", start)

    def _span(self) -> tuple[int, int]:
        """Where the list of rows is: behind its first bracket, before its last. The document around it is decoded."""
        content = self.content
        try:
            value = msgspec.json.decode(content, type=msgspec.Raw)
            for part in self.rows.split(".") if self.rows else ():
                # Only this member is looked at: a document may have any number of others.
                holder = msgspec.defstruct("Holder", [("rows", msgspec.Raw, msgspec.field(name=part))])
                value = msgspec.json.decode(value, type=holder).rows  # type: ignore[attr-defined]
        except msgspec.ValidationError:
            raise self._no_list() from None
        except (ValueError, RecursionError) as error:
            raise malformed(content, self.path, error) from None
        if bytes(memoryview(value)[:64]).lstrip()[:1] != b"[":
            raise self._no_list()
        if not self.rows:
            return content.index(b"[") + 1, content.rindex(b"]")
        listed = bytes(value)
        self._keep_around(content.replace(listed, b"[]", 1))
        start = content.index(listed)
        return start + 1, start + len(listed) - 1

    def _keep_around(self, envelope: bytes) -> None:
        if len(envelope) > packed.LINE_LIMIT:
            what = f"holds more than {packed.LINE_LIMIT >> 20} MiB beside its rows"
            raise ThunderError(what, self.path, "remove what is not the list of rows")
        problems = Problems(self.path)
        try:
            self.around = DECODE(envelope)
        except (ValueError, RecursionError) as error:
            raise fault(envelope, self.path, 1, error) from None
        repeats(envelope, self.around, self.path, self.path, problems)
        problems.raise_all()

    def _no_list(self) -> ThunderError:
        where, hint = f"{self.path}: {self.rows or 'the file'}", "set `rows` to the dotted path of the list of rows"
        try:
            names = [*list_members(DECODE(self.content))] if self.content.count(b",") <= VALUES_LIMIT else []
        except (ValueError, RecursionError) as error:
            return malformed(self.content, self.path, error)
        if names:
            hint = rows_hint(names)
        if self.rows and self.content.lstrip().startswith(b"["):
            hint = "leave `rows` out: the file itself is the list"
        return ThunderError("is not a list of objects", where, hint)


def _pieces(content: bytes, start: int, end: int, path: str) -> Iterator[tuple[bytes, list[msgspec.Raw]]]:
    """The items between start and end in pieces: bytes with what lies between the items, and each item of them.

    A list of two-byte items takes forty times its bytes when all are looked at together. A piece ends where an object
    ends; if that object lies in another, or in a text, the piece is no JSON and goes on to the next end.
    """
    while start < end:
        look = start + PIECE
        while True:
            close = CLOSE.search(content, look, end) if look < end else None
            stop, following = (close.start() + 1, close.end()) if close else (end, end)
            if stop - start > MOST_IN_PIECE:
                raise ThunderError(f"holds more than {MOST_IN_PIECE >> 20} MiB without the end of a row", path, SHORTER)
            try:
                listed = msgspec.json.decode(b"[%b]" % content[start:stop], type=list[msgspec.Raw])
                break
            except (ValueError, RecursionError) as error:
                if close is None:
                    raise malformed(content, path, error) from None
                look = stop + min(STEP, (stop - start) // 16)  # a text may hold any number of such ends
        yield content[start:following], listed
        start = following


def _as_object(value: Any, name: str) -> str:
    """What to do about a row that is no object. name: what it is called, row or line."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict) and first.keys() & {"role", "from"}:
        return 'write it as {"messages": [...]}'
    return 'write it as {"text": "..."}' if isinstance(value, str) else f"correct or remove the {name}"


def _object(part: bytes, path: str, where: str, line: int, problems: Problems) -> dict[str, Any] | None:
    """The object of an item of a list; None, and a problem, if it is none."""
    if len(part) > packed.LINE_LIMIT:
        problems.add(f"is longer than {packed.LINE_LIMIT >> 20} MiB", where, SHORTER)
        return None
    try:
        value = DECODE(part)
    except (ValueError, RecursionError) as error:
        problems.keep(fault(part, path, line, error))
        return None
    if value.__class__ is not dict:
        problems.add("is not a JSON object", where, _as_object(value, "row"))
        return None
    return None if repeats(part, value, path, where, problems) else value


def malformed(content: bytes, path: str, error: Exception) -> ThunderError:
    """Why a file is not one JSON value: it holds several, or is not JSON."""
    after = AFTER.search(str(error))  # it names the byte behind the first one that follows
    start = content[int(after[1]) - 1 :][:1] if after else b""
    first = content.lstrip()[:1]
    if start == b"{" == first:
        line = 1 + content.count(b"\n", 0, int(after[1]) if after else 0)
        what, hint = "begins another object: only objects of one line each may follow one another", "jq -c . FILE"
        return ThunderError(what, f"{path}:{line}", f"write each on a line, as `{hint}` does, or as one list")
    if start == b"[" == first:
        return ThunderError("holds several lists", path, "write one object a line, or one list of objects")
    return fault(content, path, 1, error)


def list_members(document: Any) -> dict[str, list[dict[str, Any]]]:
    """Dotted path -> list of objects in a document, at most two levels deep."""
    lists: dict[str, list[dict[str, Any]]] = {}
    for name, value in document.items() if isinstance(document, dict) else ():
        inner = value.items() if isinstance(value, dict) else ()
        members = [(f"{name}.{member}", deeper) for member, deeper in inner]
        lists |= {path: item for path, item in [(name, value), *members] if _is_list_of_objects(item)}
    return lists


def rows_hint(names: list[str]) -> str:
    """What to set for the lists that a document holds."""
    return "set " + " or ".join(f'rows = "{quoted(name)[1:-1]}"' for name in names[:NAMED])


def are_columns(document: dict[str, Any]) -> bool:
    """Whether a document holds the columns of a table, as lists or by the rows' numbers."""
    columns = [
        [*value.values()] if isinstance(value, dict) and all(map(str.isdecimal, value)) else value
        for value in document.values()
    ]
    return len(columns) > 1 and all(
        isinstance(column, list) and column and not isinstance(column[0], dict | list) for column in columns
    )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def repeats(content: bytes, value: dict[str, Any], path: str, place: int | str, problems: Problems) -> bool:
    """Whether an object has a key twice, which is a problem. content: its JSON. place: its line, or its whole place."""
    where = f"{path}:{place}" if isinstance(place, int) else place
    try:
        key = repeated_key(content, value)
    except RecursionError as error:
        broken = fault(content, path, 1, error)
        problems.add(broken.what, where, broken.hint)
        return True
    if key is not None:
        problems.add(f"has the key {quoted(key)} twice", where, "keep one of them")
    return key is not None


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
    if PYTHON.match(content):
        what = "is not JSON: its texts stand between ' instead of \""
        return ThunderError(what, where=f"{path}:{first_line}", hint="write it with json.dumps instead of str")
    if COMMA.fullmatch(content) and "trailing" in str(error):
        hint = "remove the comma, or make the file one list"
        return ThunderError("is not JSON: a comma follows the object", where=f"{path}:{first_line}", hint=hint)
    if "invalid character" in str(error) and (number := NO_NUMBER.search(content)):
        what = f"is not JSON: it has no number {number[1].decode()}"
        return ThunderError(what, where=f"{path}:{first_line}", hint="write null instead")
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
