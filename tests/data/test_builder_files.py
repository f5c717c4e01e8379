"""The files beside the splits: every dropped row, every decision, the audit; and their limits."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import FIELDS, report_row
from tests.helpers.material import built, report_rows, source
from thunder_train import ThunderError
from thunder_train.core import files

WITNESSED = "0123456789abcdef" * 2


def test_every_dropped_row_is_listed_with_its_place(tmp_path: Path) -> None:
    """
    A count alone does not lead to the line to correct.
    """
    report = [*report_rows(), report_row(0, n="a", h=" "), report_row(1, n="b", r="v", f="v"), report_row(2, n="c")]

    built(tmp_path, report)

    assert [
        {"file": "in.json", "id": "in:a", "line": 21, "reason": "the recogniser heard nothing"},
        {"file": "in.json", "id": "in:b", "line": 22, "reason": "stray script in the reference"},
        {"file": "in.json", "id": "in:c", "line": 23, "reason": "exact duplicate", "also_at": "in.json:3"},
    ] == files.read_jsonl(tmp_path / "out" / "dropped.jsonl")


def test_what_a_gate_decided_is_kept(tmp_path: Path) -> None:
    """
    Decision, reasons, budget and witness must be there when somebody asks why a row teaches what it teaches.
    """
    witness = {"slice_id": "s1", "graph_snapshot_hash": "g", "policy_hash": "p", "token": WITNESSED}
    fields = FIELDS | {"witness": "w", "reason_codes": "why", "edit_budget.allowed": "budget", "proposal_text": "f"}
    report = [row | {"w": witness, "why": ["within"], "budget": 2} for row in report_rows()]

    manifest = built(tmp_path, report, sources=(source(fields=fields),))

    decisions = files.read_jsonl(tmp_path / "out" / "decisions.jsonl")
    assert (20, {"within": 20}, {"accepted": 20}) == (len(decisions), manifest["reason_codes"], manifest["decisions"])
    assert {
        "id": "in:00",
        "decision": "accepted",
        "reason_codes": ["within"],
        "edit_budget": {"allowed": 2},
        "proposal_text": "ߢߊ",
        "proposal_source": "",
        "telemetry": {"c": 0},
        "witness": witness,
    } == decisions[0]


def test_test_rows_keep_what_a_gate_may_ask_for(tmp_path: Path) -> None:
    """
    A gate judges by confidence and trajectory; of a million rows only those that will be judged carry them.
    """
    predictions = [
        {"audio_path": f"{n}.wav", "split": "test", "script": "nko", "mode": "m", "asr_text": f"ߣ{chr(0x7CA + n)}"}
        | {"ctc_confidence": 0.5, "partition": "boundary", "cer_edits": 1, "trajectory_scalars": {"velocity": 0.25}}
        for n in range(20)
    ]
    references = [{"audio_path": f"{n}.wav", "reference_text": f"ߢ{chr(0x7CA + n)}"} for n in range(20)]
    for name, rows in (("p", predictions), ("r", references)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    built(tmp_path, [], sources=(source(kind="rows", path="p.jsonl", references="r.jsonl", fields={}),))

    decisions = files.read_jsonl(tmp_path / "out" / "decisions.jsonl")
    assert [row["id"] for row in files.read_jsonl(tmp_path / "out" / "test.jsonl")] == [row["id"] for row in decisions]
    assert {"ctc_confidence": 0.5, "velocity": 0.25} == decisions[0]["telemetry"]


def test_too_many_dropped_rows_fail_the_stage(tmp_path: Path) -> None:
    """
    A field that was renamed upstream must not quietly halve a dataset.
    """
    report = [*report_rows(), *(report_row(n, n=f"x{n}", f="") for n in range(5))]

    with pytest.raises(ThunderError) as error:
        built(tmp_path, report, max_dropped=0.1)

    assert (
        "thunder.toml: datasets.nko.max_dropped: 5 of 25 rows were dropped (accepted without a final text: 5), and "
        "at most 10% may be; correct them, or raise it; the first: in.json:21, in.json:22, in.json:23"
    ) == str(error.value)


def test_templates_take_turns_by_id(tmp_path: Path) -> None:
    """
    Many wordings of one question are a measured cure for mode collapse; appended rows must not reshuffle them.
    """
    (tmp_path / "other.j2").write_text("Correct: {{ asr_text }}", encoding="utf-8")
    prompts = ("prompt.j2", "other.j2")

    def questions(report: Any) -> dict[str, str]:
        built(tmp_path, report, templates=prompts)
        rows = [row for name in ("train", "valid", "test") for row in files.read_jsonl(tmp_path / f"out/{name}.jsonl")]
        return {row["id"]: row["messages"][1]["content"].partition(":")[0] for row in rows}

    before, after = questions(report_rows()[:15]), questions(report_rows())

    assert {"Text", "Correct"} == set(before.values())
    assert before == {name: after[name] for name in before}


def test_mixed_orthographies_are_refused(tmp_path: Path) -> None:
    """
    A model that learns two spellings corrects each into the other: the users lost 16 points of CER to it.
    """
    toned = "ߊ߬ ߞߏ߫ ߒ ߦߋ߫ ߕߊ߯ ߟߊ߫ ߛߎ߯ ߞߣߐ߫ ߓߊ߬ߙߊ ߞߍ߫ "
    report = [
        report_row(n, h=f"{toned}{n % 10 and ''}", r=toned * 3 + row["r"], f=toned * 3 + row["r"])
        for n, row in enumerate(report_rows())
    ]

    with pytest.raises(ThunderError) as error:
        built(tmp_path, report)

    assert str(error.value).startswith(
        "thunder.toml: datasets.nko.orthography: source in: 'bridge-toneless' is declared, but the texts have "
    )


def test_near_duplicates_between_splits_are_counted(tmp_path: Path) -> None:
    """
    A test sentence that differs by one letter from a training sentence measures memory; the audit names the pair.
    """
    sentence = "ߛߍߙߌߓߊ ߣߊߣߊ ߞߊ ߝߐ ߊߟߋ ߓߊ ߕߊߊ ߛߎߜߎ ߟߊ ߓߌ"
    report = [*report_rows()]
    report += [
        report_row(n, n=f"s{n}", r=f"{sentence}{chr(0x7CA + n)}", f=f"{sentence}{chr(0x7CA + n)}") for n in range(9)
    ]

    manifest = built(tmp_path, report)

    assert manifest["near_duplicates"] > 0
    assert "near-duplicates" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8").lower()


def test_a_table_in_the_dataset_is_an_orthography(tmp_path: Path) -> None:
    """
    Another language is another table, not another program.
    """
    table = {"letters": "a-z", "marks": "", "shared": ".", "marks_per_letter": [0.0, 0.0], "ratios": []}
    report = [
        report_row(
            n, h=f"w{'abcdefghijklmnopqrst'[n]}", r=f"x{'abcdefghijklmnopqrst'[n]}", f=f"x{'abcdefghijklmnopqrst'[n]}"
        )
        for n in range(20)
    ]
    report.append(report_row(0, n="alien", r="ߢߊ", f="ߢߊ"))

    manifest = built(tmp_path, report, orthography="plain", orthography_table=table)

    assert {"stray script in the reference": 1} == manifest["dropped"]


def test_a_row_with_markup_shows_as_text(tmp_path: Path) -> None:
    """
    Rows come from anywhere; the audit is opened in a browser.
    """
    report = [*report_rows(), report_row(0, n="bad", h="<script>alert(1)</script>", r="ߢߐ ߢߐ", f="ߢߐ ߢߐ")]

    built(tmp_path, report)

    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert (
        "<script" not in page,
        "&lt;script&gt;alert(1)&lt;/script&gt;" in page.replace("<del>", "").replace("</del>", ""),
    ) == (True, True)


def test_sources_may_be_patterns_of_packed_files(tmp_path: Path) -> None:
    """
    A corpus lies in shards; which shard a row is in decides nothing but its name.
    """
    import gzip

    for shard in range(2):
        rows = [{"id": f"{n}", "text": f"ߢ{chr(0x7CA + 10 * shard + n)}ߊߋ"} for n in range(10)]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / f"part-{shard}.jsonl.gz").write_bytes(gzip.compress(content, mtime=0))

    manifest = built(tmp_path, [], "Say it.", sources=(source(kind="text", path="part-*.jsonl.gz", fields={}),))

    assert ["part-0.jsonl.gz", "part-1.jsonl.gz"] == [file["path"] for file in manifest["sources"][0]["files"]]
    assert 20 == sum(split["rows"] for split in manifest["splits"].values())


@pytest.mark.parametrize(("orthography", "is_kept"), [("bridge-toneless", False), ("", True)])
def test_hidden_characters_of_a_conversation(tmp_path: Path, orthography: str, is_kept: bool) -> None:
    """
    A right-to-left mark belongs to an Arabic conversation, until an orthography is declared that does not have it.
    """
    turns = [
        {
            "messages": [
                {"role": "user", "content": f"q\n{n}{mark}"},
                {"role": "assistant", "content": f"ߢ{chr(0x7CA + n)}"},
            ]
        }
        for n, mark in enumerate(["", "\u200f\0"] + [""] * 18)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    sources = (source(kind="chatml", path="c.jsonl", fields={}),)

    manifest = built(tmp_path, [], sources=sources, orthography=orthography)

    assert {"c": {"U+0000 NULL": 1, "U+200F RIGHT-TO-LEFT MARK": 1}} == manifest["invisible_characters"]
    texts = "".join((tmp_path / "out" / f"{name}.jsonl").read_text() for name in ("train", "valid", "test"))
    assert ({}, is_kept, False) == (manifest["dropped"], "q\\n1\u200f" in texts, "\\u0000" in texts)


def test_a_table_that_drops_invisible_characters_drops_a_question_with_one(tmp_path: Path) -> None:
    """
    The question is trained on as part of the prompt.
    """
    turns = [
        {"messages": [{"role": "user", "content": f"q {n}{mark}"}, {"role": "assistant", "content": f"a {n}"}]}
        for n, mark in enumerate(["\u200b"] + [""] * 19)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    table = {"letters": "a-z", "shared": "0-9", "invisible": "drop"}
    sources = (source(kind="chatml", path="c.jsonl", fields={}),)

    manifest = built(tmp_path, [], sources=sources, orthography="latin", orthography_table=table)

    assert {"invisible character U+200B in a user message": 1} == manifest["dropped"]
