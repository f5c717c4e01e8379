"""How a config key is declared: a dataclass field whose metadata holds its type, bounds, unit, default and help.

The metadata are Cerberus rules. `table` turns a class of such fields into a Cerberus schema; the worker's flags,
docs/recipe.md and the JSON schemas come from the same fields. Every rank and every start of doit imports this file, so
it uses the standard library only.

A key declared with operational=True says how a stage runs, not what it computes: it can change no byte of an output.
A key declared with later=True came after runs had been recorded without it: at its default it computes what they did,
and is no part of what a run is known by.
"""
# ruff: noqa: A002  (`help` is the name that argparse uses, and core/code_hash.py ignores texts given as help=)

import math
import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from typing import Any

Table = dict[str, dict[str, Any]]
"""A Cerberus schema: key -> rules."""

NAME = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,63}$"
"""Names become folder names: no slash, no "..", no leading dot or dash."""
RUN = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,63}(@[A-Za-z0-9._+,-]{1,120})?$"
"""The name of a run: that of a recipe, and the values of a sweep if it is a member of one."""
SSH_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$"
ADDRESS = r"^[0-9A-Za-z][0-9A-Za-z.:-]*$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*=.*$"
REPO = r"^$|^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
REVISION = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._/-]*$"
LAYER = r"^[A-Za-z0-9_.*]+$"
FORMS = {
    NAME: "use letters, digits, . _ - and begin with a letter or digit",
    RUN: "use letters, digits, . _ - and begin with a letter or digit",
    SSH_NAME: "use the name of the host in ~/.ssh/config, or user@host",
    ADDRESS: "give an address as 10.0.5.1",
    VARIABLE: "write it as NAME=value",
    REPO: "write it as owner/name",
    REVISION: "give a branch, a tag or a commit",
    LAYER: "give a layer's name as self_attn.q_proj, its last part, or a pattern as *.mlp.*",
}
"""Pattern -> hint for a text that does not match it."""
SEED_MAX = 2**31 - 1


def text(*, help: str, default: Any = MISSING, choices: Sequence[str] = (), pattern: str = "", **rules: Any) -> Any:
    """A text."""
    return _key("string", help, default, **_text_rules(choices, pattern), **rules)


def texts(*, help: str, default: Any = MISSING, choices: Sequence[str] = (), pattern: str = "", **rules: Any) -> Any:
    """A list of texts; choices and pattern apply to each of them."""
    return _key("list", help, default, schema={"type": "string", **_text_rules(choices, pattern)}, **rules)


def whole(
    *, help: str, low: int, high: int, unit: str = "", default: Any = MISSING, word: str = "", **rules: Any
) -> Any:
    """A whole number from low to high. word: a text that may stand in its place."""
    if not word:
        return _key("integer", help, default, unit, min=low, max=high, **rules)
    kinds, bounds = ["integer", "string"], _number_rules(low, high)
    return _key(kinds, help, default, unit, {"word": word}, **bounds, **rules)


def real(
    *, help: str, low: float, high: float, unit: str = "", default: Any = MISSING, above: bool = False, **rules: Any
) -> Any:
    """A finite number from low to high; above: low itself is not allowed."""
    return _key("number", help, default, unit, **_number_rules(low, high), meta={"above": above}, **rules)


def pair(*, help: str, low: float, high: float, unit: str = "") -> Any:
    """Two finite numbers from low to high; the key may be absent."""
    each = {"type": "number", **_number_rules(low, high), "meta": {"unit": unit}}
    return _key("list", help, MISSING, minlength=2, maxlength=2, schema=each, optional=True)


def switch(*, help: str, default: bool) -> Any:
    """true or false."""
    return _key("boolean", help, default)


def mapping(*, help: str, **values: Any) -> Any:
    """A table with any keys, empty by default; values: the rules of each value, by default those of a text."""
    return _key("dict", help, dict, valuesrules=values or {"type": "string"})


def scalars(*, help: str) -> Any:
    """A table with any keys whose values are texts, finite numbers, true or false; empty by default."""
    return mapping(help=help, type=["string", "number", "boolean"], check_with="number")


def lists(*, help: str) -> Any:
    """A table with any keys whose values are lists; it may be absent."""
    return _key("dict", help, MISSING, valuesrules={"type": "list"}, optional=True)


def nested(kind: type, *, help: str, default: Any = MISSING, **rules: Any) -> Any:
    """A table whose keys are the fields of kind. default: a function that gives one.

    partial=True: none of its keys is required and none has a default.
    """
    return _key("dict", help, default, schema=kind, **rules)


def tables(kind: type, *, help: str, default: Any = MISSING, **rules: Any) -> Any:
    """A list of tables whose keys are the fields of kind."""
    return _key("list", help, default, schema={"type": "dict", "schema": kind}, **rules)


def named(kind: type, *, help: str, needed: bool = True, later: bool = False, **rules: Any) -> Any:
    """Tables by name, as [models.NAME], whose keys are the fields of kind. rules: those of the names.

    needed: whether there must be one.
    """
    names, values = {"type": "string", "regex": NAME, **rules}, {"type": "dict", "schema": kind}
    if needed:
        return _key("dict", help, MISSING, keysrules=names, valuesrules=values, minlength=1)
    return _key("dict", help, dict, keysrules=names, valuesrules=values, later=later)


def _text_rules(choices: Sequence[str], pattern: str) -> dict[str, Any]:
    return ({"allowed": [*choices]} if choices else {}) | ({"regex": pattern} if pattern else {})


def _number_rules(low: float, high: float) -> dict[str, Any]:
    return {"min": low, "max": high, "check_with": "number"}


def _key(
    kind: str | list[str],
    help: str,
    default: Any,
    unit: str = "",
    meta: dict[str, Any] | None = None,
    operational: bool = False,
    later: bool = False,
    **rules: Any,
) -> Any:
    """optional=True in rules: the key may be absent although it has no default."""
    marks = {name: True for name, holds in (("operational", operational), ("later", later)) if holds}
    metadata = {"type": kind, **rules, "meta": {"help": help, "unit": unit, **(meta or {}), **marks}}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@cache
def table(kind: type, is_partial: bool = False) -> Table:
    """The Cerberus schema of a class: its fields that are keys. is_partial: without defaults and required keys.

    A key with instead=(NAME, KEY) may be given as that other key; load.py makes one of the other.
    """
    schema: Table = {}
    for each in fields(kind):
        if "instead" in each.metadata:
            name, other = each.metadata["instead"]
            schema[name] = _rules(other, is_partial)
        if each.metadata:
            schema[each.name] = _rules(each, is_partial)
    return schema


def is_operational(key: "Field[Any]") -> bool:
    """Whether a key can change no byte of an output. True of the field of a dataclass that is declared so."""
    return "operational" in key.metadata.get("meta", ())


def is_implied(key: "Field[Any]", value: Any) -> bool:
    """Whether a key that was declared with later=True has its default: the run is one that could do without the key."""
    default = key.default if key.default_factory is MISSING else key.default_factory()
    return "later" in key.metadata.get("meta", ()) and bool(value == default)


def _rules(key: "Field[Any]", is_partial: bool) -> dict[str, Any]:
    rules = {name: value for name, value in key.metadata.items() if name not in ("optional", "partial", "instead")}
    for name in ("schema", "valuesrules"):
        if name in rules:
            rules[name] = _resolved(rules[name], "partial" in key.metadata)
    if is_partial or "optional" in key.metadata:
        return rules
    default = key.default if key.default_factory is MISSING else {}
    if default is MISSING:
        return rules | {"required": True}
    return rules | {"default": [*default] if isinstance(default, tuple) else default}


def _resolved(rules: Any, is_partial: bool) -> Any:
    """Rules in which each class has become its schema."""
    if isinstance(rules, type) and is_dataclass(rules):
        return table(rules, is_partial)
    return {name: _resolved(value, is_partial) for name, value in rules.items()} if isinstance(rules, dict) else rules


def _amount(bound: float, meta: Any) -> str:
    """A bound with its unit, as `1 row per rank` or `65536 rows per rank`."""
    thing, *rest = meta.get("unit", "").split(" ")
    if bound == 1:
        thing = thing.removesuffix("es") if thing.endswith("ches") else thing.removesuffix("s") or thing
    return " ".join([repr(bound), thing, *rest]).strip()


def problem(value: Any, rules: Any) -> tuple[str, str] | None:
    """What is wrong with a number or a text, and a hint; None if it obeys the bounds, the pattern and the choices."""
    meta = rules.get("meta", {})
    if "word" in meta and isinstance(value, str):
        expected = f'give a whole number, or "{meta["word"]}"'
        return None if value == meta["word"] else (f"is {value!r}", expected)
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}", "give a finite number"
    if "min" in rules and value < rules["min"]:
        return f"is {value!r}", f"give at least {_amount(rules['min'], meta)}"
    if meta.get("above") and value == rules["min"]:
        return f"is {value!r}", f"give more than {_amount(rules['min'], meta)}"
    if "max" in rules and value > rules["max"]:
        return f"is {value!r}", f"give at most {_amount(rules['max'], meta)}"
    if "regex" in rules and not re.fullmatch(rules["regex"], value):
        return f"{value!r} contains characters that are not allowed", FORMS[rules["regex"]]
    if "allowed" in rules and value not in rules["allowed"]:
        return f"is {value!r}", f"use one of: {', '.join(sorted(rules['allowed']))}"
    return None
