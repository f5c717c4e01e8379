"""Correction reports: each has its own shape, which the field map of its source translates.

Input: a JSON document that holds a list of rows, or a file of rows; and the field map.  Output: the usable rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.core.drop_reasons import ACCEPTED_UNWRITTEN, REJECTED_UNREFERENCED
from thunder_train.core.text import quoted
from thunder_train.data import formats, json_rows, kinds
from thunder_train.data.field_map import FieldMap
from thunder_train.data.json_rows import Numbered
from thunder_train.data.readers import Reader, first_row, full_id, paths, stem
from thunder_train.data.rows import DEEPEST, Ledger, Listed, Row, depth, given_split, group_keys, hypothesis_texts

REPORT_SCHEMA = "thunder.report/1"
REPORT_FIELDS = ("asr_text", "decision", "partition")
"""Fields that a map must fill."""
ACCEPTED = ("accept", "accepted", "admit", "admitted", "allow", "allowed", "true")
REJECTED = ("block", "blocked", "deny", "denied", "false", "reject", "rejected")


class ReportRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The canonical fields that a field map may fill."""

    asr_text: str | None
    """Null or empty: the recogniser heard nothing."""
    decision: bool | str
    partition: str
    hypotheses: Listed = None
    row_id: str | int | float = ""
    video_id: str | int | float = ""
    audio_path: str = ""
    segment_id: str | int | float = ""
    feat_id: str | int | float = ""
    split: str = ""
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
    first = {} if source.fields else first_row(paths(source.path, root)[0], root, source)
    kind, fields = kinds.fitting(first)
    if kind and not first.keys() & {"decision", "final_text"}:
        raise ThunderError(f"is no report: its rows have {fields}", source.path, f'set kind = "{kind}"')
    field_map = FieldMap(source, ReportRow.__struct_fields__, REPORT_FIELDS, is_whole=True, shape=ReportRow)
    for path in paths(source.path, root):
        reader = Report(path, root, field_map.columns, source)
        for line, row in reader.mapped_rows(field_map, ReportRow):
            decision = _decision(row, reader, line)
            if not decision or _is_deep(row, reader, line):
                continue
            target, reason = _target(row, decision, source.use)
            row_id = full_id(path, row.row_id, row)
            if reason:
                ledger.drop(path, line, row_id, reason)
                continue
            try:
                hypotheses = hypothesis_texts(row.hypotheses)
            except ValueError as error:
                what, hint = error.args
                reader.problems.add(what, reader.where(line), hint)
                continue
            seen = (hypotheses, field_map.visible(row.telemetry, reader.unused))
            yield _row(source, row, (path, line, row_id), decision, target, seen)
        reader.finish(ledger)


class Report(Reader):
    """A file of report rows. A .json file is one document; `rows` is the dotted path of the list of rows in it."""

    def __init__(self, path: str, root: Path, columns: frozenset[str], source: Source) -> None:
        super().__init__(path, root, columns, source)
        is_json = formats.suffix(path) == ".json"
        self.is_document = self.layout == json_rows.LIST or (self.layout != json_rows.LINES and is_json)

    def where(self, line: int) -> str:
        """The place of a row; in a document its index in the list, from 0."""
        rows = self.source.rows if self.source else ""
        return f"{self.path}: {rows}[{line - 1}]" if self.is_document else super().where(line)

    def objects(self) -> Iterator[Numbered]:
        """Each row with its place. A `schema` of a row or of its document must be REPORT_SCHEMA."""
        if self.is_document:
            yield from self._listed()
            return
        for line, value in super().objects():
            schema = value.get("schema", REPORT_SCHEMA)
            if schema != REPORT_SCHEMA:
                self._add_schema_problem(schema, self.where(line))
            yield line, value

    def _listed(self) -> Iterator[Numbered]:
        document = json_rows.Document(self.path, self.root, self.source.rows if self.source else "")
        schema = document.around.get("schema", REPORT_SCHEMA)
        if schema != REPORT_SCHEMA:
            self._add_schema_problem(schema, f"{self.path}: schema")
            self.problems.raise_all()
        for number, _, value in document.items(self.problems, lambda number, _: self.where(number)):
            self.count += 1
            yield number, value

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
        return row.asr_text or "", ""
    if decision == "accepted":
        if "accepted" not in use:
            return "", "accepted, not used"
        return (row.final_text, "") if row.final_text else ("", ACCEPTED_UNWRITTEN)
    if "corrected" in use and row.reference_text:
        return row.reference_text, ""
    if "unchanged" in use:
        return row.asr_text or "", ""
    return "", REJECTED_UNREFERENCED if "corrected" in use else "rejected, not used"


def _row(
    source: Source,
    row: ReportRow,
    place: tuple[str, int, str],
    decision: str,
    target: str,
    seen: tuple[tuple[str, ...], dict[str, Any]],
) -> Row:
    """place: the row's file, line and id; seen: hypotheses and telemetry."""
    path, line, row_id = place
    return Row(
        row_id=row_id,
        source=stem(path),
        file=path,
        line=line,
        evidence_kind=source.evidence_kind,
        target_text=target,
        asr_text=row.asr_text or "",
        reference_text=row.reference_text,
        partition=row.partition,
        decision=decision,
        proposal_text=row.proposal_text,
        proposal_source=row.proposal_source,
        reason_codes=(row.reason_codes,) if isinstance(row.reason_codes, str) else row.reason_codes,
        edit_budget=row.edit_budget,
        witness=row.witness,
        telemetry=seen[1],
        hypotheses=seen[0],
        keys=group_keys(row),
        own_split=row.split,
        given_split=given_split(source),
    )
