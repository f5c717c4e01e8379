"""Every decision of a run made again, from decisions.jsonl alone.

Input: decisions.jsonl, and the recipe's gate.  Output: what differs. A data file never tells which command to run: an
external gate is the recipe's.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec

from thunder_train import ThunderError
from thunder_train.config.evaluate import Gate
from thunder_train.core import files
from thunder_train.evaluate import gate as gates
from thunder_train.evaluate.external_gate import FIELDS

FREE = {"reason", "witness", "witness_problem"}
"""What an external gate may say differently each time: its slices are of its own moment."""


class _Policy(msgspec.Struct):
    """The numbers of a built-in policy, within schema.py's bounds."""

    preserved: tuple[str, ...]
    blocked: tuple[str, ...]
    floor: Annotated[int, msgspec.Meta(ge=0, le=10_000)]
    relative: Annotated[float, msgspec.Meta(ge=0, le=10)]


def replay(run: Path, gate: Gate) -> list[str]:
    """Each difference as a sentence; none when every verdict comes out again.

    run: the run's folder.  gate: the recipe's.  A built-in policy is taken from the file and also compared with the
    recipe's.  Raises ThunderError for a file that cannot be read, or an external gate that fails.
    """
    path = run / gates.FILE
    judged = gates.read(path)
    policy, now = judged.header["gate"], gates.policy_of(gate)
    differences = [
        f"gate: {key} was {policy.get(key)!r}, in the recipe it is {now.get(key)!r}"
        for key in sorted(policy.keys() | now.keys())
        if policy.get(key) != now.get(key)
    ]
    if policy.get("kind") == "external":
        if not gate.command:
            return [*differences, "no verdict was decided again: the recipe names no external gate"]
        deciding = gate
    else:
        deciding = _builtin(policy, gate, path)
    again = gates.judge([_prediction(each) for each in judged.decisions], deciding, str(path))
    return differences + _of_header(judged.header, again.header) + _of_rows(judged.decisions, again.decisions)


def _builtin(policy: dict[str, Any], gate: Gate, path: Path) -> Gate:
    try:
        numbers = msgspec.convert(policy, _Policy)
    except msgspec.ValidationError as error:
        hint = f"run `./doit evaluate:{path.parent.name}`"
        raise ThunderError(f"gate: {error}", where=f"{path}:1", hint=hint) from None
    return Gate(command=(), timeout_s=gate.timeout_s, **msgspec.structs.asdict(numbers))


def _prediction(decision: dict[str, Any]) -> dict[str, Any]:
    """As much of a prediction as a gate saw of it."""
    return {source: decision[name] for name, source in FIELDS.items()} | {"telemetry": decision.get("telemetry")}


def _of_header(told: dict[str, Any], again: dict[str, Any]) -> list[str]:
    differences = [
        f"header: {key} is {told[key]!r}, counted again {again[key]!r}"
        for key in ("rows", "unknown_partitions")
        if told[key] != again[key]
    ]
    if told["policy_sha256"] != files.digest(told["gate"]):
        differences.append("header: policy_sha256 is not that of the gate beside it")
    return differences


def _of_rows(told: list[dict[str, Any]], again: list[dict[str, Any]]) -> list[str]:
    names, differences = [each["id"] for each in told], []
    if names != sorted(names):
        differences.append("the rows are not sorted by id")
    by_id = {each["id"]: each for each in told}
    for new in again:
        old, free = by_id[new["id"]], FREE if new["gate"] == "external" else set()
        differences += [
            f"row {new['id']!r}: {key} is {old.get(key)!r}, decided again {new.get(key)!r}"
            for key in sorted((old.keys() | new.keys()) - free)
            if old.get(key) != new.get(key)
        ]
    return differences
