"""The field map of a source: which member of a row is which canonical field, which of its words means which.

Input: `fields`, `constants`, `enums`, `reference_side` and `telemetry` of a `config.dataset.Source`.
Output: canonical fields.
"""

import ast
import difflib
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import msgspec

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data.problems import in_words
from thunder_train.data.telemetry import FIELDS, Allowed, knows_reference

OPEN = ("telemetry", "trajectory_scalars", "char_posteriors_summary", "witness")
"""Canonical fields that may have members of any name, mapped as `telemetry.x`."""
BUDGET = ("edit_budget.relative", "edit_budget.floor", "edit_budget.allowed")
SHOWN = ("asr_text", "hypotheses", "n_best_hypotheses", "partition", "ctc_confidence", *FIELDS)
"""Canonical fields that prompts show, so that none may come from the reference."""
INDEX = re.compile(r"\[(\d{0,6})\]")
"""`[0]`, an item of a list; `[]` is all of them."""
ALL = "[]"
NULLABLE = ("asr_text", "reference_text")
"""Canonical fields in which null is a value: the recogniser heard nothing, nobody wrote the text down."""
ABSENT = object()
"""The value of a path that leads nowhere."""


class FieldMap:
    """A source's field map. canonical: the fields of its kind; required: those that it must map.

    is_whole: only mapped fields count, as in reports; else a row's own fields of canonical names count too, and mapped
    ones take precedence. shape: the struct that the fields become; constants are read as it says, and those that it
    lacks are left out, because they are of the other side of a join.
    Raises ThunderError with all mistakes of the map.
    """

    def __init__(
        self,
        source: Source,
        canonical: Collection[str],
        required: Collection[str],
        is_whole: bool,
        shape: type[msgspec.Struct] | None = None,
    ) -> None:
        self._telemetry = Allowed.of(source)
        constants, problems = _typed(source, shape)
        raise_all([*_mistakes(source, canonical, required, is_whole), *problems])
        self._enums, self._is_whole = source.enums, is_whole
        mapped = source.fields.keys() | source.constants.keys()
        paths = source.fields | {name: name for name in source.enums if name not in mapped}
        self._paths = [(*_split(name), dotted, name) for name, dotted in paths.items()]
        self._constants = [(*_split(name), value) for name, value in constants.items()]
        own = () if is_whole else canonical if shape is None else shape.__struct_fields__
        self.columns = _columns([*source.fields.values()], own)
        """Names of the columns that a table must be read for."""
        self._is_all_hidden = "telemetry" in source.reference_side

    def applied(self, raw: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """One row in canonical fields, and (problem, hint) for each word that its enum does not list.

        A field that is absent in the row is left out, and so is one that is null, but for those of NULLABLE.
        """
        if not (self._paths or self._constants):
            return raw, []
        values: dict[str, Any] = {} if self._is_whole else dict(raw)
        problems = []
        for head, member, dotted, name in self._paths:
            value = dig(raw, dotted)
            if value is None or value is ABSENT:
                if value is None and name in NULLABLE:
                    values[name] = None
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

    def visible(self, telemetry: dict[str, Any], unused: Counter[str]) -> dict[str, Any]:
        """Telemetry that prompts and gates may see; unused counts the other members by name."""
        return {} if self._is_all_hidden else self._telemetry.visible(telemetry, unused)


def dig(value: Any, dotted: str) -> Any:
    """The member at a dotted path ("" is the value itself), or ABSENT. A member whose name has dots takes precedence.

    An item of a list is `a[0]` or `a.0`; `a[].b` is the member b of each. A text that is a JSON list counts as one.
    """
    if isinstance(value, dict) and dotted in value:
        return value[dotted]
    return _at(value, _parts(dotted))


@cache
def _parts(dotted: str) -> tuple[str, ...]:
    """ "a[0].b" as ("a", "0", "b")."""
    return tuple(INDEX.sub(lambda index: f".{index[1] or ALL}", dotted).lstrip(".").split(".")) if dotted else ()


def _at(value: Any, parts: tuple[str, ...]) -> Any:
    for number, part in enumerate(parts):
        value = decoded(value)
        if isinstance(value, dict):
            value = value.get(part, ABSENT)
        elif isinstance(value, list) and part == ALL:
            items = [_at(item, parts[number + 1 :]) for item in value]
            return [item for item in items if item is not ABSENT]
        elif isinstance(value, list) and part.isdecimal() and (int(part) < len(value) or not value):
            value = value[int(part)] if value else None  # of no hypotheses the first one is null
        else:
            return ABSENT
    return value


def decoded(cell: Any) -> Any:
    """What a text holds as JSON, or as Python writes lists and objects; else the value itself."""
    if not isinstance(cell, str) or not cell.startswith(("[", "{")):
        return cell
    try:
        return msgspec.json.decode(cell)
    except (ValueError, RecursionError):
        pass
    try:  # as pandas writes a column of lists
        with warnings.catch_warnings(action="ignore"):
            value = ast.literal_eval(cell)
        return msgspec.json.decode(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return cell


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
    return frozenset({*canonical, *dotted, *(_parts(name)[0] for name in dotted if name), "schema"})


def _typed(source: Source, shape: type[msgspec.Struct] | None) -> tuple[Mapping[str, Any], list[ThunderError]]:
    """The constants of a shape as its types say, "0" as a number where it needs one; and those that cannot be read."""
    if shape is None:
        return source.constants, []
    types = {field.name: field.type for field in msgspec.structs.fields(shape)}
    constants, problems = {}, []
    for name, value in source.constants.items():
        head, member = _split(name)
        if head not in types:
            continue
        one = msgspec.defstruct("Constant", [(head, types[head])])
        try:
            whole = getattr(msgspec.convert({head: {member: value} if member else value}, one, strict=False), head)
        except msgspec.ValidationError as error:
            what = in_words(str(error))[0].removeprefix("a member of ").replace(head, f"constants.{name}", 1)
            problems.append(ThunderError(what, source.path, f"correct {quoted(value)}"))
            continue
        constants[name] = whole[member] if member else whole
        if isinstance(constants[name], float) and not math.isfinite(constants[name]):
            problems.append(ThunderError(f"constants.{name} is {value!r}", source.path, "give a finite number"))
    return constants, problems


def _mistakes(
    source: Source, canonical: Collection[str], required: Collection[str], is_whole: bool
) -> list[ThunderError]:
    """Unknown names, names mapped twice, required names that nothing maps to, names that know the reference."""
    names = source.fields.keys() | source.constants.keys()
    problems = [_unknown(source, name, canonical) for name in sorted(names) if not _is_canonical(name, canonical)]
    twice = {name: name.partition(".")[0] for name in sorted(names) if "." in name and name.partition(".")[0] in names}
    twice |= {name: name for name in sorted(source.fields.keys() & source.constants.keys())}
    for name, other in twice.items():
        what = f"maps both {other!r} and {name!r}" if name != other else f"maps {name!r} twice"
        problems.append(ThunderError(what, where=source.path, hint="keep one of them"))
    filled = set(names) if is_whole else {*names, *canonical, "telemetry"}
    for name in sorted({*source.enums, *source.reference_side}):
        if name not in filled and name.partition(".")[0] not in filled:
            key = "enums" if name in source.enums else "reference_side"
            problems.append(_unknown(source, name, filled, f"{key} names {name!r}, which nothing maps to"))
    if missing := [name for name in required if name not in names]:
        hint = f"add {'it' if len(missing) == 1 else 'them'} to `fields`"
        problems.append(ThunderError(f"nothing maps to {', '.join(map(repr, missing))}", source.path, hint))
    return problems + _leaks(source)


def _leaks(source: Source) -> list[ThunderError]:
    """Fields that prompts show and that are read from what knows the reference."""
    problems = []
    for name, dotted in sorted(source.fields.items()):
        is_shown = name.partition(".")[0] in SHOWN and name not in source.reference_side
        if is_shown and any(map(knows_reference, _parts(dotted))):
            what = f"{name!r} is read from {dotted!r}, which knows the reference"
            problems.append(ThunderError(what, where=source.path, hint="take it out of `fields`"))
    reference = "" if source.references else source.fields.get("reference_text", "")
    for name in ("asr_text", "hypotheses"):
        if reference and source.fields.get(name) == reference:
            what = f"{name!r} and 'reference_text' are both read from {reference!r}"
            problems.append(ThunderError(what, where=source.path, hint="correct one of them"))
    for name in source.telemetry:
        if any(map(knows_reference, name.split("."))):
            what = f"telemetry names {name!r}, which knows the reference"
            problems.append(ThunderError(what, where=source.path, hint="take it out of `telemetry`"))
    return problems


def _is_canonical(name: str, canonical: Collection[str]) -> bool:
    head, member = _split(name)
    return head in canonical and (not member or head in OPEN or name in BUDGET)


def _unknown(source: Source, name: str, allowed: Collection[str], what: str = "") -> ThunderError:
    near = difflib.get_close_matches(name, [*sorted(allowed), *(BUDGET if "edit_budget" in allowed else ())], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(allowed))}"
    return ThunderError(what or f"unknown canonical field {name!r}", where=source.path, hint=hint)
