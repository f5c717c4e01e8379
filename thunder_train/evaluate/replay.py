"""Decides every row of decisions.jsonl again and compares.

Input: decisions.jsonl and the recipe's gate.  Output: the differences, as sentences.  An external gate is always the
recipe's command: a data file must not choose which program is run.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from thunder_train import ThunderError
from thunder_train.config.evaluate import Gate
from thunder_train.core import files
from thunder_train.core.characters import Orthography
from thunder_train.evaluate import gate
from thunder_train.evaluate.external_gate import FIELDS

FREE = {"reason", "witness", "witness_problem"}
"""Fields in which an external gate may differ each time: witnesses, for example, belong to one moment."""


class _Policy(msgspec.Struct):
    """The settings of a built-in policy, within the bounds that a recipe has."""

    preserved: tuple[str, ...]
    blocked: tuple[str, ...]
    floor: Annotated[int, msgspec.Meta(ge=0, le=10_000)]
    relative: Annotated[float, msgspec.Meta(ge=0, le=10)]


def replay(run: Path, settings: Gate, table: Orthography | None = None) -> list[str]:
    """Each difference as a sentence; none if every decision is the same again.

    run: the run's folder.  settings: the recipe's gate.  table: the dataset's orthography.  A built-in policy is taken
    from the file, and compared with the recipe's.  Raises ThunderError for a file that cannot be read or an external
    gate that fails.
    """
    path = run / gate.FILE
    judged = gate.read(path)
    policy, now = judged.header["gate"], gate.policy_of(settings, table)
    differences = [
        f"gate: {key} was {policy.get(key)!r}, in the recipe it is {now.get(key)!r}"
        for key in sorted(policy.keys() | now.keys())
        if policy.get(key) != now.get(key)
    ]
    if policy.get("kind") == "external":
        if not settings.command:
            return [*differences, "no row was decided again: the recipe names no external gate"]
    else:
        settings = _builtin(policy, settings, path)
    shown = {name for each in judged.decisions for name in each.get("telemetry") or {}}  # chosen when it was judged
    again = gate.judge([_prediction(each) for each in judged.decisions], settings, str(path), shown, table)
    return differences + _header_differences(judged.header, again.header) + _row_differences(judged, again)


def _builtin(policy: dict[str, Any], settings: Gate, path: Path) -> Gate:
    """The built-in policy of a file's header as a gate. Raises ThunderError for values that no recipe may have."""
    try:
        values = msgspec.convert(policy, _Policy)
    except msgspec.ValidationError as error:
        hint = f"run `./doit evaluate:{path.parent.name}`"
        raise ThunderError(f"gate: {error}", where=f"{path}:1", hint=hint) from None
    return Gate(command=(), timeout_s=settings.timeout_s, **msgspec.structs.asdict(values))


def _prediction(decision: dict[str, Any]) -> dict[str, Any]:
    """The fields of a prediction that the gate was given."""
    return {source: decision[name] for name, source in FIELDS.items()} | {"telemetry": decision.get("telemetry")}


def _header_differences(header: dict[str, Any], again: dict[str, Any]) -> list[str]:
    differences = [
        f"header: {key} is {header[key]!r}, counted again {again[key]!r}"
        for key in ("rows", "unknown_partitions")
        if header[key] != again[key]
    ]
    if header["policy_sha256"] != files.digest(header["gate"]):
        differences.append("header: policy_sha256 is not the hash of the gate beside it")
    return differences


def _row_differences(judged: gate.Judged, again: gate.Judged) -> list[str]:
    names, differences = [each["id"] for each in judged.decisions], []
    if names != sorted(names):
        differences.append("the rows are not sorted by id")
    by_id = {each["id"]: each for each in judged.decisions}
    for new in again.decisions:
        old, free = by_id[new["id"]], FREE if new["gate"] == "external" else set()
        differences += [
            f"row {new['id']!r}: {key} is {old.get(key)!r}, decided again {new.get(key)!r}"
            for key in sorted((old.keys() | new.keys()) - free)
            if old.get(key) != new.get(key)
        ]
    return differences
