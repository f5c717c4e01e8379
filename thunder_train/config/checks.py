"""A TOML file against its table in schema.py: values with defaults filled in, and every problem in a person's words."""

import difflib
import math
import tomllib
from pathlib import Path
from typing import Any

from cerberus import TypeDefinition, Validator
from cerberus.errors import BaseErrorHandler

from thunder_train import ThunderError
from thunder_train.config.fields import FORMS, Table

TYPES = {
    "string": "text in quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list in [ ]",
    "dict": "a table",
}


class _Keep(BaseErrorHandler):  # type: ignore[misc]  # Cerberus ships no types
    """Cerberus' own extension point for messages: hands the error objects on, for `_problem` to word."""

    def __call__(self, errors: Any) -> list[Any]:
        return list(errors)

    def add(self, error: Any) -> None:
        """Required by the interface; the errors arrive through __call__."""


class _Checker(Validator):  # type: ignore[misc]  # Cerberus ships no types
    types_mapping = {**Validator.types_mapping, "integer": TypeDefinition("integer", (int,), (bool,))}  # noqa: RUF012

    def _check_with_finite(self, field: str, value: Any) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self._error(field, "must be finite")


def read_toml(path: Path, where: str, mend: str) -> dict[str, Any]:
    """The tables of a TOML 1.0 file. where: the name users know it by; mend: what to do when it is missing or empty."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ThunderError("is missing", where=where, mend=mend) from None
    except UnicodeDecodeError as error:
        raise ThunderError(f"is not UTF-8 at byte {error.start}", where=where, mend="save it as UTF-8") from None
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where=where) from None
    if not text.strip():
        raise ThunderError("is empty", where=where, mend=mend)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ThunderError(f"is not TOML: {error}", where=where, mend="mend that line") from None


def check(values: dict[str, Any], table: Table, where: str) -> tuple[dict[str, Any], list[ThunderError]]:
    """The values with defaults filled in, and every problem as `file: key: what; mend`, in order of the keys."""
    checker = _Checker(table, error_handler=_Keep)
    checker.validate(values)
    leaves = _leaves(checker.errors)
    order = sorted(leaves, key=lambda error: [str(part) for part in error.document_path])
    return checker.document, [_problem(error, table, where) for error in order]


def dotted(path: tuple[str | int, ...]) -> str:
    """("hosts", 1, "ssh") as hosts[1].ssh."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: list[str]) -> str:
    """The mend for a word that is not known: the nearest one, else all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(known))}"


def _leaves(errors: list[Any]) -> list[Any]:
    return [leaf for error in errors for leaf in (_leaves(error.child_errors) if error.child_errors else [error])]


def _problem(error: Any, table: Table, where: str) -> ThunderError:
    path, value, limit = error.document_path, error.value, error.constraint
    unit = _rules(table, path).get("meta", {}).get("unit", "")
    unit = f" {unit}" if unit else ""
    if error.rule is None and not error.info:
        what, mend = f"unknown key {path[-1]!r}", did_you_mean(str(path[-1]), list(_keys(table, path[:-1])))
    elif error.rule == "required":
        what, mend = "is missing", _how_to_add(path, _rules(table, path))
    elif error.rule == "type":
        what, mend = f"must be {TYPES[limit]}, is {value!r}", "change its type"
    elif error.rule == "min":
        what, mend = f"is {value!r}", f"give at least {limit!r}{unit}"
    elif error.rule == "max":
        what, mend = f"is {value!r}", f"give at most {limit!r}{unit}"
    elif error.rule == "allowed":
        what, mend = f"is {value!r}", did_you_mean(str(value), [str(one) for one in limit])
    elif error.rule == "forbidden":
        what, mend = f"{value!r} is taken by a folder of the project", "choose another name"
    elif error.rule == "regex":
        what, mend = f"{value!r} holds characters that do not belong there", FORMS[limit]
    elif error.rule == "minlength":
        what, mend = "is empty", "give at least one"
    else:
        what, mend = str(error.info[0]) if error.info else f"breaks the rule {error.rule}", "change it"
    return ThunderError(what, where=f"{where}: {dotted(path)}", mend=mend)


def _how_to_add(path: tuple[str | int, ...], rules: dict[str, Any]) -> str:
    if rules.get("type") == "dict":
        return f"add a table [{dotted(path)}]" + ("" if "schema" in rules else " with a name, as shown in the README")
    return f"add `{path[-1]} = ...` ({rules.get('meta', {}).get('help', '')})"


def _rules(table: Table, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The rules of the key at a path; empty when the table does not know it."""
    rules: dict[str, Any] = {"type": "dict", "schema": table}
    for part in path:
        if isinstance(part, int):
            rules = rules.get("schema", {})
        elif "valuesrules" in rules:
            rules = rules["valuesrules"]
        else:
            rules = rules.get("schema", {}).get(part, {})
    return rules


def _keys(table: Table, path: tuple[str | int, ...]) -> list[str]:
    return sorted(_rules(table, path).get("schema", {}))
