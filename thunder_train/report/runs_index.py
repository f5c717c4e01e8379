"""The index of all runs: a sortable table, and a comparison of any two runs.

Input: runs/*/manifest.json.  Output: runs/index.html, one self-contained file; its table also works without its script.
"""

import json
import math
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from thunder_train import ThunderError
from thunder_train.core import html, paths, shipped
from thunder_train.core.html import visible
from thunder_train.report import inline_script, plots
from thunder_train.reproduce import compare, manifest

CONDITIONS = ("baseline", "adapter_blind", "adapter_gated")
"""Conditions whose error rate has a column in the table."""
MOST_POINTS = 60
"""Most points of a run's curve."""
COMPARED = ("recipe", "inputs", "model", "environment", "code", "metrics", "promotion")
"""Parts of a manifest that the page compares."""


def build(root: Path) -> str:
    """The page. An unreadable manifest is listed on it, so that one bad run does not hide the others."""
    rows, compared, problems, curves = [], {}, [], {}
    for path in sorted((root / "runs").glob("*/manifest.json")):
        name = visible(path.parent.name)
        try:
            run = manifest.read(path)
            row, compared_facts, losses = _row(name, run, path.parent), facts(run), curve(run)
            rows.append(row)
            compared[name] = compared_facts
            curves[name] = losses
        except ThunderError as problem:
            problems.append((name, str(problem).replace(str(path), paths.run_manifest(name))))
        except (KeyError, TypeError, ValueError, AttributeError):
            problems.append((name, "its metrics have another format; run `./doit` to build them again"))
    values = {
        "rows": rows,
        "problems": problems,
        "data": inline_script.as_json({**differing(compared), "curves": curves}),
        **inline_script.values(("table.js", "index.js"), root),
    }
    return html.page(shipped.place("templates/index.html.j2", root), values)


def curve(run: dict[str, Any]) -> list[tuple[float, float]]:
    """(step, validation loss) of a run, thinned: a hundred runs must not make a page of megabytes."""
    points = [(float(step), float(loss)) for step, loss in run["metrics"]["losses"].get("valid", [])]
    return [point for point in plots.thinned(points, MOST_POINTS) if math.isfinite(point[1])]


def facts(run: dict[str, Any]) -> dict[str, str]:
    """Dotted key -> value as text, for the parts of COMPARED; control characters are spelled out."""
    texts = {"run_id": run["run_id"]}
    for section in COMPARED:
        for key, value in compare.flattened(run.get(section, {})).items():
            texts[visible(f"{section}.{key}" if key else section)] = visible(_text(value))
    return texts


def differing(compared: dict[str, dict[str, str]]) -> dict[str, Any]:
    """{"runs": run -> the facts that are not equal in all runs, "same": number of the others}. Keeps the page small."""
    shared = set.intersection(*(set(run.items()) for run in compared.values())) if compared else set()
    runs = {name: {key: run[key] for key in run if (key, run[key]) not in shared} for name, run in compared.items()}
    return {"runs": runs, "same": len(shared)}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _row(name: str, run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A line of the table."""
    rates = {
        line["condition"]: _rate(line["cer"]) for line in run["metrics"]["conditions"] if line["partition"] == "all"
    }
    home = quote(os.fsencode(folder.name))  # a folder may be called javascript:...
    return {
        "name": name,
        "manifest": f"{home}/manifest.json",
        "page": f"{home}/report.html" if (folder / "report.html").is_file() else f"{home}/manifest.json",
        "run_id": visible(run["run_id"]),
        "decision": visible(run["promotion"]["decision"]),
        "rates": [(condition, rates.get(condition)) for condition in CONDITIONS],
        "loss": _rate(run["metrics"]["evaluation"]["adapter"]["valid"]["loss"]),
        "dataset": visible(run["recipe"]["dataset"]["name"]),
        "model": visible(run["recipe"]["model"]["name"]),
        "profile": visible(run["metrics"]["profile"]["name"]),
    }


def _rate(value: Any) -> float | None:
    """A number of a manifest; None where there were no rows."""
    return None if value is None else float(value)
