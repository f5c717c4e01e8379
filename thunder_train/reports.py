"""Correction reports, each of its own shape, read through the field map of their source.

Input: a JSON report and the map `fields` (canonical field -> dotted path in a row).  Output: `Loaded`.
"""

import difflib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from thunder_train import ThunderError, raise_all
from thunder_train.config import Source
from thunder_train.rows import Loaded, Located, Row, convert_all, decode, lacking, raise_some, text

REPORT_SCHEMA = "thunder.report/1"
REPORT_FIELDS = ("asr_text", "decision", "partition")
ACCEPTED = ("accept", "accepted", "admit", "admitted", "allow", "allowed", "true")
REJECTED = ("block", "blocked", "deny", "denied", "false", "reject", "rejected")


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """The canonical fields that a field map may fill."""

    asr_text: str
    decision: bool | str
    partition: str
    row_id: str | int = ""
    audio_path: str = ""
    segment_id: str | int = ""
    feat_id: str | int = ""
    reference_text: str = ""
    final_text: str = ""
    proposal_text: str = ""
    proposal_source: str = ""
    reason_codes: tuple[str, ...] | str = ()
    witness: dict[str, str] = {}
    telemetry: dict[str, Any] = {}


def read(source: Source, root: Path) -> Loaded:
    """Rows of a correction report, each seen through the source's field map."""
    _check_map(source)
    found = [(where, _mapped(source, raw)) for where, raw in _report_rows(source, root)]
    raise_some(lacking(found, REPORT_FIELDS))
    rows, dropped = [], Counter[str]()
    decisions = _decisions(found)
    for number, (row, decision) in enumerate(zip(convert_all(found, ReportRow), decisions, strict=True), start=1):
        target, reason = _target(row, decision, source.use)
        if reason:
            dropped[reason] += 1
        else:
            rows.append(_from_report(source, row, str(number), decision, target))
    return Loaded(rows=rows, rows_read={source.path: len(found)}, dropped=dict(dropped))


def _check_map(source: Source) -> None:
    """Every name in the field map is canonical, and the required ones are there."""
    allowed, problems = sorted(ReportRow.__struct_fields__), []
    names = {*source.fields, *source.constants}
    for name in sorted(names):
        head, _, member = name.partition(".")
        if head not in allowed or (member and head not in ("telemetry", "witness")):
            near = difflib.get_close_matches(name, allowed, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(allowed)}"
            problems.append(ThunderError(f"unknown canonical field {name!r}", where=source.path, mend=mend))
        if member and head in names:
            problems.append(
                ThunderError(f"maps both {head!r} and {name!r}", where=source.path, mend="keep one of them")
            )
    for name in REPORT_FIELDS:
        if name not in names:
            problems.append(ThunderError(f"nothing maps to {name!r}", where=source.path, mend="add it to `fields`"))
    raise_all(problems)


def _report_rows(source: Source, root: Path) -> list[Located]:
    """The report's list of rows. A report may leave its schema out, but one that names a schema must name ours."""
    document = decode(text(source.path, root), source.path)
    schema = document.get("schema", REPORT_SCHEMA) if isinstance(document, dict) else REPORT_SCHEMA
    if schema != REPORT_SCHEMA:
        mend = f"this version reads {REPORT_SCHEMA!r}"
        raise ThunderError(f"unknown schema {schema!r}", where=f"{source.path}: schema", mend=mend)
    rows = _dig(document, source.rows)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        mend = "set `rows` to the dotted path of the list of rows"
        raise ThunderError("is not a list of objects", where=f"{source.path}: {source.rows or 'the file'}", mend=mend)
    return [(f"{source.path}: {source.rows}[{index}]", row) for index, row in enumerate(rows)]


def _dig(value: Any, dotted: str) -> Any:
    """The member at a dotted path ("" is the value itself), None where there is none."""
    for part in dotted.split(".") if dotted else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _mapped(source: Source, raw: dict[str, Any]) -> dict[str, Any]:
    """Canonical fields of one row; null and absent ones are left out, `telemetry.x` becomes a member of telemetry."""
    values: dict[str, Any] = {}
    found = {name: _dig(raw, path) for name, path in source.fields.items()} | source.constants
    for name, value in found.items():
        head, _, member = name.partition(".")
        if value is not None and member:
            values.setdefault(head, {})[member] = value
        elif value is not None:
            values[head] = value
    return values


def _decisions(found: list[Located]) -> list[str]:
    """`accepted` or `rejected` for each row, from whatever word its report uses."""
    words = [(where, str(row["decision"]).strip().lower()) for where, row in found]
    mend = f"use one of: {', '.join(sorted(ACCEPTED + REJECTED))}"
    unknown = [(where, word) for where, word in words if word not in ACCEPTED + REJECTED]
    raise_some([ThunderError(f"unknown decision {word!r}", where=where, mend=mend) for where, word in unknown])
    return ["accepted" if word in ACCEPTED else "rejected" for _, word in words]


def _target(row: ReportRow, decision: str, use: tuple[str, ...]) -> tuple[str, str]:
    """(target text, "") for a row that teaches, else ("", why not). A known reference beats leaving a row unchanged."""
    if decision == "accepted":
        if "accepted" not in use:
            return "", "accepted, not used"
        return (row.final_text, "") if row.final_text else ("", "accepted without a final text")
    if "corrected" in use and row.reference_text:
        return row.reference_text, ""
    if "unchanged" in use:
        return row.asr_text, ""
    return "", "rejected without a reference" if "corrected" in use else "rejected, not used"


def _from_report(source: Source, row: ReportRow, number: str, decision: str, target: str) -> Row:
    """A report's row as every source's row; number stands in for a missing id."""
    stem, row_id = Path(source.path).stem, str(row.row_id) or number
    group = row.audio_path or str(row.segment_id) or str(row.feat_id)
    return Row(
        row_id=f"{stem}:{row_id}",
        group=group or f"{stem}:{row_id}",
        source=stem,
        evidence_kind=source.evidence_kind,
        target_text=target,
        asr_text=row.asr_text,
        reference_text=row.reference_text,
        partition=row.partition,
        decision=decision,
        proposal_text=row.proposal_text,
        proposal_source=row.proposal_source,
        reason_codes=(row.reason_codes,) if isinstance(row.reason_codes, str) else row.reason_codes,
        witness=row.witness,
        telemetry=row.telemetry,
    )
