"""Correction reports of any shape, read through their field map."""

import pytest

from tests.material import FIELDS, read, refusal, report_row

CASE = report_row(0)


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
    ],
)
def test_use_decides_what_a_row_teaches(tmp_path, verdict, use, targets, dropped):
    """Accepted rows teach their final text, rejected ones their reference or to leave the text alone."""
    loaded = read(tmp_path, [report_row(0, d=verdict, h="ߞߏ", r="ߞߋ", f="ߞߋߣ")], use=use)

    assert (targets, dropped) == ([row.target_text for row in loaded.rows], loaded.dropped)


def test_rejected_row_without_a_reference_teaches_nothing(tmp_path):
    """Nobody knows the answer, so there is none to learn; the count shows that the row was seen."""
    loaded = read(tmp_path, [report_row(0, d="reject", r=None)], use=("corrected",))

    assert ([], {"rejected without a reference": 1}, {"in.json": 1}) == (loaded.rows, loaded.dropped, loaded.rows_read)


def test_field_map_reaches_into_nested_rows(tmp_path):
    """Each report has its own shape; the map, not the code, knows it."""
    report = {"a": {"b": [{"in": {"h": "ߞߏ"}, "g": {"ok": True, "why": "fits"}, "t": "f00d", "c": 0.5, "z": "ߞߋ"}]}}
    fields = {"asr_text": "in.h", "decision": "g.ok", "reason_codes": "g.why", "final_text": "z"}
    dotted = {"witness.token": "t", "telemetry.confidence": "c"}

    row = read(tmp_path, report, rows="a.b", fields=fields | dotted, constants={"partition": "recovery"}).rows[0]

    assert ("ߞߏ", "accepted", ("fits",), "ߞߋ") == (row.asr_text, row.decision, row.reason_codes, row.target_text)
    assert ({"token": "f00d"}, {"confidence": 0.5}, "recovery") == (row.witness, row.telemetry, row.partition)


def test_row_is_named_by_its_file_and_grouped_by_its_audio(tmp_path):
    """Rows of one recording must stay in one split, and equal ids of two reports are two rows."""
    rows = [
        report_row(0, n=7, wav="a.wav", seg="s"),
        report_row(1, n=8, seg="s"),
        report_row(2, n=9),
        report_row(3, n=None),
    ]
    fields = FIELDS | {"audio_path": "wav", "segment_id": "seg"}

    loaded = read(tmp_path, rows, fields=fields)

    assert [("in:7", "a.wav"), ("in:8", "s"), ("in:9", "in:9"), ("in:4", "in:4")] == [
        (row.row_id, row.group) for row in loaded.rows
    ]


@pytest.mark.parametrize(
    ("content", "given", "expected"),
    [
        (
            {"schema": "thunder.report/2", "rows": []},
            {},
            "in.json: schema: unknown schema 'thunder.report/2'; this version reads 'thunder.report/1'",
        ),
        (
            {"rows": []},
            {"rows": "results"},
            "in.json: results: is not a list of objects; set `rows` to the dotted path of the list of rows",
        ),
        (
            [CASE, {"h": "ߞߏ"}, {"d": "accept"}],
            {},
            "in.json: [1]: lacks decision, partition; add them\nin.json: [2]: lacks asr_text, partition; add them",
        ),
        (
            [report_row(0, d="maybe")],
            {},
            "in.json: [0]: unknown decision 'maybe'; use one of: accept, accepted, admit, admitted, allow, allowed, "
            "block, blocked, denied, deny, false, reject, rejected, true",
        ),
        ([report_row(0, h=5)], {}, "in.json: [0]: Expected `str`, got `int` - at `$.asr_text`; mend the row"),
        (
            [CASE],
            {"fields": FIELDS | {"asr_txt": "h", "witness.token": "w", "witness": "w"}},
            "in.json: unknown canonical field 'asr_txt'; did you mean 'asr_text'?\n"
            "in.json: maps both 'witness' and 'witness.token'; keep one of them",
        ),
        (
            [CASE],
            {"fields": {"asr_text": "h", "partition": "p"}},
            "in.json: nothing maps to 'decision'; add it to `fields`",
        ),
    ],
)
def test_wrong_report_is_refused(tmp_path, content, given, expected):
    """A misread report would train on nonsense, so each mistake is named with its mend."""
    assert expected == refusal(tmp_path, content, **given)
