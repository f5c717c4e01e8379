"""The field map of a source: which member of a row is which canonical field, which of its words means which.

Input: `fields`, `constants`, `enums` and `reference_side` of a `config.dataset.Source`.  Output: canonical fields.
"""

import difflib
from collections.abc import Collection
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted

OPEN = ("telemetry", "trajectory_scalars", "witness")
"""Canonical fields that may have members of any name, mapped as `telemetry.x`."""
BUDGET = ("edit_budget.relative", "edit_budget.floor", "edit_budget.allowed")
REFERENCE_SIDE = ("cer_edits", "reference_text")
"""Members of telemetry that are computed from the reference, whatever the source declares."""


class FieldMap:
    """A source's field map. canonical: the fields of its kind; required: those that it must map.

    is_whole: only mapped fields count, as in reports; else a row's own fields of canonical names count too, and mapped
    ones take precedence.  Raises ThunderError with all mistakes of the map.
    """

    def __init__(self, source: Source, canonical: Collection[str], required: Collection[str], is_whole: bool) -> None:
        raise_all(_mistakes(source, canonical, required, is_whole))
        self._enums, self._is_whole = source.enums, is_whole
        mapped = source.fields.keys() | source.constants.keys()
        paths = source.fields | {name: name for name in source.enums if name not in mapped}
        self._paths = [(*_split(name), dotted, name) for name, dotted in paths.items()]
        self._constants = [(*_split(name), word) for name, word in source.constants.items()]
        self.columns = _columns([*source.fields.values()], () if is_whole else canonical)
        """Names of the columns that a table must be read for."""
        hidden = {name.partition(".")[2] for name in source.reference_side if name.startswith("telemetry.")}
        self._hidden = frozenset(hidden)
        self._is_all_hidden = "telemetry" in source.reference_side

    def applied(self, raw: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """One row in canonical fields, and (problem, hint) for each word that its enum does not list.

        A field that is null or absent in the row is left out.
        """
        if not (self._paths or self._constants):
            return raw, []
        values: dict[str, Any] = {} if self._is_whole else dict(raw)
        problems = []
        for head, member, dotted, name in self._paths:
            value = dig(raw, dotted)
            if value is None:
                continue
            if name in self._enums:
                value, unknown = _translated(value, self._enums[name])
                for word in unknown:
                    hint = f"list it in enums.{name} beside {', '.join(self._enums[name])}"
                    problems.append((f"{name} {quoted(word)} is in no enum", hint))
            _put(values, head, member, value)
        for head, member, value in self._constants:
            _put(values, head, member, value)
        return values, problems

    def without_reference(self, telemetry: dict[str, Any]) -> dict[str, Any]:
        """Telemetry without the members that know the reference, at any depth."""
        return {} if self._is_all_hidden else _visible(telemetry, self._hidden, "")


def dig(value: Any, dotted: str) -> Any:
    """The member at a dotted path ("" is the value itself), or None. A member whose name has dots takes precedence."""
    if isinstance(value, dict) and dotted in value:
        return value[dotted]
    for part in dotted.split(".") if dotted else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _split(name: str) -> tuple[str, str]:
    head, _, member = name.partition(".")
    return head, member


def _put(values: dict[str, Any], head: str, member: str, value: Any) -> None:
    if not member:
        values[head] = value
    elif isinstance(inner := values.get(head), dict):
        values[head] = inner | {member: value}
    else:
        values[head] = {member: value}


def _translated(value: Any, enum: dict[str, str]) -> tuple[Any, list[str]]:
    """The canonical word of each word, and the words that the enum does not list."""
    words = [_word(item) for item in (value if isinstance(value, list) else [value])]
    canonical = [enum.get(word, word) for word in words]
    return canonical if isinstance(value, list) else canonical[0], [word for word in words if word not in enum]


def _word(value: Any) -> str:
    """A value as a key of an enum: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _columns(dotted: list[str], canonical: Collection[str]) -> frozenset[str]:
    return frozenset({*canonical, *dotted, *(name.partition(".")[0] for name in dotted), "schema"})


def _visible(telemetry: dict[str, Any], hidden: Collection[str], prefix: str) -> dict[str, Any]:
    return {
        name: _visible(value, hidden, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in telemetry.items()
        if name not in REFERENCE_SIDE and f"{prefix}{name}" not in hidden
    }


def _mistakes(
    source: Source, canonical: Collection[str], required: Collection[str], is_whole: bool
) -> list[ThunderError]:
    """Unknown names, names mapped twice, required names that nothing maps to."""
    names = source.fields.keys() | source.constants.keys()
    problems = [_unknown(source, name, canonical) for name in sorted(names) if not _is_canonical(name, canonical)]
    twice = [name for name in sorted(names) if "." in name and name.partition(".")[0] in names]
    for name in twice:
        what = f"maps both {name.partition('.')[0]!r} and {name!r}"
        problems.append(ThunderError(what, where=source.path, hint="keep one of them"))
    filled = set(names) if is_whole else {*names, *canonical, "telemetry"}
    for name in sorted({*source.enums, *source.reference_side}):
        if name not in filled and name.partition(".")[0] not in filled:
            key = "enums" if name in source.enums else "reference_side"
            problems.append(_unknown(source, name, filled, f"{key} names {name!r}, which nothing maps to"))
    for name, dotted in sorted(source.fields.items()):
        member = dotted.rpartition(".")[2]
        if name.startswith("telemetry.") and member in REFERENCE_SIDE and name not in source.reference_side:
            what = f"{name!r} is read from {dotted!r}, which knows the reference"
            problems.append(ThunderError(what, where=source.path, hint="take it out of `fields`"))
    missing = [name for name in required if name not in names]
    hint = "add it to `fields`"
    return problems + [ThunderError(f"nothing maps to {name!r}", where=source.path, hint=hint) for name in missing]


def _is_canonical(name: str, canonical: Collection[str]) -> bool:
    head, member = _split(name)
    return head in canonical and (not member or head in OPEN or name in BUDGET)


def _unknown(source: Source, name: str, allowed: Collection[str], what: str = "") -> ThunderError:
    near = difflib.get_close_matches(name, [*sorted(allowed), *(BUDGET if "edit_budget" in allowed else ())], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(allowed))}"
    return ThunderError(what or f"unknown canonical field {name!r}", where=source.path, hint=hint)
