"""The page people read: report.md, the sections of the first Thunder Train's status page filled from files.

Input: what the stages left of a run.  Output: values for the pages, and report.md from them; page.py makes the HTML.

The same report as one HTML file that needs nothing else: figures, tables and rows, from templates/report.html.j2.

Rows are untrusted text: core/html.py shows them, here as on the audit page.
"""

import shlex
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from thunder_train.config.project import Recipe
from thunder_train.core import files, html, templates
from thunder_train.core.text import nfc
from thunder_train.evaluate import collapse, gate
from thunder_train.launch import scripts
from thunder_train.report import plots
from thunder_train.report.plots import Interval, Labels, Series
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
    return templates.markdown(root / "templates" / "report.md.j2", gather(recipe, root, promotion))


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


ALL = "all"
"""The name of all partitions together."""
TEXTS = ("hypothesis", "final text")
"""Groups of the histograms."""


def build_html(values: dict[str, Any], templates: Path = Path("templates")) -> str:
    """The page's text: values as report.gather gives them. The same values give the same bytes.

    Raises ThunderError for a template that does not render.
    """
    found = values["evaluation"]
    overall = [line for line in found["conditions"] if line["partition"] == ALL]
    told = {
        **values,
        "home": {
            "data": f"../../data/{values['recipe'].dataset.name}",
            "model": f"../models/{values['recipe'].model.name}",
        },
        "overall": overall,
        "by_condition": {line["condition"]: line for line in overall},
        "by_partition": [line for line in found["conditions"] if line["partition"] != ALL],
        "figures": figures(values),
        "code_points": code_points,
    }
    return html.page(templates / "report.html.j2", told)


def figures(values: dict[str, Any]) -> dict[str, Any]:
    """Name -> SVG, empty where there is nothing to draw."""
    trained = [event for event in values["metrics"] if event["event"] == "train"]
    done = values["done"]["losses"]
    losses = [Series("training", _points(done["train"])), Series("validation", _points(done["valid"]))]
    speed = [
        Series("targets", _course(trained, "target_tokens_per_second")),
        Series("computed", _course(trained, "computed_tokens_per_second")),
    ]
    skew = [Series("skew", [(step, 1000 * seconds) for step, seconds in _course(trained, "skew_s")])]
    return {
        "loss": plots.lines(Labels("loss", "Loss per target token", "step", "nats"), losses),
        "speed": plots.lines(Labels("speed", "Tokens per second, all ranks together", "step", "tokens/s"), speed, True),
        "skew": plots.lines(
            Labels("skew", "How much longer the slowest rank took than the fastest", "step", "ms"), skew, True
        ),
        "cer": _rates(values["evaluation"]),
        **_histograms(values),
    }


def code_points(text: str) -> str:
    """U+07CA U+07F2: what a lone mark is, which no font shows well."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


def _rates(evaluation: dict[str, Any]) -> Any:
    rows = [
        Interval(line["condition"].replace("_", " "), line["cer"], line["cer_low"], line["cer_high"])
        for line in evaluation["conditions"]
        if line["partition"] == ALL and line["cer"] is not None
    ]
    return plots.intervals(Labels("cer", "Character error rate by condition", "error rate"), rows)


def _histograms(values: dict[str, Any]) -> dict[str, Any]:
    """Lengths of texts and edits that lead from them to their references, before the adapter and after the gate."""
    finals = {each["id"]: each["final"] for each in values["decisions"]}
    rows = ((row["asr_text"], finals[row["id"]], row["reference_text"]) for row in values["predictions"])
    texts = [tuple(map(nfc, row)) for row in rows]
    lengths = [[len(before) for before, _, _ in texts], [len(after) for _, after, _ in texts]]
    scored = [each for each in texts if each[2].strip()]
    edits = [
        [Levenshtein.distance(before, reference) for before, _, reference in scored],
        [Levenshtein.distance(after, reference) for _, after, reference in scored],
    ]
    length, edit = (
        Labels("lengths", "Lengths of the test rows", "code points", "rows"),
        Labels("edits", "Edits from a text to its reference", "code points to edit", "rows"),
    )
    return {
        "lengths": plots.bars(length, TEXTS, plots.binned(lengths)),
        "edits": plots.bars(edit, TEXTS, plots.binned(edits)),
    }


def _points(losses: list[list[float]]) -> list[tuple[float, float]]:
    return plots.thinned([(step, loss) for step, loss in losses])


def _course(events: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return plots.thinned([(event["step"], event[key]) for event in events if key in event])
