"""The bytes of a source file, unpacked: plain, gzip, zstd, bzip2, xz, and UTF-16 as UTF-8.

Input: a regular file.  Output: a stream, a head, lines with their number, or all bytes, within limits. Its first
bytes tell how a file is packed, not its name.
"""

import bz2
import codecs
import gzip
import importlib
import io
import lzma
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from thunder_train import ThunderError
from thunder_train.data import foreign
from thunder_train.data.problems import Problems

LINE_LIMIT = 16 * 2**20
"""Most bytes of a line, its end included: a row is a short text, so a longer line is another format or an accident."""
WHOLE_LIMIT = 2**28
"""Most bytes, unpacked, of a file that is read whole: a gzip file of a megabyte may hold a gigabyte."""
XZ_MEMORY = 2**27
"""Most bytes that unpacking xz may take; `xz -9` asks for half of it."""
ZSTD_WINDOW_LOG = 27
"""The same for zstd, as a power of two; `zstd --ultra -22` asks for it."""
AS_LINES = "write its rows as JSONL, a line each"
SHORTER = "write one row a line, as short as a text"
COPY_AGAIN = "make or copy the file again"
BUFFER = 2**18
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
"""What gzip, bz2, lzma, zlib, zstd as read here, and pyarrow raise for a file that is cut short or damaged."""
MARK = b"\xef\xbb\xbf"
"""UTF-8's byte-order mark."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""UTF-16's."""
MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "bzip2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
}
"""How a file is packed -> its first bytes."""
SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
"""Name of a packed file -> how it is packed."""


class Part(NamedTuple):
    """Some lines of a file that is not packed: its bytes from start, where a line begins, up to end."""

    start: int
    end: int


@contextmanager
def opened(path: str, root: Path, part: Part | None = None) -> Iterator[BinaryIO]:
    """The bytes of a file under root, unpacked, or a part of them.

    Errors: missing, unreadable, and anything but a regular file, which might never end.
    """
    with _regular(path, root) as file:
        stream = _pieces(_between(file, *part)) if part else _unpacked(path, file)
        yield _pieces(_as_utf8(stream)) if _peeked(stream).startswith(UTF_16) else stream


def is_plain(path: str, root: Path) -> bool:
    """Whether a file is not packed, and no UTF-16. Errors: as `opened`."""
    with _regular(path, root) as file:
        return _unpacked(path, file) is file and not _peeked(file).startswith(UTF_16)


def next_line(path: str, root: Path, offset: int) -> int:
    """Where the first line begins that begins at an offset above 0 or behind it; the file's end if none does."""
    with _regular(path, root) as file:
        file.seek(offset - 1)
        while (piece := file.readline(BUFFER)) and not piece.endswith(b"\n"):
            pass
        return file.tell()


def _between(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The bytes from start to end in pieces."""
    file.seek(start)
    while start < end and (piece := file.read(min(BUFFER, end - start))):
        start += len(piece)
        yield piece


def head(path: str, root: Path) -> bytes:
    """The first bytes of a file, unpacked, a byte-order mark skipped; b"" when it is damaged.

    Errors: as `opened`, and a file that holds no rows.
    """
    with opened(path, root) as stream:
        content = _peeked(stream)
    foreign.refuse(content, path)
    return content.removeprefix(MARK)


def _regular(path: str, root: Path) -> BinaryIO:
    try:
        mode = (root / path).stat().st_mode
        if stat.S_ISDIR(mode):
            hint = 'name a file, a pattern such as folder/*.jsonl, or set kind = "folder" for a train and a valid file'
            raise ThunderError("is a folder", where=path, hint=hint)
        if not stat.S_ISREG(mode):
            raise ThunderError("is not a file", where=path, hint="name a file")
        return open(root / path, "rb", buffering=BUFFER)
    except FileNotFoundError:
        raise ThunderError("is missing", where=path, hint="correct the source's path or add the file") from None
    except ValueError:
        raise ThunderError("is not a path", where=repr(path), hint="correct the source's path") from None
    except OSError as error:
        hint = "check the path and its rights"
        raise ThunderError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error


def _peeked(stream: BinaryIO) -> bytes:
    try:
        return stream.peek(1)  # type: ignore[attr-defined, no-any-return]  # all are BufferedReader
    except DAMAGE:
        return b""


def _unpacked(path: str, file: BinaryIO) -> BinaryIO:
    start = _peeked(file)
    packing = next((name for name, magic in MAGIC.items() if magic.match(start)), "")
    by_name = SUFFIXES.get(Path(path).suffix.lower(), "")
    if by_name and not packing and start and foreign.is_binary(start):
        hint = f"{COPY_AGAIN}, or correct its name"
        raise ThunderError(f"is not a {by_name} file, although its name says so", where=path, hint=hint)
    if packing == "gzip":
        return io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER)
    if packing == "bzip2":
        return io.BufferedReader(bz2.BZ2File(file), BUFFER)
    if packing == "xz":
        return _pieces(_xz(file))
    if packing == "zstd":
        return _pieces(_zstd(file, path))
    return file


class _Pieces(io.RawIOBase):
    """A stream of the pieces that a generator gives. Once that has failed, each further reading fails too."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.rest = pieces, b""
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.rest:
            if self.error:  # a generator that has raised an error looks as if it had ended
                raise self.error
            try:
                piece = next(self.pieces, None)
            except DAMAGE as error:
                self.error = error
                raise
            if piece is None:
                return 0
            self.rest = piece
        count = min(len(buffer), len(self.rest))
        buffer[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count


def _pieces(pieces: Iterator[bytes]) -> BinaryIO:
    return io.BufferedReader(_Pieces(pieces), BUFFER)


def _xz(file: BinaryIO) -> Iterator[bytes]:
    """The unpacked pieces of one xz stream after another. lzma's own file takes no limit of memory."""
    rest = file.read(BUFFER)
    while rest:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        while not unpacker.eof:
            if unpacker.needs_input and not rest:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            yield unpacker.decompress(rest, max_length=BUFFER)
            rest = file.read(BUFFER) if unpacker.needs_input else b""
        rest = unpacker.unused_data.lstrip(b"\0") or file.read(BUFFER).lstrip(b"\0")


def _zstd(file: BinaryIO, path: str) -> Iterator[bytes]:
    """The unpacked pieces of one zstd frame after another."""
    try:
        zstd: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:  # some builds of Python leave it out
        what, hint = "is packed with zstd, which this Python was built without", "unpack it: zstd -d FILE"
        raise ThunderError(what, where=path, hint=hint) from None
    stream = zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})
    try:
        while piece := stream.read(BUFFER):
            yield piece
    except zstd.ZstdError as error:
        raise OSError(str(error)) from error


def _as_utf8(stream: BinaryIO) -> Iterator[bytes]:
    """A UTF-16 stream in pieces of UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-16")()
    while content := stream.read(BUFFER):
        yield decoder.decode(content).encode()
    yield decoder.decode(b"", final=True).encode()


def whole(path: str, root: Path) -> bytes:
    """The bytes of a file, a byte-order mark skipped. Errors: as `opened`; damaged; over WHOLE_LIMIT."""
    with opened(path, root) as stream:
        try:
            content = stream.read(WHOLE_LIMIT + 1)
        except DAMAGE as error:
            raise ThunderError(f"is cut short or damaged: {error}", where=path, hint=COPY_AGAIN) from None
    if len(content) > WHOLE_LIMIT:
        raise ThunderError(f"is longer than {WHOLE_LIMIT >> 20} MiB", where=path, hint=AS_LINES)
    return content.removeprefix(MARK)


def whole_lines(path: str, root: Path) -> Iterator[bytes]:
    """A file in pieces that end with a line, a byte-order mark skipped. A line is cut at LINE_LIMIT. Errors: DAMAGE."""
    with opened(path, root) as stream:
        mark = MARK
        while piece := stream.read(BUFFER):
            yield (piece + stream.readline(LINE_LIMIT)).removeprefix(mark)
            mark = b""


def lines(path: str, root: Path, problems: Problems, part: Part | None = None) -> Iterator[tuple[int, bytes]]:
    """Each line and its number from 1, a byte-order mark skipped; over-long lines and a damaged end are problems.

    part: which lines; all if not given.
    """
    number = 0
    if part and part.start:
        with opened(path, root, Part(0, part.start)) as stream:
            number = sum(piece.count(b"\n") for piece in iter(partial(stream.read, BUFFER), b""))
    with opened(path, root, part) as stream:
        try:
            while line := stream.readline(LINE_LIMIT + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(MARK)
                if len(line) > LINE_LIMIT:
                    what = f"is longer than {LINE_LIMIT >> 20} MiB"
                    problems.add(what, f"{path}:{number}", SHORTER)
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(LINE_LIMIT)
                else:
                    yield number, line
        except DAMAGE as error:
            problems.add(f"is cut short or damaged: {error}", f"{path}:{number + 1}", COPY_AGAIN)


def not_utf8(content: bytes, error: UnicodeDecodeError, path: str, first_line: int) -> ThunderError:
    """The error for bytes that are not UTF-8, with their line."""
    line = first_line + content.count(b"\n", 0, error.start)
    start = content.rfind(b"\n", 0, error.start) + 1
    end = content.find(b"\n", error.start)
    what = "is not UTF-8"
    if foreign.is_windows_text(content[start : end if end >= 0 else len(content)]):
        what += " but perhaps Windows-1252"
    return ThunderError(what, where=f"{path}:{line}", hint="save the file as UTF-8")
