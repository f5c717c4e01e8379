"""New rows joined with answers and decisions: no row lost, ids that repeat, a gate in parts, an identity."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.gates import WITNESS, external
from tests.helpers.inputs import source, write
from tests.helpers.material import dataset
from tests.helpers.recipes import smoke
from thunder_train import ThunderError
from thunder_train.config.project import Recipe
from thunder_train.core import files, paths
from thunder_train.pipeline import correction

HEARD = "ߊ ߓߊ"
WITNESSING = f"""
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    extra = {{"witness": {WITNESS!r}}} if row["id"].endswith("#2") else {{}}
    extra = {{"witness": {{}}}} if row["id"].endswith(":b") else extra
    print(json.dumps({{"id": row["id"], "verdict": "accept", "reason": row["id"], **extra}}), flush=True)
"""
"""An external gate that accepts every row, and names it as the reason."""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A finished run, whose ranks answer with the hypothesis and one letter more."""
    write(tmp_path / "prompt.j2", "{{ asr_text }}")
    given = smoke(tmp_path)
    run = tmp_path / paths.run("smoke")
    write(run / "adapter/adapters.safetensors", b"adapter")
    write(run / "promotion.json", {"decision": "NO-GO"})
    outputs = [{"path": f"{run.name}/adapter/adapters.safetensors", "sha256": files.sha256(run / paths.ADAPTER[0])}]
    write(run / "manifest.json", {"run_id": "0123456789ab", "outputs": outputs, "promotion": {"decision": "NO-GO"}})
    monkeypatch.setattr(correction, "_answer", answer)
    return replace(given, dataset=dataset(sources=(source(kind="rows"),), orthography=""))


def answer(job: Any) -> None:
    """Stands for the ranks."""
    for part in job.parts:
        heard = [row["messages"][-1]["content"] for row in files.read_jsonl(part)]
        answers = [{"text": f"{text}ߊ", "finish": "length", "special": 0, "raw": None} for text in heard]
        answers = [{"problem": "too long"} if "LONG" in each["text"] else each for each in answers]
        files.write_text(job.folder / correction._answers_of(part), "".join(map(files.json_line, [{}, *answers])))


def corrected(recipe: Recipe, root: Path, rows: list[dict[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    """(lines of the output, summary)."""
    write(root / "new.jsonl", rows)
    out = root / "out" / "new.jsonl"
    summary = correction.correct(recipe, "new.jsonl", out, root)
    assert summary == files.read_json(root / "out" / "new.jsonl.json")
    return files.read_jsonl(out), summary


def test_every_row_has_a_line_with_what_became_of_it(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Accepted, rejected, unchanged, never asked, too long: in the order of the file.
    """
    rows = [
        {"feat_id": "a", "asr_text": HEARD, "partition": "boundary", "reference_text": "x"},
        {"feat_id": "b", "asr_text": HEARD, "partition": "stable"},
        {"feat_id": 3, "asr_text": ""},
        {"asr_text": "LONG"},
    ]
    lines, summary = corrected(recipe, tmp_path, rows)

    common = {"asr_text": HEARD, "proposal": f"{HEARD}ߊ", "finish": "length"}
    within, preserved = "within the edit budget", "partition stable is left unchanged"
    silent = "the recogniser heard nothing"
    unasked = {"partition": "", "proposal": None, "decision": "unchanged"}
    assert [
        common | {"line": 1, "feat_id": "a", "partition": "boundary", "text": f"{HEARD}ߊ"}
        | {"decision": "accepted", "reason": within},
        common | {"line": 2, "feat_id": "b", "partition": "stable", "text": HEARD}
        | {"decision": "rejected", "reason": preserved},
        unasked | {"line": 3, "feat_id": 3, "asr_text": "", "text": "", "reason": silent},
        unasked | {"line": 4, "asr_text": "LONG", "text": "LONG", "reason": "too long"},
    ] == lines  # fmt: skip
    assert {"accepted": 1, "rejected": 1, "unchanged": 2} == summary["decisions"]
    assert {within: 1, preserved: 1, silent: 1, "too long": 1} == summary["reasons"]
    assert (4, 3, 1, 0) == tuple(summary[name] for name in ("rows", "asked", "references_ignored", "witnesses"))
    assert ("0123456789ab", "NO-GO", "new.jsonl") == (
        summary["run_id"],
        summary["promotion"],
        summary["input"]["name"],
    )
    assert "references are not used: 1 of the rows have one" in capsys.readouterr().out
    assert not (tmp_path / paths.correction("smoke")).exists()


def test_an_external_gate_decides_in_parts_and_by_ids_of_its_own(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its answers are matched by id, which rows of a stranger's file may share; a witness is carried and never invented.
    """
    monkeypatch.setattr(correction, "PART", 4)
    gate = external(tmp_path, WITNESSING)
    rows = [{"feat_id": name, "asr_text": HEARD} for name in ("b", "a", "a", "a", "c")]
    given = replace(recipe, evaluate=replace(recipe.evaluate, gate=gate))
    lines, summary = corrected(given, tmp_path, [rows[0], {"asr_text": ""}, *rows[1:]])

    assert ["new:b", "the recogniser heard nothing", "new:a", "new:a#2", "new:a", "new:c"] == [
        line["reason"] for line in lines
    ]
    assert [None, None, None, WITNESS, None, None] == [line.get("witness") for line in lines]
    assert ["lacks slice_id"] == [line["witness_problem"] for line in lines if "witness_problem" in line]
    assert (1, "external") == (summary["witnesses"], summary["gate"]["kind"])


def test_the_parts_of_a_file_decide_nothing_but_what_is_held(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each answer reaches its row whatever the order of ids is, and wherever a part ends.
    """
    rows = [
        {"feat_id": str(number * 7 % 10), "asr_text": f"{HEARD} {number}" * (number % 4 > 0)} for number in range(10)
    ]
    whole, _ = corrected(recipe, tmp_path, rows)
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(correction, "PART", size)
        assert whole == corrected(recipe, tmp_path, rows)[0]
    assert [f"{row['asr_text']}ߊ" if row["asr_text"] else None for row in rows] == [line["proposal"] for line in whole]


def test_an_adapter_that_no_manifest_names_has_no_run(recipe: Recipe, tmp_path: Path) -> None:
    """
    The decision of another training says nothing of it.
    """
    write(tmp_path / paths.run("smoke") / paths.ADAPTER[0], b"another")
    summary = corrected(recipe, tmp_path, [{"asr_text": HEARD}])[1]

    assert ("", "") == (summary["run_id"], summary["promotion"])


def test_reasons_are_counted_up_to_a_limit(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An external gate may write another sentence for each of a million rows.
    """
    monkeypatch.setattr(correction, "REASONS", 1)
    summary = corrected(recipe, tmp_path, [{"asr_text": HEARD}, {"asr_text": ""}, {"asr_text": " "}])[1]

    assert {"within the edit budget": 1, "other reasons": 2} == summary["reasons"]


def test_what_cannot_be_corrected_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """
    A dataset of conversations, and an output that would replace its own input.
    """
    chat = replace(recipe, dataset=dataset(sources=(source(kind="chatml"),)))
    write(tmp_path / "new.jsonl", [{"asr_text": HEARD}])

    with pytest.raises(ThunderError) as error:
        correction.correct(chat, "new.jsonl", tmp_path / "o.jsonl", tmp_path)
    assert (
        "recipes/smoke.toml: its dataset nko holds conversations, and no recogniser's texts to correct; "
        "`./doit chat:smoke` talks with its adapter"
    ) == str(error.value)
    with pytest.raises(ThunderError, match=r"is the file of rows itself; give another --out"):
        correction.correct(recipe, "new.jsonl", tmp_path / "new.jsonl", tmp_path)
