"""Predictions -> character error rates by condition and partition.

Input: the predictions and losses that the worker left.  Output: eval.json.  A prediction counts only if its row has a
reference.  Errors are pooled: all edits over all reference characters, so a short row weighs no more than its length.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from thunder_train import files

SCHEMA = "thunder.eval/1"
PROFILE = {
    "name": "cer-codepoint-nfc-pooled",
    "unit": "code point",
    "normalisation": "NFC",
    "spaces": "kept",
    "pooled": True,
}
"""What "CER" means here. Its hash stands beside every score: scores of two profiles cannot be compared."""
CONDITIONS = {"baseline": "asr_text", "base_blind": "base", "adapter_blind": "adapter"}
"""Condition -> the field of a prediction that holds its text. Blind: every proposal is taken, no gate has judged it."""
MODELS = ("base", "adapter")
ALL = "all"
"""The name of all partitions together."""

Prediction = dict[str, Any]


@dataclass(frozen=True)
class Edited:
    """One scored row under one condition. Edits are counted from the reference, in code points."""

    edits: int
    baseline_edits: int
    length: int
    """Code points of the reference."""
    is_changed: bool


def edits(text: str, reference: str) -> int:
    """Insertions, deletions and substitutions of code points between two texts, after NFC."""
    return Levenshtein.distance(_nfc(text), _nfc(reference))


def character_error_rate(pairs: Iterable[tuple[str, str]]) -> float | None:
    """Pooled CER of (text, reference) pairs; None without a reference character. It can exceed 1."""
    counted = [(edits(text, reference), len(_nfc(reference))) for text, reference in pairs]
    length = sum(length for _, length in counted)
    return sum(errors for errors, _ in counted) / length if length else None


def evaluate(predictions: list[Prediction], losses: dict[str, Any]) -> dict[str, Any]:
    """The content of eval.json: losses as given, and a line per condition and partition, "all" first.

    predictions: {"id", "partition", "asr_text", "reference_text", "base", "adapter"}.  losses: {"base", "adapter",
    "environment"}.  Without a scored row there are no lines.
    """
    scored = [row for row in predictions if row["reference_text"]]
    names = sorted({row["partition"] for row in scored} - {ALL})
    groups = ({ALL: scored} if scored else {}) | {
        name: [row for row in scored if row["partition"] == name] for name in names
    }
    return {
        "schema": SCHEMA,
        "losses": {model: losses[model] for model in MODELS},
        "environment": losses["environment"],
        "profile": PROFILE | {"sha256": files.digest(PROFILE)},
        "rows": {"test": len(predictions), "scored": len(scored)},
        "conditions": [
            {"condition": condition, "partition": partition} | _line([_edited(row, field) for row in rows])
            for condition, field in CONDITIONS.items()
            for partition, rows in groups.items()
        ],
    }


def _edited(row: Prediction, field: str) -> Edited:
    reference, hypothesis, text = row["reference_text"], row["asr_text"], row[field]
    return Edited(
        edits=edits(text, reference),
        baseline_edits=edits(hypothesis, reference),
        length=len(_nfc(reference)),
        is_changed=_nfc(text) != _nfc(hypothesis),
    )


def _line(rows: list[Edited]) -> dict[str, Any]:
    """One line of the conditions table. better, same and worse divide the changed rows."""
    length = sum(row.length for row in rows)
    gained = [row.baseline_edits - row.edits for row in rows if row.is_changed]
    return {
        "n": len(rows),
        "cer": sum(row.edits for row in rows) / length,
        "delta_pp": 100 * sum(row.edits - row.baseline_edits for row in rows) / length,
        "changed": len(gained),
        "better": sum(gain > 0 for gain in gained),
        "same": sum(gain == 0 for gain in gained),
        "worse": sum(gain < 0 for gain in gained),
        "accept_rate": None,
        "false_accept_rate": None,
        "cer_low": None,
        "cer_high": None,
    }


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
