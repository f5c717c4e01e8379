"""Facts of a run that is promoted, and the decision after a change of one of them."""

import copy
from typing import Any

from thunder_train.config.evaluate import Evaluate
from thunder_train.config.promotion import Promotion
from thunder_train.core import files
from thunder_train.evaluate.behind import Rows
from thunder_train.evaluate.promotion import Run, decide

SHA = files.digest("adapter")
LIMITS = Promotion(min_rows=500, max_worse=0, needs_witness=True, provenance="")
LOCK = {"kind": "hub", "commit": "1" * 40, "files": [{"path": "model.safetensors", "sha256": files.digest("model")}]}
RUN = Run(recipe="nko", run_id="0123456789ab", dataset_sha256=files.digest("data"), model=LOCK)
DATASET: dict[str, Any] = {
    "dataset": "field-recordings",
    "evidence_kinds": ["real"],
    "provenance": "radio",
    "near_duplicates_of_train_and_test": 5,
    "sources": [{"path": "data/sources/radio.jsonl", "evidence_kind": "real"}],
    "splits": {"train": {"rows": 16}, "valid": {"rows": 4}},
}
DONE: dict[str, Any] = {
    "steps": 200,
    "trainable_parameters": 4096,
    "rows": {"train": 18, "valid": 4},
    "split": {"train": 2, "valid": 0},
    "skipped_steps": 0,
    "adapter": {"sha256": SHA},
    "environment": {"mlx": "0.32.4", "mlx_lm": "0.32.2", "platform": "linux-x86_64", "python": "3.11"},
}
GATED: dict[str, Any] = {
    "condition": "adapter_gated",
    "partition": "all",
    "n": 500,
    "groups": 50,
    "cer": 0.25,
    "cer_low": 0.23,
    "cer_high": 0.27,
    "delta_pp": -6.0,
    "delta_low": -7.0,
    "delta_high": -5.0,
    "changed": 300,
    "worse": 0,
}
EVALUATION: dict[str, Any] = {
    "adapter_sha256": SHA,
    "test_sha256": files.digest("rows"),
    "rows": {"test": 500, "scored": 500},
    "profile": {"name": "cer-codepoint-nfc-pooled", "sha256": "5" * 64},
    "profiles": [
        {"name": "cer-codepoint-nfc-pooled", "average": "pooled", "cer": {"baseline": 0.31, "adapter_gated": 0.25}},
        {"name": "wer-nfc-pooled", "average": "pooled", "cer": {"baseline": 0.8, "adapter_gated": 0.8}},
        {"name": "cer-codepoint-raw-per-row", "average": "per row", "cer": {"baseline": 0.3, "adapter_gated": 0.4}},
    ],
    "conditions": [
        GATED | {"condition": "baseline", "cer": 0.31},
        GATED,
        GATED | {"partition": "stable", "cer": 0.9, "worse": 99},
    ],
    "probe": {"adapter": {"rows": 500}, "collapsed": []},
    "gate": {
        "kind": "external",
        "accepted": 300,
        "rejected": 200,
        "witnesses": {"valid": 500, "missing": 0, "malformed": 0},
    },
}
ABSENT = object()


def changed(facts: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of facts with one value changed or removed (ABSENT). place: dotted keys and list positions."""
    facts = copy.deepcopy(facts)
    *path, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    inner: Any = facts
    for key in path:
        inner = inner[key]
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
    return facts


def reasons(
    evaluation: dict[str, Any] = EVALUATION,
    dataset: dict[str, Any] = DATASET,
    done: dict[str, Any] = DONE,
    limits: Promotion = LIMITS,
    run: Run = RUN,
    settings: Evaluate | None = None,
    rows: Rows | None = None,
) -> list[str]:
    """The reasons for NO-GO, without their rows, and without those for RELAXED; empty for GO and RELAXED."""
    decision = decide(evaluation, dataset, done, limits, run, settings, rows)
    texts: list[str] = [each["text"] for each in decision["reasons"]]
    against = [text for text in texts if not text.startswith("The recipe sets ")]
    assert ("NO-GO" if against else "RELAXED" if texts else "GO") == decision["decision"]
    return against
