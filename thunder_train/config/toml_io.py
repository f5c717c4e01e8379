"""TOML files: reading one with errors that name its place, and writing tables that read back to the same values."""

import codecs
import tomllib
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.config.project import Recipe, section
from thunder_train.core import files


def read_toml(path: Path, where: str, hint: str) -> dict[str, Any]:
    """The tables of a TOML 1.0 file. where: the file as users know it; hint: what to do if it is missing or empty.

    A byte order mark, with which some editors begin a file, is not part of it.
    """
    try:
        text = files.read_bytes(path).removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except FileNotFoundError:
        raise ThunderError("is missing", where=where, hint=hint) from None
    except UnicodeDecodeError as error:
        raise ThunderError(f"is not UTF-8 at byte {error.start}", where=where, hint="save it as UTF-8") from None
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where=where) from None
    if not text.strip():
        raise ThunderError("is empty", where=where, hint=hint)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of more digits than Python reads
        raise ThunderError(f"is not TOML: {error}", where=where, hint="correct that line") from None
    except RecursionError:
        raise too_deep(where) from None


def too_deep(where: str) -> ThunderError:
    """The error for a file whose tables and lists lie deeper in each other than Python can follow."""
    return ThunderError(
        "is nested too deeply", where=where, hint="no key of a project needs a list in a list in a list"
    )


def resolved_toml(recipe: Recipe) -> str:
    """The whole resolved recipe as TOML."""
    table = {name: value for name, value in section(recipe).items() if name != recipe.unused}
    return as_toml(table, where=recipe.file)


def as_toml(table: dict[str, Any], where: str) -> str:
    """A table as TOML, checked to read back to the same values. where: what an error names.

    Empty tables are left out: toml.dumps loses them inside lists of tables.
    """
    table = _without_empty_tables(table)
    import toml  # late: a no-op build writes none

    try:
        text: str = toml.dumps(table)
        is_same = tomllib.loads(text) == table
    except (tomllib.TOMLDecodeError, IndexError):  # IndexError: toml's own for a control character
        is_same = False
    if not is_same:
        raise ThunderError("cannot be written as TOML", where=where, hint="look for unusual characters in its texts")
    return text


def _without_empty_tables(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty_tables(inner) for key, inner in value.items() if inner != {}}
    return [_without_empty_tables(inner) for inner in value] if isinstance(value, list) else value
