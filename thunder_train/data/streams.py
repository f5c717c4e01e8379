"""Files as others wrote them: opened only when regular, unpacked, and cut into lines of bounded length.

Input: plain, .gz and .zst files.  Output: bytes.  What is wrong in a file is gathered in `Problems` and told together.
"""

import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from thunder_train import ThunderError, raise_all
from thunder_train.data.rows import SHOWN

LINE_LIMIT = 16 * 2**20
"""Most bytes of a line, its end included: a row is a short text, so a longer one is another format or an accident."""
WHOLE_LIMIT = 2**30
"""Most bytes, unpacked, of a file that is read whole."""
BUFFER = 2**18
WORD = 80
"""Most characters of a word that an error shows."""
FAULTS = (OSError, EOFError, zlib.error, ValueError)
"""What gzip, zlib and pyarrow raise for a file that is cut short or damaged."""


def shown(value: object) -> str:
    """A word of a file as an error tells it: quoted, escaped, and no longer than a line."""
    told = repr(value)
    return told if len(told) <= WORD else f"{told[:WORD]}..."


class Problems:
    """What is wrong in one file: the first few are kept, the others counted, however many there are."""

    def __init__(self) -> None:
        self.first: list[ThunderError] = []
        self.more = 0

    def add(self, what: str, where: str, mend: str) -> None:
        """Put down one mistake."""
        self.keep(ThunderError(what, where=where, mend=mend))

    def keep(self, problem: ThunderError) -> None:
        """Put down one mistake that is an error already."""
        if len(self.first) < SHOWN:
            self.first.append(problem)
        else:
            self.more += 1

    def tell(self) -> None:
        """Raise one error that holds them all; do nothing when there is none."""
        raise_all(self.first + ([ThunderError(f"... and {self.more} more")] if self.more else []))


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
            mend = "name a file; for those of a folder write a pattern, as folder/*.jsonl"
            raise ThunderError("is not a file", where=path, mend=mend)
        return open(root / path, "rb", buffering=BUFFER)
    except FileNotFoundError:
        raise ThunderError("is missing", where=path, mend="mend the source's path or add the file") from None
    except ValueError:
        raise ThunderError("is no path", where=repr(path), mend="mend the source's path") from None
    except OSError as error:
        mend = "check the path and its rights"
        raise ThunderError(f"cannot be read: {error.strerror}", where=path, mend=mend) from error


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
        except FAULTS as error:
            raise ThunderError(f"is cut short or damaged: {error}", where=path, mend="make or copy it again") from None
    if len(content) > WHOLE_LIMIT:
        what = f"is longer than {WHOLE_LIMIT >> 30} GiB"
        raise ThunderError(what, where=path, mend="write its rows as JSONL, a line each")
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
                    problems.add(what, f"{path}:{number}", "write one row a line, as short as a text")
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(LINE_LIMIT)
                else:
                    yield number, line
        except FAULTS as error:
            what = f"is cut short or damaged: {error}"
            problems.add(what, f"{path}:{number + 1}", "make or copy the file again")
