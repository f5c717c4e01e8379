"""The row that every source turns into, and the strict reading of the JSON files it comes from.

Input: JSON and JSONL files written by others.  Output: `Row`, or objects with the place where each stands.
Every malformed byte, missing field and wrong type is a ThunderError that names `file:line`, many of them together.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from thunder_train import ThunderError, raise_all

SHOWN = 20
"""Most problems of one file that an error lists."""

Located = tuple[str, dict[str, Any]]
"""Where an object stands (`file:line`, `file: rows[3]`), and the object."""

Shape = TypeVar("Shape", bound=msgspec.Struct)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One example before the split. Only `target_text` and `reference_text` may know the reference."""

    row_id: str
    group: str
    """Rows of one group are never parted: the audio, else the segment, else the feature, else the row itself."""
    source: str
    """Stem of the source file."""
    evidence_kind: str
    target_text: str
    """What the model shall answer."""
    asr_text: str = ""
    reference_text: str = ""
    partition: str = ""
    decision: str = ""
    """`accepted`, `rejected`, or "" where no gate has spoken."""
    proposal_text: str = ""
    proposal_source: str = ""
    reason_codes: tuple[str, ...] = ()
    witness: dict[str, str] = {}
    telemetry: dict[str, Any] = {}
    """What the recogniser knew without a reference; prompts may show it."""
    messages: tuple[dict[str, str], ...] = ()
    """ChatML sources only: the conversation as it is; then no prompt is rendered."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What one source gave."""

    rows: list[Row]
    rows_read: dict[str, int]
    """File -> rows in it."""
    dropped: dict[str, int]
    """Reason -> rows that do not teach."""


def text(path: str, root: Path) -> str:
    """The text of a file under root; a byte order mark is skipped. Errors: missing, unreadable, not UTF-8, empty."""
    try:
        content = (root / path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ThunderError("is missing", where=path, mend="mend the source's path or add the file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ThunderError("is not UTF-8", where=f"{path}:{line}", mend="save the file as UTF-8") from None
    except ValueError:
        raise ThunderError("is no path", where=repr(path), mend="mend the source's path") from None
    except OSError as error:
        raise ThunderError(
            f"cannot be read: {error.strerror}", where=path, mend="check the path and its rights"
        ) from error
    if not content.strip():
        raise ThunderError("is empty", where=path, mend="add rows, or remove the source")
    return content


def decode(content: str, path: str, first_line: int = 1) -> Any:
    """The JSON value of a text that starts at `first_line` of a file. Errors name `file:line:column`."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        message, _, position = str(error).removesuffix(")").rpartition(" (byte ")
        before = content.encode()[: int(position)].decode(errors="ignore") if message else content.rstrip()
        line, column = first_line + before.count("\n"), len(before) - before.rfind("\n")
        what = f"is not JSON: {message or error}"
        raise ThunderError(what, where=f"{path}:{line}:{column}", mend="mend or remove the line") from None


def objects(path: str, root: Path) -> list[Located]:
    """The objects of a JSONL file, blank lines skipped."""
    found: list[Located] = []
    problems = []
    for number, line in enumerate(text(path, root).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = decode(line, path, number)
        except ThunderError as problem:
            problems.append(problem)
            continue
        if isinstance(value, dict):
            found.append((f"{path}:{number}", value))
        else:
            problems.append(
                ThunderError("is not a JSON object", where=f"{path}:{number}", mend="mend or remove the line")
            )
    raise_some(problems)
    return found


def lacking(located: Iterable[Located], required: tuple[str, ...]) -> list[ThunderError]:
    """One problem per object that lacks required fields; a null counts as absent."""
    missing = ((where, [name for name in required if value.get(name) is None]) for where, value in located)
    return [
        ThunderError(f"lacks {', '.join(names)}", where=where, mend="add them") for where, names in missing if names
    ]


def convert(located: Located, shape: type[Shape]) -> Shape:
    """The object as a struct, its types checked; fields that the struct does not know are ignored."""
    where, value = located
    try:
        return msgspec.convert({name: item for name, item in value.items() if item is not None}, shape)
    except msgspec.ValidationError as error:
        raise ThunderError(str(error), where=where, mend="mend the row") from None


def convert_all(located: Iterable[Located], shape: type[Shape]) -> list[Shape]:
    """Every object as a struct; all wrong ones are reported together."""
    found, problems = [], []
    for item in located:
        try:
            found.append(convert(item, shape))
        except ThunderError as problem:
            problems.append(problem)
    raise_some(problems)
    return found


def raise_some(problems: list[ThunderError]) -> None:
    """As raise_all, but a file with a thousand bad lines is told in twenty."""
    more = len(problems) - SHOWN
    raise_all(problems[:SHOWN] + ([ThunderError(f"... and {more} more")] if more > 0 else []))
