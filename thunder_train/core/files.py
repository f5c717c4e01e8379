"""Files: sha256, canonical JSON, atomic writing, and checks of paths from untrusted files."""

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from thunder_train import ThunderError
from thunder_train.core import privacy

DRAFT = ".draft"
"""Suffix of a file that is still being written; nothing reads one."""
DAMAGED = ".damaged"
"""Suffix of what was set aside; nothing reads it."""
PATTERN_MARKS = "*?["
"""Characters by which a path stands for as many files as match it."""


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file's bytes. Raises OSError for a pipe or a folder, at once."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))  # 1 MiB: measured, a tenth faster than 256 kB
    with _plain(path, os.O_RDONLY | os.O_NONBLOCK) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON text with sorted keys, one-space indent, real characters and a final newline.

    Raises ValueError for NaN and infinities, which are not JSON.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def json_line(value: Any) -> str:
    """One line of JSONL, keys sorted."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file atomically: readers see the old or the new bytes, also after a power cut. Creates the folder."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """As write_text, for bytes."""
    write_lines(path, (data,))


def write_lines(path: str | os.PathLike[str], lines: Iterable[bytes]) -> None:
    """As write_bytes, piece by piece."""
    path = Path(path)
    draft = path.with_name(f"{path.name}{DRAFT}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with create(draft) as file:
            file.writelines(lines)
            file.flush()
            to_disk(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        hint = privacy.hint(str(error)) or "free or unlock it"
        raise ThunderError(f"cannot be written: {error.strerror}", where=str(path), hint=hint) from error


def to_disk(descriptor: int) -> None:
    """Wait until an open file's bytes outlast a power cut.

    On macOS os.fsync returns when the drive has them in its cache; F_FULLFSYNC empties that too, and some file systems
    refuse it. Untested on a Mac.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):  # then os.fsync does what it can, or says what is wrong
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


def create(path: Path) -> IO[bytes]:
    """A new file, open for writing. It replaces one of that name and never writes through a link, as "wb" would."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return open(path, "wb", buffering=1 << 20, opener=lambda name, _: os.open(name, flags, 0o666))


def open_plain(path: Path) -> io.FileIO:
    """A file of an untrusted folder, open for reading. Raises OSError for a link, a pipe, a folder or a device."""
    return _plain(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_text(path: str | os.PathLike[str]) -> str:
    """The UTF-8 text of a file. Raises OSError for a pipe, which nobody may ever write to, at once."""
    with io.TextIOWrapper(io.BufferedReader(_plain(path, os.O_RDONLY | os.O_NONBLOCK)), encoding="utf-8") as file:
        return file.read()


def read_bytes(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """As read_text, for bytes. most: how many, all by default."""
    with io.BufferedReader(_plain(path, os.O_RDONLY | os.O_NONBLOCK)) as file:
        return file.read(most)


def _plain(path: str | os.PathLike[str], flags: int) -> io.FileIO:
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return io.FileIO(descriptor, "rb")


def set_aside(path: Path, why: str) -> None:
    """Keep something damaged under another name and say so in one line; whoever made it makes it again."""
    place = path.with_name(path.name + DAMAGED)
    print(f"warning: {path} {why}; kept as {place.name}", file=sys.stderr, flush=True)
    remove(place)
    os.replace(path, place)


def remove(path: Path) -> None:
    """Delete a file, a link (not what it points to) or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Give a finished file its final name atomically, after its bytes are on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb+") as file:
        to_disk(file.fileno())
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_bytes(target, source.read_bytes())  # a folder of the project may be a link to another disk
        source.unlink()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, canonical(value))


def read_json(path: str | os.PathLike[str], hint: str = "") -> Any:
    """The JSON value in a file. Raises ThunderError if the file is missing or not JSON."""
    try:
        return json.loads(read_text(path))
    except OSError as error:
        raise _unread(error, path, hint) from None
    except (ValueError, RecursionError) as error:
        raise ThunderError(f"is not JSON: {error}", where=str(path), hint=hint) from error


def read_jsonl(path: str | os.PathLike[str], hint: str = "") -> list[Any]:
    """Every JSON value of a JSONL file that the project wrote itself. Raises ThunderError naming the line."""
    return list(jsonl(path, hint))


def jsonl(path: str | os.PathLike[str], hint: str = "") -> Iterator[Any]:
    """As read_jsonl, value by value: the file is never in memory as a whole."""
    try:
        file = io.TextIOWrapper(io.BufferedReader(_plain(path, os.O_RDONLY | os.O_NONBLOCK)), "utf-8")
        with file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _value(line, f"{path}:{number}", hint)
    except OSError as error:
        raise _unread(error, path, hint) from None
    except UnicodeDecodeError as error:
        raise ThunderError(f"is not UTF-8: {error}", where=str(path), hint=hint) from error


def _value(line: str, where: str, hint: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ThunderError(f"is not JSON: {error}", where=where, hint=hint) from error


def _unread(error: OSError, path: str | os.PathLike[str], hint: str) -> ThunderError:
    is_missing = isinstance(error, FileNotFoundError)
    hint = privacy.hint(str(error)) or hint
    return ThunderError("is missing" if is_missing else f"cannot be read: {error.strerror}", str(path), hint)


def expand_all(pattern: str, root: str | os.PathLike[str]) -> list[str]:
    """As `expand`; a folder stands for the files in it and in its folders, but hidden ones. No link is followed."""
    if not pattern or not os.path.isdir(os.path.join(root, pattern)):
        return expand(pattern, root)
    top, paths = pattern.rstrip("/"), []
    for parent, folders, names in os.walk(os.path.join(root, top)):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(parent, os.path.join(root, top))
        shown = [name for name in names if not name.startswith(".")]
        paths += [os.path.normpath(os.path.join(below, name)) for name in shown]
    return sorted(f"{top}/{path}" for path in paths)


def is_pattern(path: str) -> bool:
    """Whether a path stands for files that match it."""
    return any(mark in path for mark in PATTERN_MARKS)


def expand(pattern: str, root: str | os.PathLike[str]) -> list[str]:
    """The path itself, or the files that match its * ? [ ], relative to root and sorted."""
    if not is_pattern(pattern):
        return [pattern] if pattern else []
    import glob  # late: few paths are patterns

    return sorted(
        name for name in glob.glob(pattern, root_dir=root, recursive=True) if os.path.isfile(Path(root, name))
    )


def before_marks(pattern: str) -> str:
    """A pattern up to its first special character."""
    return re.split(f"[{re.escape(PATTERN_MARKS)}]", pattern, maxsplit=1)[0]


def matches(pattern: str, path: str) -> bool:
    """Whether `expand` would list this path for the pattern, if it is a file."""
    return _match(pattern.split("/"), path.split("/"), is_above=False)


def reaches(pattern: str, path: str) -> bool:
    """Whether `expand` would list this path, if it is a file, or files below it, if it is a folder."""
    return _match(pattern.split("/"), path.split("/"), is_above=True)


def _match(pattern: list[str], names: list[str], is_above: bool) -> bool:
    """Whether a path matches a pattern, part by part. is_above: it may be a folder above such a path."""
    if not (names and pattern):
        return not names and (is_above or all(part == "**" for part in pattern))
    first, *rest = pattern
    if first == "**":
        shown = itertools.takewhile(lambda name: not name.startswith("."), names)
        return any(_match(rest, names[count:], is_above) for count in range(len([*shown]) + 1))
    is_hidden = names[0].startswith(".") and not first.startswith(".")
    is_same = names[0] == first or (fnmatch.fnmatchcase(names[0], first) and not is_hidden)
    return is_same and _match(rest, names[1:], is_above)


def is_inside(path: Any) -> bool:
    """Whether a path of an untrusted file stays inside the folder that it is joined to."""
    return isinstance(path, str) and bool(path) and not Path(path).is_absolute() and ".." not in Path(path).parts


def portable_below(folder: str, path: str) -> str:
    """As `portable`, for a file below a declared folder: its place below the folder's portable name."""
    rest = path.removeprefix(f"{folder.rstrip('/')}/")
    return portable(path) if rest == path else f"{portable(folder.rstrip('/'))}/{rest}"


def portable(path: str) -> str:
    """A path for a committed file: of a path outside the project only the name."""
    return path if not path or is_inside(path) else Path(path).name


def is_sha256(text: Any) -> bool:
    """Whether a value of an untrusted file is a sha256 in hex."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def require(path: str | os.PathLike[str], hint: str) -> Path:
    """The path, if the file exists. Raises ThunderError with the hint if it does not."""
    if not Path(path).is_file():
        raise ThunderError("is missing", where=str(path), hint=hint)
    return Path(path)
