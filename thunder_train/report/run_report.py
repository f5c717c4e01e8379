"""The report of a run: the promotion decision, report.md and report.html.

Input: the files that the earlier stages wrote.  Output: promotion.json, and the same results as a short Markdown page
and as one self-contained HTML page with figures, tables and example rows.  Equal inputs give equal bytes.
Rows are untrusted text: the templates show them only through core/html.py and the escaping of core/templates.py.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from thunder_train.config.evaluate import Evaluate
from thunder_train.config.project import Recipe
from thunder_train.config.train import DEFAULTS, flag_of
from thunder_train.core import files, html, paths, templates
from thunder_train.evaluate import behind, collapse, gate, looks, promotion
from thunder_train.evaluate.conditions import ALL
from thunder_train.launch import scripts
from thunder_train.report import alignment, breakdown, examples, figures, inline_script, page_rows, row_table
from thunder_train.report.page_rows import CHAT, Row
from thunder_train.reproduce import manifest

TEMPLATES = Path("templates")
SCRIPTS = ("report/page.js", "table.js", "report/rows.js")
"""Below TEMPLATES; without rows the first alone."""
CONDITIONS = {
    "baseline": "the recogniser's text, unchanged",
    "base_blind": "every answer of the base model, without a gate",
    "adapter_blind": "every answer of the adapter, without a gate",
    "adapter_gated": "the adapter's answer where the gate accepts it, else the recogniser's text",
    "oracle_gated": "the best text that the gate would accept",
}
"""Condition of eval.json -> the text that it scores."""


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
    dropped: list[dict[str, Any]]
    """dropped.jsonl of the dataset"""
    accepted: list[str]
    """What was accepted of the run's stages, in sentences."""
    has_known_rows: bool = True
    """Whether all trainings behind the adapter read the training rows of this dataset."""
    timing: dict[str, Any] = field(default_factory=dict)
    """timing.json; empty for an adapter from elsewhere"""
    look: int = 1
    """Which look at the test rows the evaluation was."""


def gather(recipe: Recipe, root: Path, accepted: Sequence[str] = ()) -> Results:
    """Read each file of a run once. root: the project's folder. Raises ThunderError if a file is missing.

    accepted: what was accepted of the run's stages, in sentences.
    """
    run, dataset = root / paths.run(recipe.name), root / paths.dataset_manifest(recipe.dataset.name)
    evaluation, done = files.read_json(run / "eval.json"), files.read_json(run / "adapter" / "done.json")
    return Results(
        recipe=recipe,
        run_id=manifest.identity(recipe, root)["run_id"],
        dataset=files.read_json(dataset),
        dataset_sha256=files.sha256(dataset),
        model=files.read_json(root / paths.model_lock(recipe.model.name)),
        preflight=files.read_json(run / "preflight.json"),
        done=done,
        metrics=[] if recipe.is_imported else files.read_jsonl(run / "metrics.jsonl"),
        evaluation=evaluation,
        predictions=files.read_jsonl(run / "predictions.jsonl"),
        decisions=gate.read(run / gate.FILE).decisions,
        dropped=files.read_jsonl(dataset.with_name("dropped.jsonl")),
        accepted=[*accepted],
        has_known_rows=_has_known_rows(done, root),
        timing={} if recipe.is_imported else files.read_json(run / "timing.json"),
        look=looks.number(root, evaluation.get("test_sha256", ""), evaluation["adapter_sha256"]),
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
        recipe.name, results.run_id, results.dataset_sha256, results.model, results.has_known_rows, results.look
    )
    rows = behind.Rows(results.predictions, results.decisions, results.dropped)
    facts = (results.evaluation, results.dataset, results.done)
    return promotion.decide(*facts, recipe.promotion, run, recipe.evaluate, rows)


def markdown_page(results: Results, decision: dict[str, Any], folder: Path = TEMPLATES) -> str:
    """report.md. decision: the content of promotion.json.  folder: of the template."""
    return templates.markdown(folder / "report.md.j2", _values(results, decision))


def html_page(results: Results, decision: dict[str, Any], folder: Path = TEMPLATES) -> str:
    """report.html. decision: the content of promotion.json.  folder: of the template."""
    recipe, evaluation = results.recipe, results.evaluation
    rows = page_rows.of(results.predictions, results.decisions, evaluation)
    reasons = examples.reasons(decision, rows)
    values = {
        **_values(results, decision),
        "home": {"data": f"../../data/{recipe.dataset.name}", "model": f"../models/{recipe.model.name}"},
        "reasons": reasons,
        "behind": examples.behind(reasons),
        "shown_rows": examples.SHOWN,
        "pivot": breakdown.pivot(evaluation["conditions"]),
        "conditions": CONDITIONS,
        "behaviours": behaviours(evaluation),
        "environment": ", ".join(f"{name} {value}" for name, value in sorted(results.done["environment"].items())),
        "figures": figures.all_of(results.done, results.metrics, evaluation, rows),
        "code_points": code_points,
        "aligned": alignment.aligned,
        "flags": flags(recipe),
        "table": inline_script.as_json(row_table.of(rows)),
        "table_rows": len(rows),
        "table_most": row_table.MOST,
        **_examples(rows, evaluation),
        **inline_script.values(SCRIPTS if rows else SCRIPTS[:1], folder.parent),
    }
    return html.page(folder / "report.html.j2", values)


def _examples(rows: Sequence[Row], evaluation: dict[str, Any]) -> dict[str, Any]:
    """Rows to read, confusions and parts of the test rows. Where no row has a hypothesis, parts are those of a chat."""
    confusions = examples.confusions(rows)
    scored = [row for row in rows if row.before]
    judged = [row for row in scored if row.kind != CHAT]
    slices, profile = (judged, page_rows.profile_of(evaluation)) if judged else (scored, page_rows.CHAT_PROFILE)
    parts = (
        ("length", "length, in code points", breakdown.by_length(slices, profile)),
        ("source", "source", breakdown.by(slices, profile, lambda row: row.source)),
        ("group", "group", breakdown.by(slices, profile, lambda row: row.group)),
    )
    return {
        "examples": {
            "harmed": examples.harmed(rows),
            "improved": examples.improved(rows),
            "rejected": examples.wrongly_rejected(rows),
        },
        "answer_examples": {
            kind: examples.named(rows, [each["id"] for each in given])
            for kind, given in evaluation.get("answers", {}).get("examples", {}).items()
        },
        "confusions": examples.frequent(confusions),
        "introduced": examples.introduced(confusions),
        "parts": [part for part in parts if len(part[2]) > 1],
        "part_rate": figures.rate_name(evaluation) if judged else "CER",
        "most": breakdown.MOST,
        "described": [name for name in ("partition", "source", "group") if _groups(rows, name)],
    }


def _values(results: Results, decision: dict[str, Any]) -> dict[str, Any]:
    """The values that both templates use."""
    overall = [line for line in results.evaluation["conditions"] if line["partition"] == ALL]
    evaluation, report = results.evaluation, results.recipe.report
    counts = evaluation["rows"]
    return {
        "recipe": results.recipe,
        "report": report,
        "has_boundary": bool(report.use_for or report.do_not or report.bridge or report.bridge_note),
        "run_id": results.run_id,
        "is_judged": bool(results.decisions),
        "silence": evaluation.get("silence"),
        "answers": evaluation.get("answers"),
        "answers_line": _answers_line(evaluation),
        "text_rows": counts.get("text", 0),
        "losses": losses_shown(evaluation),
        "unscored": "" if counts["scored"] else promotion.why_unscored(counts),
        "rate_name": figures.rate_name(evaluation),
        "thinking": collapse.thinking(evaluation["probe"]),
        "data": results.dataset,
        "evidence": results.dataset["evidence_kinds"],
        "preflight": results.preflight,
        "done": results.done,
        "cost": cost(results),
        "evaluation": evaluation,
        "promotion": decision,
        "overall": overall,
        "accepted": results.accepted,
        "by_condition": {line["condition"]: line for line in overall},
        "tokens_per_second": figures.tokens_per_second(results.metrics),
    }


def _groups(rows: Sequence[Row], name: str) -> bool:
    """Whether a member of the rows tells some of them apart, and joins others."""
    return 1 < len({getattr(row, name) for row in rows}) < len(rows)


def _answers_line(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What decides why the scores of answers have no interval, as in a line of the conditions."""
    answers = evaluation.get("answers", {})
    return {"n": answers.get("rows", 0), "too_few_groups": True}


def cost(results: Results) -> dict[str, str]:
    """What the training took, as far as it is known: name -> text."""
    timing = results.timing
    hosts = ", ".join(dict.fromkeys(str(each["host"]) for each in results.preflight["hosts"]))
    known = {
        "date": str(timing.get("ended", "")).replace("T", " ").replace("+00:00", " UTC"),
        "duration": duration(timing["seconds"]) if "seconds" in timing else "",
        "hosts": hosts,
        "commit": str(timing.get("commit", "")),
    }
    return {name: text for name, text in known.items() if text}


def duration(seconds: float) -> str:
    """ "47 s", "12 min", "3 h 05 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def flags(recipe: Recipe) -> list[tuple[str, str, bool]]:
    """(flag, value as a shell word, whether the recipe gives it another value than the default)."""
    script = recipe.scripts[0]
    changed = {flag_of(name): getattr(recipe.train, name) != default for name, default in DEFAULTS.items()}
    if script != "launch.sh":
        changed |= {flag_of(key.name): getattr(recipe.evaluate, key.name) != key.default for key in fields(Evaluate)}
    given = scripts.flags_of(recipe, script)
    return [(flag, shlex.quote(str(value)), changed.get(flag, False)) for flag, value in given]


def losses_shown(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The losses at the head of a report: {"name", "base", "adapter"}; of the test rows where no row validates."""
    split, name = ("valid", "Validation loss")
    if evaluation["losses"]["adapter"]["valid"]["loss"] is None:
        split, name = ("test", "Test loss")
    return {"name": name} | {model: evaluation["losses"][model][split]["loss"] for model in collapse.MODELS}


def behaviours(evaluation: dict[str, Any]) -> dict[str, str]:
    """Counter of the probe -> predicate, for the counters that this evaluation has."""
    names = {**collapse.BEHAVIOURS, collapse.THINKING: "were still thinking when they ended"}
    if not evaluation["rows"]["scored"] and "answers" in evaluation:
        names["copied"] = "copy the question"
    probe = evaluation["probe"]
    return {name: what for name, what in names.items() if any(name in probe[model] for model in collapse.MODELS)}


def code_points(text: str) -> str:
    """ "U+07CA U+07F2": names a lone mark, which no font shows well."""
    return " ".join(f"U+{ord(character):04X}" for character in text)
