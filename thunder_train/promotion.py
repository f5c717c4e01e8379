"""GO or NO-GO for an adapter, with every reason.

Input: eval.json, the dataset's manifest and the worker's done.json.  The answer is NO-GO unless every limit is shown to
hold: what the files do not say counts against the adapter.
"""

from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "thunder.promotion/1"


@dataclass(frozen=True)
class Limits:
    """What an adapter must show."""

    condition: str = "adapter_gated"
    """The condition that is judged: only gated text would reach a reader."""
    evidence_kind: str = "real"
    min_rows: int = 500
    """Scored test rows."""
    max_worse: int = 0
    """Test rows that the accepted proposals made worse."""


def decide(
    evaluation: dict[str, Any], dataset: dict[str, Any], done: dict[str, Any], limits: Limits | None = None
) -> dict[str, Any]:
    """The decision: GO only when there is no reason against it."""
    limits = limits or Limits()
    reasons = [
        *_evidence(dataset, limits),
        *_training(dataset, done),
        *_references(evaluation, limits),
        *_scores(evaluation, limits),
    ]
    decision = "NO-GO" if reasons else "GO"
    return {"schema": SCHEMA, "decision": decision, "reasons": reasons, "limits": asdict(limits)}


def _evidence(dataset: dict[str, Any], limits: Limits) -> list[str]:
    kinds = dataset.get("evidence_kinds") or ["unknown"]
    if kinds == [limits.evidence_kind]:
        return []
    return [f"The evidence is {', '.join(kinds)}; only {limits.evidence_kind} evidence can promote an adapter."]


def _training(dataset: dict[str, Any], done: dict[str, Any]) -> list[str]:
    """What went wrong in the training itself."""
    reasons = []
    for split in ("train", "valid"):
        used, given = done.get("rows", {}).get(split), dataset.get("splits", {}).get(split, {}).get("rows")
        if used is None or used != given:
            reasons.append(f"Rows of {split} used in training: {_told(used)}; in the dataset: {_told(given)}.")
    if done.get("skipped_steps") != 0:
        reasons.append(f"Training steps skipped because a number was not finite: {_told(done.get('skipped_steps'))}.")
    return reasons


def _references(evaluation: dict[str, Any], limits: Limits) -> list[str]:
    rows = evaluation.get("rows", {})
    scored, test, reasons = rows.get("scored", 0), rows.get("test", 0), []
    if scored < limits.min_rows:
        reasons.append(f"{scored} test rows were scored; the limit is {limits.min_rows}.")
    if scored != test:
        reasons.append(f"{test - scored} of {test} test rows have no reference.")
    return reasons


def _scores(evaluation: dict[str, Any], limits: Limits) -> list[str]:
    """What the judged condition fails to show on all test rows; the ungated adapter is told when no gate has run."""
    lines = {line["condition"]: line for line in evaluation.get("conditions", []) if line["partition"] == "all"}
    judged = lines.get(limits.condition)
    if judged is None:
        return [
            f"No gate has judged the proposals: the evaluation has no condition {limits.condition}.",
            *_compared(lines, "adapter_blind", limits),
        ]
    return _compared(lines, limits.condition, limits)


def _compared(lines: dict[str, Any], condition: str, limits: Limits) -> list[str]:
    """What one condition fails to show against the baseline."""
    cer, baseline = (lines.get(name, {}).get("cer") for name in (condition, "baseline"))
    worse, reasons = lines.get(condition, {}).get("worse"), []
    if cer is None or baseline is None:
        reasons.append(f"The CER of {condition} or of the baseline is unknown.")
    elif cer >= baseline:
        reasons.append(f"The CER of {condition} is {cer:.4f}, not below the baseline's {baseline:.4f}.")
    if worse is None or worse > limits.max_worse:
        reasons.append(f"Rows made worse by {condition}: {_told(worse)}; the limit is {limits.max_worse}.")
    return reasons


def _told(count: int | None) -> str:
    return "unknown" if count is None else str(count)
