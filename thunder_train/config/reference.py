"""schema.py as people and editors read it: docs/recipe.md, and JSON schemas for taplo and Even Better TOML."""

from pathlib import Path
from typing import Any

from thunder_train.config import schema
from thunder_train.config.fields import Table
from thunder_train.core import files

TYPES = {
    "string": "text",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "list": "list",
    "dict": "table",
}
JSON_TYPES = {
    "string": "string",
    "boolean": "boolean",
    "integer": "integer",
    "number": "number",
    "list": "array",
    "dict": "object",
}
HEAD = """# Every key of a recipe and of thunder.toml

Made from `thunder_train/config/schema.py` by `./doit reference`; edit that file, not this one.

A recipe is one experiment: `recipes/NAME.toml`. It names a cluster, a model and a dataset of `thunder.toml`. What a
recipe does not state comes from `[defaults.*]` of `thunder.toml`, then from the default below. A key that is not
listed here is an error, and so is a value out of bounds; every problem of every file is told at once.
"""
COLUMNS = "| key | type | bounds | unit | default | meaning |\n|---|---|---|---|---|---|\n"
TABLES: list[tuple[str, str, Table]] = [
    ("recipes/NAME.toml", "A recipe", schema.RECIPE),
    ("[train]", "The training of a recipe", schema.TRAIN),
    ("[evaluate]", "The evaluation of a recipe", schema.EVALUATE),
    ("[build]", "What counts as stale", schema.BUILD),
    ("thunder.toml", "The project", schema.PROJECT),
    ("[clusters.NAME]", "Where recipes train", schema.CLUSTER),
    ("[[clusters.NAME.hosts]]", "One rank's machine", schema.HOST),
    ("[models.NAME]", "A base model", schema.MODEL),
    ("[datasets.NAME]", "A dataset", schema.DATASET),
    ("[[datasets.NAME.sources]]", "One input of a dataset", schema.SOURCE),
    ("[datasets.NAME.orthography_table]", "An orthography of your own", schema.ORTHOGRAPHY),
]


def pages() -> dict[str, str]:
    """{path: text} of everything made from schema.py."""
    return {
        "docs/recipe.md": HEAD + "".join(_section(*table) for table in TABLES),
        "docs/recipe.schema.json": files.canonical(_document("A Thunder Train recipe", schema.RECIPE)),
        "docs/thunder.schema.json": files.canonical(_document("thunder.toml of Thunder Train", schema.PROJECT)),
    }


def write(root: Path) -> None:
    """Write every page."""
    for path, text in pages().items():
        files.write_text(root / path, text)


def _section(title: str, what: str, table: Table) -> str:
    rows = "".join(_row(key, rules) for key, rules in table.items())
    return f"\n## `{title}`\n\n{what}.\n\n{COLUMNS}{rows}"


def _row(key: str, rules: dict[str, Any]) -> str:
    default = "**required**" if rules.get("required") else f"`{_toml(rules['default'])}`" if "default" in rules else ""
    meta = rules["meta"]
    cells = (f"`{key}`", TYPES[rules["type"]], _bounds(rules), meta.get("unit", ""), default, meta["help"])
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _bounds(rules: dict[str, Any]) -> str:
    allowed = rules.get("allowed") or rules.get("schema", {}).get("allowed")
    if allowed and isinstance(allowed, list):
        return ", ".join(f"`{_toml(value)}`" for value in allowed)
    return f"{rules['min']:g} to {rules['max']:g}" if "min" in rules else ""


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return "{}" if value == {} else str(value)


def _document(title: str, table: Table) -> dict[str, Any]:
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": title, **_object(table)}


def _object(table: Table) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _property(rules) for key, rules in table.items()},
    }
    required = [key for key, rules in table.items() if rules.get("required")]
    return shape | ({"required": required} if required else {})


def _property(rules: dict[str, Any]) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": JSON_TYPES[rules["type"]]}
    if "schema" in rules and rules["type"] == "dict":
        shape = _object(rules["schema"])
    elif "valuesrules" in rules:
        shape["additionalProperties"] = _property(rules["valuesrules"])
    elif "schema" in rules:
        shape["items"] = _property(rules["schema"])
    names = {"min": "minimum", "max": "maximum", "allowed": "enum", "regex": "pattern", "default": "default"}
    shape |= {theirs: rules[ours] for ours, theirs in names.items() if ours in rules}
    if "meta" in rules:
        unit = rules["meta"].get("unit")
        shape["description"] = rules["meta"]["help"] + (f" ({unit})" if unit else "")
    return shape


if __name__ == "__main__":
    write(Path())
