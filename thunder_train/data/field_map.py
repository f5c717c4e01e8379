"""The field map of a source: which member of a row is which canonical field, which word means which.

Input: `fields`, `constants`, `enums` and `reference_side` of a `config.Source`.  Output: rows in canonical fields.
"""

import difflib
from collections.abc import Collection
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data.readers import Reader
from thunder_train.data.rows import GROUP_KEYS

OPEN = ("telemetry", "trajectory_scalars", "witness")
"""Canonical fields that may have members of any name, mapped as `telemetry.x`."""
BUDGET = ("edit_budget.relative", "edit_budget.floor", "edit_budget.allowed")
REFERENCE_SIDE = ("cer_edits", "reference_text")
"""Members of telemetry that know the reference, whatever the source says."""


class Map:
    """A source's field map. canonical: the fields of its kind; required: those that it must fill.

    is_whole: only mapped fields count, as in reports; else a row's own fields of canonical names count too, and the
    map comes first.  Raises ThunderError, all mistakes together, when the map names what there is not.
    """

    def __init__(self, source: Source, canonical: Collection[str], required: Collection[str], is_whole: bool) -> None:
        self.source, self.canonical, self.is_whole = source, canonical, is_whole
        raise_all(_mistakes(source, canonical, required, is_whole))
        told = source.fields.keys() | source.constants.keys()
        named = source.fields | {name: name for name in source.enums if name not in told}
        self.paths = [(*_parted(name), dotted, name) for name, dotted in named.items()]
        self.constants = [(*_parted(name), word, name) for name, word in source.constants.items()]
        self.columns = _columns([*source.fields.values()], () if is_whole else canonical)
        hidden = {name.partition(".")[2] for name in source.reference_side if name.startswith("telemetry.")}
        self.hidden = frozenset(hidden)
        self.is_hidden = "telemetry" in source.reference_side

    def applied(self, raw: dict[str, Any], reader: Reader, line: int) -> dict[str, Any] | None:
        """One row in canonical fields, null ones left out. None, and a problem, for a word that no enum lists."""
        if not (self.paths or self.constants):
            return raw
        values: dict[str, Any] = {} if self.is_whole else dict(raw)
        faults = False
        for head, member, dotted, name in self.paths:
            value = dig(raw, dotted)
            if value is None:
                continue
            if name in self.source.enums:
                value, unknown = _translated(value, self.source.enums[name])
                for word in unknown:
                    faults = True
                    listed = ", ".join(self.source.enums[name])
                    hint = f"list it in enums.{name} beside {listed}"
                    reader.problems.add(f"{name} {quoted(word)} is in no enum", reader.where(line), hint)
            _put(values, head, member, value)
        for head, member, value, _ in self.constants:
            _put(values, head, member, value)
        return None if faults else values

    def visible(self, telemetry: dict[str, Any]) -> dict[str, Any]:
        """Telemetry without what knows the reference, at any depth."""
        return {} if self.is_hidden else _visible(telemetry, self.hidden, "")


def dig(value: Any, dotted: str) -> Any:
    """The member at a dotted path ("" is the value itself), None where there is none; a whole name comes first."""
    if isinstance(value, dict) and dotted in value:
        return value[dotted]
    for part in dotted.split(".") if dotted else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


def group_keys(row: Any) -> dict[str, str]:
    """Those of GROUP_KEYS that a row carries."""
    return {name: str(value) for name in GROUP_KEYS if (value := getattr(row, name)) != ""}


def _parted(name: str) -> tuple[str, str]:
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
    found = [enum.get(word, word) for word in words]
    return found if isinstance(value, list) else found[0], [word for word in words if word not in enum]


def _word(value: Any) -> str:
    """As a report would write it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _columns(dotted: list[str], own: Collection[str]) -> frozenset[str]:
    """What a table need be read for."""
    return frozenset({*own, *dotted, *(name.partition(".")[0] for name in dotted), "schema"})


def _visible(telemetry: dict[str, Any], hidden: Collection[str], prefix: str) -> dict[str, Any]:
    return {
        name: _visible(value, hidden, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in telemetry.items()
        if name not in REFERENCE_SIDE and f"{prefix}{name}" not in hidden
    }


def _mistakes(
    source: Source, canonical: Collection[str], required: Collection[str], is_whole: bool
) -> list[ThunderError]:
    """What is wrong with a map: unknown names, names mapped twice, required ones that nothing maps to."""
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
        told = dotted.rpartition(".")[2]
        if name.startswith("telemetry.") and told in REFERENCE_SIDE and name not in source.reference_side:
            what = f"{name!r} is read from {dotted!r}, which knows the reference"
            problems.append(ThunderError(what, where=source.path, hint="take it out of `fields`"))
    lacking = [name for name in required if name not in names]
    hint = "add it to `fields`"
    return problems + [ThunderError(f"nothing maps to {name!r}", where=source.path, hint=hint) for name in lacking]


def _is_canonical(name: str, canonical: Collection[str]) -> bool:
    head, member = _parted(name)
    return head in canonical and (not member or head in OPEN or name in BUDGET)


def _unknown(source: Source, name: str, known: Collection[str], what: str = "") -> ThunderError:
    near = difflib.get_close_matches(name, [*sorted(known), *(BUDGET if "edit_budget" in known else ())], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(known))}"
    return ThunderError(what or f"unknown canonical field {name!r}", where=source.path, hint=hint)
