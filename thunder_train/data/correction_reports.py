"""Correction reports: each has its own shape, which the field map of its source translates.

Input: a JSON document that holds a list of rows, or a file of rows; and the field map.  Output: the usable rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data.field_map import FieldMap
from thunder_train.data.formats import (
    AS_LINES,
    DECODE,
    LINE_LIMIT,
    SHORTER,
    VALUES_LIMIT,
    Numbered,
    count_keys,
    fault,
    first_repeated,
    whole,
)
from thunder_train.data.readers import Reader, full_id, paths, stem
from thunder_train.data.rows import DEEPEST, Ledger, Row, depth, group_keys

REPORT_SCHEMA = "thunder.report/1"
REPORT_FIELDS = ("asr_text", "decision", "partition")
"""Fields that a map must fill."""
ACCEPTED = ("accept", "accepted", "admit", "admitted", "allow", "allowed", "true")
REJECTED = ("block", "blocked", "deny", "denied", "false", "reject", "rejected")
Members = dict[str, msgspec.Raw]


class ReportRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The canonical fields that a field map may fill."""

    asr_text: str
    decision: bool | str
    partition: str
    row_id: str | int = ""
    video_id: str | int = ""
    audio_path: str = ""
    segment_id: str | int = ""
    feat_id: str | int = ""
    reference_text: str = ""
    final_text: str = ""
    proposal_text: str = ""
    proposal_source: str = ""
    reason_codes: tuple[str, ...] | str = ()
    edit_budget: dict[str, Any] = {}
    witness: dict[str, str] = {}
    telemetry: dict[str, Any] = {}


def read(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """Rows of a correction report, each translated by the source's field map."""
    field_map = FieldMap(source, ReportRow.__struct_fields__, REPORT_FIELDS, is_whole=True, shape=ReportRow)
    for path in paths(source.path, root):
        reader = Report(path, root, field_map.columns, source.rows)
        for line, row in reader.mapped_rows(field_map, ReportRow):
            decision = _decision(row, reader, line)
            if not decision or _is_deep(row, reader, line):
                continue
            target, reason = _target(row, decision, source.use)
            row_id = full_id(path, row.row_id, row)
            if reason:
                ledger.drop(path, line, row_id, reason)
            else:
                place = (path, line, row_id)
                yield _row(source, row, place, decision, target, field_map.visible(row.telemetry, reader.unused))
        reader.finish(ledger)


class Report(Reader):
    """A file of report rows. A .json file is one document; `rows` is the dotted path of the list of rows in it."""

    def __init__(self, path: str, root: Path, columns: frozenset[str], rows: str) -> None:
        super().__init__(path, root, columns)
        self.rows = rows
        if rows and self.form != ".json":
            hint = "leave it out: the lines of this file are its rows"
            raise ThunderError(f"has no member {rows!r}", where=f"{path}: rows", hint=hint)

    def where(self, line: int) -> str:
        """The place of a row; in a document its index in the list, from 0."""
        return f"{self.path}: {self.rows}[{line - 1}]" if self.form == ".json" else super().where(line)

    def objects(self) -> Iterator[Numbered]:
        """Each row with its place. A `schema` of a row or of its document must be REPORT_SCHEMA."""
        if self.form == ".json":
            yield from self._document(whole(self.path, self.root))
            return
        for line, value in super().objects():
            schema = value.get("schema", REPORT_SCHEMA)
            if schema != REPORT_SCHEMA:
                self._add_schema_problem(schema, self.where(line))
            yield line, value

    def _document(self, content: bytes) -> Iterator[Numbered]:
        """The rows of a document, decoded one by one: memory holds its bytes, not all of its values."""
        listed = self._listed(content)
        for line, raw in enumerate(listed, start=1):
            self.count += 1
            if len(memoryview(raw)) > LINE_LIMIT:
                self.problems.add(f"is longer than {LINE_LIMIT >> 20} MiB", self.where(line), SHORTER)
                continue
            try:
                value = DECODE(raw)
            except (ValueError, RecursionError) as error:
                part = bytes(raw)
                self.problems.keep(fault(part, self.path, 1 + content.count(b"\n", 0, content.find(part)), error))
                continue
            if not self.repeats(bytes(raw), value, line):
                yield line, value

    def _listed(self, content: bytes) -> list[msgspec.Raw]:
        """The list of rows. The document around it is decoded as strictly."""
        value = msgspec.Raw(content)
        if not content or content.isspace():
            return []
        if content.count(b",") > VALUES_LIMIT:
            raise ThunderError(f"holds more than {VALUES_LIMIT >> 20} million values", self.path, AS_LINES)
        try:
            keys = 0
            is_top = True
            for part in self.rows.split(".") if self.rows else ():
                members = msgspec.json.decode(value, type=Members)
                beside = sum(len(memoryview(raw)) for name, raw in members.items() if name != part)
                if beside > LINE_LIMIT:
                    what = f"holds more than {LINE_LIMIT >> 20} MiB beside its rows"
                    raise ThunderError(what, self.path, "remove what is not the list of rows")
                around = {name: DECODE(raw) for name, raw in members.items() if name != part}
                keys += len(members) + count_keys(around) - len(around)
                if is_top and around.get("schema", REPORT_SCHEMA) != REPORT_SCHEMA:
                    self._add_schema_problem(around["schema"], f"{self.path}: schema")
                    self.problems.raise_all()
                value, is_top = members.get(part, msgspec.Raw(b"null")), False
            listed = msgspec.json.decode(value, type=list[msgspec.Raw])
            # As in formats.repeated_key: as many colons as keys around the list prove that no key is repeated.
            colons = content.count(b":") - bytes(value).count(b":") if self.rows else 0
            repeated = first_repeated(content.replace(bytes(value), b"[]", 1)) if colons != keys else None
        except msgspec.ValidationError:
            listed = None
        except (ValueError, RecursionError) as error:
            raise fault(content, self.path, 1, error) from None
        if listed is None or not all(bytes(raw)[:1] == b"{" for raw in listed):
            hint = "set `rows` to the dotted path of the list of rows"
            raise ThunderError("is not a list of objects", f"{self.path}: {self.rows or 'the file'}", hint)
        if repeated is not None:
            raise ThunderError(f"has the key {quoted(repeated)} twice", self.path, "keep one of them")
        return listed

    def _add_schema_problem(self, schema: Any, where: str) -> None:
        self.problems.add(f"unknown schema {quoted(schema)}", where, f"this version reads {REPORT_SCHEMA!r}")


def _decision(row: ReportRow, reader: Reader, line: int) -> str:
    """`accepted` or `rejected` for the report's own word; "", and a problem, for an unknown word."""
    word = str(row.decision).strip().lower()
    if word in ACCEPTED or word in REJECTED:
        return "accepted" if word in ACCEPTED else "rejected"
    hint = f"use one of: {', '.join(sorted(ACCEPTED + REJECTED))}; or list it in enums.decision"
    reader.problems.add(f"unknown decision {quoted(word)}", reader.where(line), hint)
    return ""


def _is_deep(row: ReportRow, reader: Reader, line: int) -> bool:
    """Whether telemetry or edit budget is nested too deep, which is a problem."""
    deep = [name for name in ("telemetry", "edit_budget") if depth(getattr(row, name)) > DEEPEST]
    for name in deep:
        reader.problems.add(f"{name} is nested deeper than {DEEPEST}", reader.where(line), "map its members one by one")
    return bool(deep)


def _target(row: ReportRow, decision: str, use: tuple[str, ...]) -> tuple[str, str]:
    """(target text, "") for a usable row, else ("", why not). A known reference takes precedence over "unchanged"."""
    if row.partition == "stable" and "stable" in use:
        return row.asr_text, ""
    if decision == "accepted":
        if "accepted" not in use:
            return "", "accepted, not used"
        return (row.final_text, "") if row.final_text else ("", "accepted without a final text")
    if "corrected" in use and row.reference_text:
        return row.reference_text, ""
    if "unchanged" in use:
        return row.asr_text, ""
    return "", "rejected without a reference" if "corrected" in use else "rejected, not used"


def _row(
    source: Source, row: ReportRow, place: tuple[str, int, str], decision: str, target: str, telemetry: dict[str, Any]
) -> Row:
    """place: the row's file, line and id."""
    path, line, row_id = place
    return Row(
        row_id=row_id,
        source=stem(path),
        file=path,
        line=line,
        evidence_kind=source.evidence_kind,
        target_text=target,
        asr_text=row.asr_text,
        reference_text=row.reference_text,
        partition=row.partition,
        decision=decision,
        proposal_text=row.proposal_text,
        proposal_source=row.proposal_source,
        reason_codes=(row.reason_codes,) if isinstance(row.reason_codes, str) else row.reason_codes,
        edit_budget=row.edit_budget,
        witness=row.witness,
        telemetry=telemetry,
        keys=group_keys(row),
    )
