"""The report of a run: the promotion decision, report.md and report.html.

Input: the files that the earlier stages wrote.  Output: promotion.json, and the same results as a short Markdown page
and as one self-contained HTML page with figures, tables and example rows.  Equal inputs give equal bytes.
Rows are untrusted text: the templates show them only through core/html.py and the escaping of core/templates.py.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rapidfuzz.distance import Levenshtein

from thunder_train.config.project import Recipe
from thunder_train.core import files, html, paths, templates
from thunder_train.core.text import nfc
from thunder_train.evaluate import collapse, gate, promotion
from thunder_train.evaluate.conditions import ALL
from thunder_train.launch import scripts
from thunder_train.report import plots
from thunder_train.report.plots import Interval, Labels, Series
from thunder_train.reproduce import manifest

TEMPLATES = Path("templates")
CONDITIONS = {
    "baseline": "the recogniser's text, unchanged",
    "base_blind": "every answer of the base model, without a gate",
    "adapter_blind": "every answer of the adapter, without a gate",
    "adapter_gated": "the adapter's answer where the gate accepts it, else the recogniser's text",
    "oracle_gated": "the best text that the gate would accept",
}
"""Condition of eval.json -> the text that it scores."""
TEXTS = ("hypothesis", "final text")
"""The two groups of each histogram."""


@dataclass(frozen=True)
class Results:
    """What the earlier stages wrote about a run; every attribute without a comment is the content of a file."""

    recipe: Recipe
    run_id: str
    dataset: dict[str, Any]
    """data/<dataset>/manifest.json"""
    dataset_sha256: str
    """sha256 of that file"""
    model: dict[str, Any]
    """model.lock.json"""
    preflight: dict[str, Any]
    done: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluation: dict[str, Any]
    """eval.json"""
    predictions: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    """decisions.jsonl without its header"""
    accepted: list[str]
    """What was accepted of the run's stages, in sentences."""
    has_known_rows: bool = True
    """Whether all trainings behind the adapter read the training rows of this dataset."""


def gather(recipe: Recipe, root: Path, accepted: Sequence[str] = ()) -> Results:
    """Read each file of a run once. root: the project's folder. Raises ThunderError if a file is missing.

    accepted: what was accepted of the run's stages, in sentences.
    """
    run, dataset = root / paths.run(recipe.name), root / paths.dataset_manifest(recipe.dataset.name)
    return Results(
        recipe=recipe,
        run_id=manifest.identity(recipe, root)["run_id"],
        dataset=files.read_json(dataset),
        dataset_sha256=files.sha256(dataset),
        model=files.read_json(root / paths.model_lock(recipe.model.name)),
        preflight=files.read_json(run / "preflight.json"),
        done=files.read_json(run / "adapter" / "done.json"),
        metrics=[] if recipe.is_imported else files.read_jsonl(run / "metrics.jsonl"),
        evaluation=files.read_json(run / "eval.json"),
        predictions=files.read_jsonl(run / "predictions.jsonl"),
        decisions=gate.read(run / gate.FILE).decisions,
        accepted=[*accepted],
        has_known_rows=_has_known_rows(files.read_json(run / "adapter" / "done.json"), root),
    )


def _has_known_rows(done: dict[str, Any], root: Path) -> bool:
    """Whether a training, and each one whose adapter it began with, read the same training rows. done: done.json."""
    rows, runs = done.get("rows_sha256", {}).get("train"), set[str]()
    while folder := str(done.get("start", {}).get("path", "")):
        record = root / folder / "done.json"
        if folder in runs or not folder.startswith(paths.run("")) or not record.is_file():
            return False  # an adapter of the project that no recipe trained: its done.json is anybody's word
        done = files.read_json(record)
        runs.add(folder)
        if done.get("rows_sha256", {}).get("train") != rows:
            return False
    return True


def decide(results: Results) -> dict[str, Any]:
    """The content of promotion.json."""
    recipe = results.recipe
    run = promotion.Run(
        recipe.name, results.run_id, results.dataset_sha256, results.model, has_known_rows=results.has_known_rows
    )
    return promotion.decide(results.evaluation, results.dataset, results.done, recipe.promotion, run)


def markdown_page(results: Results, decision: dict[str, Any], folder: Path = TEMPLATES) -> str:
    """report.md. decision: the content of promotion.json.  folder: of the template."""
    return templates.markdown(folder / "report.md.j2", _values(results, decision))


def html_page(results: Results, decision: dict[str, Any], folder: Path = TEMPLATES) -> str:
    """report.html. decision: the content of promotion.json.  folder: of the template."""
    lines = results.evaluation["conditions"]
    values = {
        **_values(results, decision),
        "home": {
            "data": f"../../data/{results.recipe.dataset.name}",
            "model": f"../models/{results.recipe.model.name}",
        },
        "by_partition": [line for line in lines if line["partition"] != ALL],
        "conditions": CONDITIONS,
        "behaviours": behaviours(results.evaluation),
        "environment": ", ".join(f"{name} {value}" for name, value in sorted(results.done["environment"].items())),
        "figures": figures(results),
        "code_points": code_points,
    }
    return html.page(folder / "report.html.j2", values)


def _values(results: Results, decision: dict[str, Any]) -> dict[str, Any]:
    """The values that both templates use."""
    overall = [line for line in results.evaluation["conditions"] if line["partition"] == ALL]
    evaluation, dataset, report = results.evaluation, results.recipe.dataset, results.recipe.report
    counts = evaluation["rows"]
    return {
        "recipe": results.recipe,
        "report": report,
        "has_boundary": bool(report.use_for or report.do_not or report.bridge or report.bridge_note),
        "run_id": results.run_id,
        "has_hypotheses": bool(counts["scored"] or dataset.templates),
        "is_judged": bool(results.decisions),
        "silence": evaluation.get("silence"),
        "chat": evaluation.get("chat"),
        "text_rows": counts.get("text", 0),
        "losses": losses_shown(evaluation),
        "unscored": "" if counts["scored"] else promotion.why_unscored(counts),
        "rate_name": rate_name(evaluation),
        "thinking": collapse.thinking(evaluation["probe"]),
        "data": results.dataset,
        "evidence": results.dataset["evidence_kinds"],
        "preflight": results.preflight,
        "done": results.done,
        "evaluation": evaluation,
        "promotion": decision,
        "overall": overall,
        "accepted": results.accepted,
        "by_condition": {line["condition"]: line for line in overall},
        "tokens_per_second": tokens_per_second(results.metrics),
        "flags": [
            (flag, shlex.quote(str(value)))
            for flag, value in scripts.flags_of(results.recipe, results.recipe.scripts[0])
        ],
    }


def losses_shown(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The losses at the head of a report: {"name", "base", "adapter"}; of the test rows where no row validates."""
    split, name = ("valid", "Validation loss")
    if evaluation["losses"]["adapter"]["valid"]["loss"] is None:
        split, name = ("test", "Test loss")
    return {"name": name} | {model: evaluation["losses"][model][split]["loss"] for model in collapse.MODELS}


def rate_name(evaluation: dict[str, Any]) -> str:
    """The short name of the error rate that decides."""
    return "WER" if evaluation["profile"]["unit"] == "word" else "CER"


def behaviours(evaluation: dict[str, Any]) -> dict[str, str]:
    """Counter of the probe -> predicate, for the counters that this evaluation has."""
    names = {**collapse.BEHAVIOURS, collapse.THINKING: "were still thinking when they ended"}
    if not evaluation["rows"]["scored"] and "chat" in evaluation:
        names["copied"] = "copy the question"
    probe = evaluation["probe"]
    return {name: what for name, what in names.items() if any(name in probe[model] for model in collapse.MODELS)}


def tokens_per_second(metrics: list[dict[str, Any]]) -> float:
    """Target tokens per second of all ranks together, over the training steps alone (no validation, no saving)."""
    events = [event for event in metrics if event["event"] == "train" and event["tokens"]]
    seconds = sum(event["tokens"] / event["target_tokens_per_second"] for event in events)
    return sum(event["tokens"] for event in events) / seconds if seconds else 0.0


def code_points(text: str) -> str:
    """ "U+07CA U+07F2": names a lone mark, which no font shows well."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


def figures(results: Results) -> dict[str, Markup]:
    """Name -> SVG, empty if there is nothing to draw."""
    steps = [event for event in results.metrics if event["event"] == "train"]
    losses = results.done["losses"]
    loss = [Series("training", _losses(losses["train"])), Series("validation", _losses(losses["valid"]))]
    speed = [
        Series("targets", _points(steps, "target_tokens_per_second")),
        Series("computed", _points(steps, "computed_tokens_per_second")),
    ]
    skew = [Series("skew", [(step, 1000 * seconds) for step, seconds in _points(steps, "skew_s")])]
    return {
        "loss": plots.lines(Labels("loss", "Loss per target token", "step", "nats"), loss),
        "speed": plots.lines(Labels("speed", "Tokens per second, all ranks together", "step", "tokens/s"), speed, True),
        "skew": plots.lines(
            Labels("skew", "Time of the slowest rank minus that of the fastest", "step", "ms"), skew, True
        ),
        "cer": _rates(results.evaluation),
        **_histograms(results),
    }


def _losses(losses: list[list[float]]) -> list[tuple[float, float]]:
    return plots.thinned([(step, loss) for step, loss in losses])


def _points(events: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of the events that have the key."""
    return plots.thinned([(event["step"], event[key]) for event in events if key in event])


def _rates(evaluation: dict[str, Any]) -> Markup:
    rows = [
        Interval(line["condition"].replace("_", " "), line["cer"], line["cer_low"], line["cer_high"])
        for line in evaluation["conditions"]
        if line["partition"] == ALL and line["cer"] is not None
    ]
    unit = "Word" if rate_name(evaluation) == "WER" else "Character"
    return plots.intervals(Labels("cer", f"{unit} error rate by condition", "error rate"), rows)


def _histograms(results: Results) -> dict[str, Markup]:
    """Lengths of hypotheses and final texts, and their edit distances to the references."""
    finals = {each["id"]: each["final"] for each in results.decisions}
    judged = [row for row in results.predictions if row["id"] in finals]  # no gate is asked about a chat
    texts = [tuple(map(nfc, (row["asr_text"], finals[row["id"]], row["reference_text"]))) for row in judged]
    lengths = [[len(before) for before, _, _ in texts], [len(after) for _, after, _ in texts]]
    scored = [each for each in texts if each[2].strip()]
    edits = [
        [Levenshtein.distance(before, reference) for before, _, reference in scored],
        [Levenshtein.distance(after, reference) for _, after, reference in scored],
    ]
    of_lengths = Labels("lengths", "Lengths of the test rows", "code points", "rows")
    of_edits = Labels("edits", "Edits from a text to its reference", "code points to edit", "rows")
    return {
        "lengths": plots.bars(of_lengths, TEXTS, plots.binned(lengths)),
        "edits": plots.bars(of_edits, TEXTS, plots.binned(edits)),
    }
