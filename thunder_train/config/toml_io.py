"""A resolved recipe, or any table, as TOML that reads back to the same values."""

import tomllib
from typing import Any

import toml

from thunder_train import ThunderError
from thunder_train.config.project import Recipe, section


def resolved_toml(recipe: Recipe) -> str:
    """The whole resolved recipe as TOML."""
    return as_toml(section(recipe), where=recipe.file)


def as_toml(table: dict[str, Any], where: str) -> str:
    """A table as TOML, proved to read back to the same values. where: what an error names.

    Empty tables are left out: toml.dumps loses them inside lists of tables.
    """
    table = _without_empty_tables(table)
    text: str = toml.dumps(table)
    try:
        is_same = tomllib.loads(text) == table
    except tomllib.TOMLDecodeError:
        is_same = False
    if not is_same:
        raise ThunderError("cannot be written as TOML", where=where, hint="look for unusual characters in its texts")
    return text


def _without_empty_tables(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty_tables(inner) for key, inner in value.items() if inner != {}}
    return [_without_empty_tables(inner) for inner in value] if isinstance(value, list) else value
