"""The page people read: report.md, the sections of the first Thunder Train's status page filled from files.

Input: what the stages left of a run.  Output: values for the pages, and report.md from them; page.py makes the HTML.
"""

import shlex
from pathlib import Path
from typing import Any

from thunder_train.config.project import Recipe
from thunder_train.core import files
from thunder_train.evaluate import collapse, gate
from thunder_train.launch import scripts
from thunder_train.reproduce import manifest

CONDITIONS = {
    "baseline": "the recogniser's text as it is",
    "base_blind": "every answer of the base model taken",
    "adapter_blind": "every answer of the adapter taken",
    "adapter_gated": "those answers of the adapter that the gate took",
    "oracle_gated": "the best that the gate would take",
}
"""What the conditions of eval.json stand for."""


def build(recipe: Recipe, root: Path, promotion: dict[str, Any]) -> str:
    """The report's text. Raises ThunderError when a stage's file is missing."""
    return scripts.markdown(root / "templates" / "report.md.j2", gather(recipe, root, promotion))


def gather(recipe: Recipe, root: Path, promotion: dict[str, Any]) -> dict[str, Any]:
    """What both pages tell, read from the run's files. Raises ThunderError when one is missing."""
    run = root / "runs" / recipe.name
    done, metrics = files.read_json(run / "adapter" / "done.json"), files.read_jsonl(run / "metrics.jsonl")
    data = files.read_json(root / "data" / recipe.dataset.name / "manifest.json")
    return {
        "recipe": recipe,
        "run_id": manifest.identity(recipe, root)["run_id"],
        "data": data,
        "preflight": files.read_json(run / "preflight.json"),
        "evaluation": files.read_json(run / "eval.json"),
        "predictions": files.read_jsonl(run / "predictions.jsonl"),
        "decisions": gate.read(run / gate.FILE).decisions,
        "done": done,
        "environment": ", ".join(f"{name} {value}" for name, value in sorted(done["environment"].items())),
        "metrics": metrics,
        "tokens_per_second": tokens_per_second(metrics),
        "flags": [(flag, shlex.quote(str(value))) for flag, value in scripts.launch_flags(recipe)],
        "promotion": promotion,
        "evidence": data["evidence_kinds"],
        "conditions": CONDITIONS,
        "behaviours": collapse.BEHAVIOURS,
    }


def tokens_per_second(metrics: list[dict[str, Any]]) -> float:
    """Target tokens trained on per second of training, all ranks together, validation and saving left out."""
    events = [event for event in metrics if event["event"] == "train" and event["tokens"]]
    seconds = sum(event["tokens"] / event["target_tokens_per_second"] for event in events)
    return sum(event["tokens"] for event in events) / seconds if seconds else 0.0
