"""A GO that was faked: synthetic rows dressed as real, a gate that accepts all, weak limits. It ends in NO-GO."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.evaluations import LOSSES, settings
from tests.helpers.gates import DIGITS, external
from tests.helpers.material import build, dataset, source
from tests.helpers.promotions import DONE, LOCK, SHA
from thunder_train.config.promotion import Promotion
from thunder_train.core import files
from thunder_train.evaluate import conditions, looks, promotion
from thunder_train.evaluate.behind import Rows

WORDS = ("mali", "bamako", "kita", "segu", "djenne", "mopti", "gao", "kayes", "sikasso", "nioro")
GATE = f"""
import json, sys
for number, line in enumerate(sys.stdin):
    witness = {{"slice_id": str(number), "graph_snapshot_hash": "g", "policy_hash": "p", "token": "{DIGITS}"}}
    print(json.dumps({{"id": json.loads(line)["id"], "verdict": "accept", "witness": witness}}))
"""
"""It accepts whatever comes, and has one witness for all."""
WEAK = Promotion(min_rows=20, max_worse=9, max_near_duplicates=10**6, needs_witness=True)


def row(number: int, recording: str) -> dict[str, Any]:
    """A sentence, and the same without one of its letters."""
    sentence = " ".join(WORDS[(number // 10**place) % 10] for place in range(3)) + f" {recording}"
    said = None if number % 20 == 0 else sentence
    names = {"id": f"{recording}{number:03}", "audio_path": f"{recording}.wav", "mode": "Synthetic-noise"}
    partition = ("boundary", "Stable", "NOVELTY")[number % 3]
    return names | {"asr_text": sentence[1:], "reference_text": said, "partition": partition}


def dressed(root: Path) -> dict[str, Any]:
    """The manifest of the rows: declared as real, all test rows of one recording, nearly those of train."""
    for split, recording in (("train", "x"), ("test", "z")):
        lines = "".join(json.dumps(row(number, recording)) + "\n" for number in range(100))
        (root / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (root / "prompt.j2").write_text("Text: {{ asr_text }}", encoding="utf-8")
    declared = [
        source(kind="rows", path=f"{split}.jsonl", split=split, evidence_kind="real", fields={})
        for split in ("train", "test")
    ]
    return build(dataset(sources=tuple(declared), orthography="", valid=0.0, test=0.0), root, root / "out")


def test_synthetic_rows_dressed_as_real_are_no_go(tmp_path: Path) -> None:
    """A GO came out of synthetic rows in an hour, with every number in order; each of its tricks has its reason now."""
    manifest = dressed(tmp_path)
    test = files.read_jsonl(tmp_path / "out" / "test.jsonl")
    predictions = [
        {**each, "base": each["asr_text"], "adapter": each["reference_text"], "base_special": 0, "adapter_special": 0}
        | {"base_finish": "stop", "adapter_finish": "stop", "witness": {}}
        for each in test
    ]
    checks = settings(gate=vars(external(tmp_path, GATE)) | {"env": ()})
    judged, evaluation = conditions.judge(predictions, {}, LOSSES | {"adapter_sha256": SHA}, checks, "test")
    for number in range(30):  # adapters that were evaluated before this one
        looks.note(tmp_path, evaluation["test_sha256"], files.digest(number))
    look = looks.note(tmp_path, evaluation["test_sha256"], SHA)
    run = promotion.Run("fake", "0123456789ab", files.digest("data"), LOCK, look=look)
    done = DONE | {"rows": {name: each["rows"] for name, each in manifest["splits"].items()}, "split": {}}
    rows = Rows(predictions, judged.decisions, files.read_jsonl(tmp_path / "out" / "dropped.jsonl"))

    decision = promotion.decide(evaluation, manifest, done, WEAK, run, checks, rows)

    assert ("NO-GO", 31, None) == (decision["decision"], decision["looks"]["count"], decision["looks"]["high"])
    assert [
        ("The evidence is real, synthetic; only real evidence can promote an adapter.", 0),
        ('Rows say themselves that their mode is synthetic; their source declares "real".', 0),
        ("The provenance of the evidence is not declared; set provenance in [datasets.NAME].", 0),
        (
            "10 rows of the dataset were dropped for want of a reference or a text: "
            "those that are left may be the easy ones.",
            10,
        ),
        (
            "Groups of test rows (recordings, speakers): 1; fewer than 20 give no interval of the change of CER.",
            0,
        ),
        ("Rows of partition stable or novelty that the gate changed: 63.", 50),
        ("Decisions whose witness is also that of another slice or recording: 95 of 95.", 50),
        ("The recipe sets promotion.min_rows to 20; with one weaker than 500 there is no GO.", 0),
        ("The recipe sets promotion.max_worse to 9; with one weaker than 0 there is no GO.", 0),
        ("The recipe sets promotion.max_near_duplicates to 1000000; with one weaker than 5 there is no GO.", 0),
        ("The recipe sets evaluate.bootstrap to 100; with one weaker than 1000 there is no GO.", 0),
    ] == [(each["text"], len(each["rows"])) for each in decision["reasons"]]
    assert 31 == looks.number(tmp_path, evaluation["test_sha256"], SHA)
