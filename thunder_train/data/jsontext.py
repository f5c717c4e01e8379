"""JSON as others write it, strictly: what is wrong with it, and where.

Input: bytes of a line or a file.  Output: ThunderErrors that name `file:line:column`; keys that stand twice.
"""

import json
import re
from typing import Any

import msgspec

from thunder_train import ThunderError

DECODE = msgspec.json.Decoder().decode
HALF = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)", re.DOTALL)
"""Group 1: an escape that is half of a surrogate pair, without the other half."""


def repeated_key(content: bytes, value: dict[str, Any]) -> str | None:
    """A key that some object of a JSON text has twice, where decoders keep the last. value: the text, decoded.

    Every key is followed by a colon, so equal counts of both prove that none is lost; only else it is looked up.
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
    """What keeps bytes from being JSON, and where."""
    try:
        content.decode()
    except UnicodeDecodeError as wrong:
        return not_text(content, wrong, path, first_line)
    mend = "mend or remove the line"
    if isinstance(error, RecursionError):
        return ThunderError("is nested too deep", where=f"{path}:{first_line}", mend=mend)
    message, _, byte = str(error).removesuffix(")").rpartition(" (byte ")
    if isinstance(error, msgspec.ValidationError):  # a number that no float or int holds; msgspec does not say where
        what = f"is not JSON: {str(error).partition(' - at ')[0]}"
        return ThunderError(what, where=f"{path}:{first_line}", mend=mend)
    before = content[: int(byte)] if message else content.rstrip()
    what = f"is not JSON: {message or error}"
    half = next((found for found in HALF.finditer(content) if found[1]), None)
    if half and (not message or "surrogate" in message):
        before, what = content[: half.start()], f"holds half of a character, {half[1].decode()}"
    shown = before.decode(errors="ignore")
    line, column = first_line + shown.count("\n"), len(shown) - shown.rfind("\n")
    return ThunderError(what, where=f"{path}:{line}:{column}", mend=mend)


def not_text(content: bytes, error: UnicodeDecodeError, path: str, first_line: int) -> ThunderError:
    """What keeps bytes from being UTF-8, and on which line."""
    line = first_line + content.count(b"\n", 0, error.start)
    return ThunderError("is not UTF-8", where=f"{path}:{line}", mend="save the file as UTF-8")
