"""The page people read: report.md, the sections of the first Thunder Train's status page filled from files."""

import shlex
from pathlib import Path
from typing import Any

from thunder_train import files, manifest, render
from thunder_train.config import Recipe


def build(recipe: Recipe, root: Path, promotion: dict[str, Any]) -> str:
    """The report's text. Raises ThunderError when a stage's file is missing."""
    run = root / "runs" / recipe.name
    done = files.read_json(run / "adapter" / "done.json")
    values = {
        "recipe": recipe,
        "run_id": manifest.identity(recipe, root)["run_id"],
        "data": files.read_json(root / "data" / recipe.dataset.name / "manifest.json"),
        "preflight": files.read_json(run / "preflight.json"),
        "evaluation": files.read_json(run / "eval.json"),
        "done": done,
        "environment": ", ".join(f"{name} {value}" for name, value in sorted(done["environment"].items())),
        "tokens_per_second": tokens_per_second(files.read_jsonl(run / "metrics.jsonl")),
        "flags": [(flag, shlex.quote(str(value))) for flag, value in render.launch_flags(recipe)],
        "promotion": promotion,
    }
    values["evidence"] = values["data"]["evidence_kinds"]
    return render.markdown(root / "templates" / "report.md.j2", values)


def tokens_per_second(metrics: list[dict[str, Any]]) -> float:
    """Target tokens trained on per second of training, all ranks together, validation and saving left out."""
    events = [event for event in metrics if event["event"] == "train" and event["tokens"]]
    seconds = sum(event["tokens"] / event["target_tokens_per_second"] for event in events)
    return sum(event["tokens"] for event in events) / seconds if seconds else 0.0
