"""Correction reports of any shape, read through their field map."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import FIELDS, drops, read, refusal, report_row
from thunder_train.data.rows import Ledger, Row

CASE = report_row(0)


def report(folder: Path, document: Any, **given: Any) -> tuple[list[Row], Ledger]:
    """What a JSON document of report rows gives."""
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    return read(folder, text, **{"kind": "report", "path": "in.json", "fields": FIELDS} | given)


def wrong(folder: Path, document: Any, **given: Any) -> str:
    """The text of the error that such a document gives."""
    text = document if isinstance(document, str | bytes) else json.dumps(document)
    return refusal(folder, text, **{"kind": "report", "path": "in.json", "fields": FIELDS} | given)


@pytest.mark.parametrize(
    ("verdict", "use", "targets", "dropped"),
    [
        ("accept", ("accepted",), ["ߞߋߣ"], {}),
        ("ADMITTED", ("accepted",), ["ߞߋߣ"], {}),
        (True, ("accepted",), ["ߞߋߣ"], {}),
        ("accept", ("corrected",), [], {"accepted, not used": 1}),
        ("reject", ("corrected",), ["ߞߋ"], {}),
        (False, ("unchanged",), ["ߞߏ"], {}),
        ("blocked", ("unchanged", "corrected"), ["ߞߋ"], {}),
        ("reject", ("accepted",), [], {"rejected, not used": 1}),
        ("reject", ("accepted", "stable"), [], {"rejected, not used": 1}),
    ],
)
def test_use_decides_what_a_row_teaches(
    tmp_path: Path, verdict: Any, use: tuple[str, ...], targets: list[str], dropped: dict[str, int]
) -> None:
    """Accepted rows teach their final text, rejected ones their reference or to leave the text alone."""
    rows, ledger = report(tmp_path, [report_row(0, d=verdict, h="ߞߏ", r="ߞߋ", f="ߞߋߣ")], use=use)

    assert (targets, dropped) == ([row.target_text for row in rows], ledger.reasons())


def test_stable_rows_teach_to_leave_the_text_alone(tmp_path: Path) -> None:
    """A stable span is an identity example whatever the gate said of it, and whatever its reference says."""
    rows, _ = report(
        tmp_path, [report_row(0, p="stable", d=verdict, h="ߞߏ") for verdict in (True, False)], use=("stable",)
    )

    assert ["ߞߏ", "ߞߏ"] == [row.target_text for row in rows]


def test_rejected_row_without_a_reference_teaches_nothing(tmp_path: Path) -> None:
    """There is no answer to learn; the ledger shows that the row was read, and which it was."""
    rows, ledger = report(tmp_path, [report_row(0, d="reject", r=None)], use=("corrected",))

    assert ([], {"in.json": 1}) == (rows, ledger.rows_read)
    assert [("in.json", 1, "in:00", "rejected without a reference")] == drops(ledger)


def test_field_map_reaches_into_nested_rows(tmp_path: Path) -> None:
    """Each report has its own shape; the map, not the code, knows it."""
    case = {"in": {"h": "ߞߏ"}, "g": {"ok": True, "why": "fits", "max": 3}, "t": "f00d", "c": 0.5, "z": "ߞߋ"}
    fields = {"asr_text": "in.h", "decision": "g.ok", "reason_codes": "g.why", "final_text": "z"}
    dotted = {"witness.token": "t", "telemetry.confidence": "c", "edit_budget.allowed": "g.max"}

    rows, _ = report(
        tmp_path, {"a": {"b": [case]}}, rows="a.b", fields=fields | dotted, constants={"partition": "recovery"}
    )

    row = rows[0]
    assert ("ߞߏ", "accepted", ("fits",), "ߞߋ") == (row.asr_text, row.decision, row.reason_codes, row.target_text)
    assert ({"token": "f00d"}, {"confidence": 0.5}, "recovery") == (row.witness, row.telemetry, row.partition)
    assert {"allowed": 3} == row.edit_budget


def test_row_is_named_by_its_file_and_carries_its_group_keys(tmp_path: Path) -> None:
    """Rows of one recording must stay in one split, and equal ids of two reports are two rows."""
    rows = [report_row(0, n=7, wav="a.wav", seg="s", film="v"), report_row(1, n=0, seg=8)]
    keys = {"audio_path": "wav", "segment_id": "seg", "video_id": "film"}

    read_rows, _ = report(tmp_path, rows, fields=FIELDS | keys)

    assert [
        ("in:7", {"video_id": "v", "audio_path": "a.wav", "segment_id": "s"}),
        ("in:0", {"segment_id": "8"}),
    ] == [(row.row_id, row.keys) for row in read_rows]
    assert [("in.json", 1), ("in.json", 2)] == [(row.file, row.line) for row in read_rows]


def test_row_without_an_id_is_named_by_what_it_says(tmp_path: Path) -> None:
    """Not by its place: rows added before it must not rename it, because ids decide the split."""
    rows = [report_row(number, n=None) for number in (0, 1)]

    forward, _ = report(tmp_path, rows)
    backward, _ = report(tmp_path, [report_row(2), *reversed(rows)])

    assert "in:e7da00c87af0" == forward[0].row_id
    assert [row.row_id for row in forward] == [row.row_id for row in reversed(backward[1:])]


def test_enums_translate_the_words_of_a_report(tmp_path: Path) -> None:
    """Each gate has its own words; the recipe, not the code, knows them."""
    enums = {"decision": {"OK": "accepted", "3": "rejected"}, "reason_codes": {"e": "edit_budget"}}

    rows, ledger = report(
        tmp_path,
        [report_row(0, d="OK", why=["e"]), report_row(1, d=3)],
        fields=FIELDS | {"reason_codes": "why"},
        enums=enums,
    )

    assert [("accepted", ("edit_budget",))] == [(row.decision, row.reason_codes) for row in rows]
    assert {"rejected, not used": 1} == ledger.reasons()


def test_words_that_no_enum_lists_are_refused(tmp_path: Path) -> None:
    """A new word of the gate must not be guessed at."""
    enums = {"decision": {"OK": "accepted", "NO": "rejected"}, "partition": {"boundary": "boundary"}}

    assert (
        "in.json: [0]: decision 'Okay' is in no enum; list it in enums.decision beside OK, NO\n"
        "in.json: [1]: decision 'true' is in no enum; list it in enums.decision beside OK, NO"
    ) == wrong(tmp_path, [report_row(0, d="Okay"), CASE], enums=enums)


def test_reference_side_members_never_reach_telemetry(tmp_path: Path) -> None:
    """A prompt that shows how many errors the reference counts leaks it; the name cer_edits is enough."""
    telemetry = {"c": 0.5, "cer_edits": 2, "score": {"edits": 3, "spread": 0.25, "cer_edits": 1}}

    rows, _ = report(tmp_path, [report_row(0, t=telemetry)], telemetry=("c", "score"))

    assert {"c": 0.5, "score": {"spread": 0.25}} == rows[0].telemetry


def test_rows_of_a_report_may_be_lines_or_a_table(tmp_path: Path) -> None:
    """A report of a million rows is no single document."""
    fields = FIELDS | {"telemetry.c": "t.c"}
    del fields["telemetry"]
    table = "n,h,r,f,p,d,t.c\r\n7,ߞߏ,,ߞߋ,boundary,true,0.5\r\n"

    by_line, _ = read(tmp_path, [CASE, report_row(1)], kind="report", path="in.jsonl", fields=fields)
    by_cell, _ = read(tmp_path, table, kind="report", path="in.csv", fields=fields)

    assert [("in:00", 1, {"c": 0}), ("in:01", 2, {"c": 1})] == [
        (row.row_id, row.line, row.telemetry) for row in by_line
    ]
    assert [("in:7", 2, {"c": 0.5}, "ߞߋ")] == [
        (row.row_id, row.line, row.telemetry, row.target_text) for row in by_cell
    ]


@pytest.mark.parametrize(
    ("content", "given", "expected"),
    [
        (
            {"schema": "thunder.report/2", "rows": []},
            {"rows": "rows"},
            "in.json: schema: unknown schema 'thunder.report/2'; this version reads 'thunder.report/1'",
        ),
        (
            {"rows": []},
            {"rows": "results"},
            "in.json: results: is not a list of objects; set `rows` to the dotted path of the list of rows",
        ),
        (
            {"rows": []},
            {},
            "in.json: the file: is not a list of objects; set `rows` to the dotted path of the list of rows",
        ),
        (
            [CASE, 5],
            {},
            "in.json: [1]: is not a JSON object; correct or remove the row",
        ),
        ({"rows": []}, {"rows": "rows"}, "in.json: is empty; add rows, or remove the source"),
        (" ", {}, "in.json: is empty; add rows, or remove the source"),
        (
            '{"rows": [{}], "run": {"at": "12:00", "at": "13:00"}}',
            {"rows": "rows"},
            "in.json: has the key 'at' twice; keep one of them",
        ),
        (
            '[{"h": "a",\n"h": "b"}]',
            {},
            "in.json: [0]: has the key 'h' twice; keep one of them",
        ),
        (
            '[{},\n\n{"h": 1e999}]',
            {},
            "in.json: [0]: lacks asr_text, decision, partition; add them\n"
            "in.json:3: is not JSON: Number out of range; correct or remove the line",
        ),
        (
            [CASE, {"h": "ߞߏ"}, {"d": "accept"}],
            {},
            "in.json: [1]: lacks decision, partition; correct fields: decision = 'd', partition = 'p' leads to nothing "
            "in this row\nin.json: [2]: lacks asr_text, partition; correct fields: asr_text = 'h', partition = 'p' "
            "leads to nothing in this row",
        ),
        (
            [report_row(0, d="maybe")],
            {},
            "in.json: [0]: unknown decision 'maybe'; use one of: accept, accepted, admit, admitted, allow, allowed, "
            "block, blocked, denied, deny, false, reject, rejected, true; or list it in enums.decision",
        ),
        (
            '[{"h": "a", "d": true, "p": "", "t": {"x": ' + "[" * 40 + "]" * 40 + "}}]",
            {},
            "in.json: [0]: telemetry is nested deeper than 32; map its members one by one",
        ),
        (
            [report_row(0, d="a" * 1000)],
            {"enums": {"decision": {"yes": "accepted"}}},
            f"in.json: [0]: decision '{'a' * 79}... is in no enum; list it in enums.decision beside yes",
        ),
        ([report_row(0, h=5)], {}, "in.json: [0]: asr_text is a number, not a text; write it in quotes"),
        (
            [CASE],
            {"fields": FIELDS | {"asr_txt": "h", "witness.token": "w", "witness": "w", "edit_budget.flor": "b"}},
            "in.json: unknown canonical field 'asr_txt'; did you mean 'asr_text'?\n"
            "in.json: unknown canonical field 'edit_budget.flor'; did you mean 'edit_budget.floor'?\n"
            "in.json: maps both 'witness' and 'witness.token'; keep one of them",
        ),
        (
            [CASE],
            {"fields": {"asr_text": "h", "partition": "p"}},
            "in.json: nothing maps to 'decision'; add it to `fields`",
        ),
        (
            [CASE],
            {"fields": {}},
            "in.json: nothing maps to 'asr_text', 'decision', 'partition'; add them to `fields`",
        ),
        (
            [{"prompt": "a", "completion": "b"}],
            {"fields": {}},
            'in.json: is no report: its rows have prompt and completion; set kind = "completions"',
        ),
        (
            [CASE],
            {"reference_side": ("telemetri.c",), "enums": {"final_txt": {}}},
            "in.json: enums names 'final_txt', which nothing maps to; did you mean 'final_text'?\n"
            "in.json: reference_side names 'telemetri.c', which nothing maps to; did you mean 'telemetry'?",
        ),
        (
            [CASE],
            {"fields": {"asr_text": "h", "decision": "d", "partition": "p", "telemetry.edits": "s.cer_edits"}},
            "in.json: 'telemetry.edits' is read from 's.cer_edits', which knows the reference; take it out of `fields`",
        ),
        (
            [CASE],
            {"path": "in.jsonl", "rows": "a.b"},
            "in.jsonl: a.b: is not a list of objects; leave `rows` out: the file itself is the list",
        ),
    ],
)
def test_wrong_report_is_refused(tmp_path: Path, content: Any, given: dict[str, Any], expected: str) -> None:
    """A misread report would train on nonsense, so each mistake is named with a hint."""
    assert expected == wrong(tmp_path, content, **given)


def test_rows_that_name_another_schema_are_refused(tmp_path: Path) -> None:
    """Lines have no document around them that could say it."""
    rows = [report_row(0, schema="thunder.report/1"), report_row(1, schema="thunder.report/9")]

    assert ("in.jsonl:2: unknown schema 'thunder.report/9'; this version reads 'thunder.report/1'") == refusal(
        tmp_path, rows, kind="report", fields=FIELDS
    )
