"""The messages of an Arrow stream, looked at before pyarrow reads them: all are there, and none unpacks to too much.

Input: a stream of bytes by anyone.  Output: nothing, or an error. Arrow's own reader takes a stream without its end
mark for whole, and allocates whatever a message says. The layout is that of Arrow's format documents (Message.fbs).
"""

import struct
from typing import BinaryIO

CONTINUES = b"\xff\xff\xff\xff"
METADATA_LIMIT = 2**26
"""Most bytes of a message's description."""
SCHEMA, DICTIONARY, BATCH = 1, 2, 3
"""What a message may be."""
PIECE = 2**20


class TooLongError(Exception):
    """A table that would take more memory than a row of text ever needs."""


def check(stream: BinaryIO, limit: int) -> None:
    """Raise ValueError for a stream that is cut short, and TooLongError for a message of more than limit bytes."""
    while True:
        start = _read(stream, 8)
        if not start.startswith(CONTINUES):
            raise ValueError("a message of Arrow does not begin as it should")
        size = struct.unpack("<i", start[4:])[0]
        if size == 0:
            return
        if not 0 < size <= METADATA_LIMIT:
            raise ValueError("a message of Arrow has no description")
        message = _Table(_read(stream, size), 0)
        body = message.number(3, "<q")
        unpacked = _check_body(stream, message, body)
        if unpacked > limit:
            raise TooLongError(f"has more than {limit >> 30} GiB in a batch")


def _check_body(stream: BinaryIO, message: "_Table", body: int) -> int:
    """Pass over a message's body; the bytes to which it unpacks."""
    kind = message.number(1, "<B")
    batch = message.table(2)
    if kind == DICTIONARY and batch:
        batch = batch.table(1)
    if body < 0:
        raise ValueError("a message of Arrow has a negative length")
    if kind not in (DICTIONARY, BATCH) or batch is None or batch.table(3) is None:
        _skip(stream, body)
        return body
    place = unpacked = 0
    for offset, length in sorted(batch.pairs(2)):
        if length < 8:
            continue
        if not place <= offset <= body - length:
            raise ValueError("a buffer of Arrow lies outside its message")
        _skip(stream, offset - place)
        size = struct.unpack("<q", _read(stream, 8))[0]
        unpacked += length - 8 if size < 0 else size
        place = offset + 8
    _skip(stream, body - place)
    return unpacked


class _Table:
    """A table of a flatbuffer: numbered fields, each of which may be absent. Raises struct.error for wrong offsets."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content = content
        self.start = at + self._take("<I", at)

    def _take(self, form: str, at: int) -> int:
        if at < 0:
            raise struct.error("an offset of Arrow is negative")
        return int(struct.unpack_from(form, self.content, at)[0])

    def _field(self, number: int) -> int:
        """Where a field is; 0 if it is absent."""
        fields = self.start - self._take("<i", self.start)
        if 4 + 2 * number >= self._take("<H", fields):
            return 0
        offset = self._take("<H", fields + 4 + 2 * number)
        return self.start + offset if offset else 0

    def number(self, number: int, form: str) -> int:
        """A field that is a number; 0 if it is absent."""
        at = self._field(number)
        return self._take(form, at) if at else 0

    def table(self, number: int) -> "_Table | None":
        """A field that is a table."""
        at = self._field(number)
        return _Table(self.content, at) if at else None

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """A field that is a list of pairs of 64-bit numbers."""
        at = self._field(number)
        if not at:
            return []
        start = at + self._take("<I", at)
        count = self._take("<I", start)
        content = self.content[start + 4 : start + 4 + 16 * count]
        return list(struct.iter_unpack("<qq", content))


def _read(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise ValueError("the stream ends before its end mark")
    return content


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0:
        count -= len(_read(stream, min(count, PIECE)))
