"""The folder of a finished run, made by the project's scoring, gate and report, without training."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.helpers.evaluations import limits
from tests.helpers.project_copy import PROJECT
from thunder_train.config import load
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.project import Recipe
from thunder_train.core import files
from thunder_train.evaluate import conditions, gate
from thunder_train.report import run_report
from thunder_train.reproduce import manifest

SHA = files.digest("adapter")
HOSTILE = "</bdi><script>document.title = 'broken in'</script><img src=x onerror=alert(1)>"
TEXTS = [
    # partition, hypothesis, reference, base, adapter
    ("boundary", "ߛߌߣߌ ߊߣ ߓߌ ߣߊ", "ߛߌߣߌ ߊߣ ߓߐ ߣߊ", "ߛߌߣߌ ߊߣ ߓߌ ߣߊ", "ߛߌߣߌ ߊߣ ߓߐ ߣߊ"),
    ("boundary", "ߊ ߓߊ߲߫ ߕߊ߯ ߟߎ ߞߐߣߐ", "ߊ ߓߍ ߕߊ߯ ߟߎ ߞߐߣߐ", "ߊ ߓߊ ߕߊ ߟߎ", "ߊ ߓߍ ߕߊ߯ ߟߎ ߞߐߣߐ"),
    ("recovery", "ߣ ߞߍߣߍ ߟߊ ߊ ߦ", "ߣ ߞߍߣߍ ߟߊ ߊ ߦߋ", "ߣ ߞߍߣߍ", "ߣ ߞߍߣߍ ߟߊ ߊ ߦߋ"),
    ("stable", "ߌ ߣߌ ߛߏߜߏߡߊ", "ߌ ߣߌ ߛߏߜߏߡߊ", "ߌ ߣߌ ߛߏߜߏߡߊ", "ߌ ߣߌ ߛߏ"),
    ("uncertain", "ߊ ߞߊ ߓߐ\u202e ߘߐ", "ߊ ߞߊ ߓߐ ߘߐ", "", "ߊ ߞߊ ߓߐ ߘߐ"),
    (HOSTILE, HOSTILE, "ߊ ߞߊ", HOSTILE, f"ߊ {HOSTILE} ߊ ߊ ߊ"),
]

ENDS = {"base_finish": "stop", "adapter_finish": "stop", "base_special": 0, "adapter_special": 0}
CHAT = [
    {
        "id": f"chat:{number}",
        "group": f"chat:{number}",
        "partition": "",
        "asr_text": "",
        "reference_text": "",
        "source": "chat",
        "witness": {},
    }
    | {"question": f"What is {number} and\n1?", "answer": f"It is {number + 1}.", "base": "", "adapter": text}
    | ENDS
    for number, text in enumerate(["It is 1.", "It is three.", HOSTILE])
]
"""Rows of predictions.jsonl that belong to a chat."""
SILENT = [
    {
        "id": f"silent:{number}",
        "group": f"silent:{number}",
        "partition": "",
        "asr_text": "",
        "reference_text": "",
        "source": "in",
        "witness": {},
    }
    | {"base": base, "adapter": "", "silent": True}
    | ENDS
    | {"base_finish": finish}
    for number, (base, finish) in enumerate([("ߊ ߓߊ", "stop"), ("", "thinking")])
]
"""Rows in which nothing was said; the base invents a text, and does not end its thoughts."""


def smoke(root: Path) -> Recipe:
    """The project's smoke recipe, in a project that has no other recipe."""
    text = (PROJECT / "thunder.toml").read_text(encoding="utf-8")
    files.write_text(root / "thunder.toml", re.sub(r"(?m)^recipes = .*$", 'recipes = ["smoke"]', text))
    files.write_text(root / "recipes" / "smoke.toml", (PROJECT / "recipes" / "smoke.toml").read_text(encoding="utf-8"))
    return load.load(root).recipes["smoke"]


def predictions(texts: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Rows of predictions.jsonl."""
    names = ("partition", "asr_text", "reference_text", "base", "adapter")
    ends = {"base_finish": "stop", "adapter_finish": "stop", "base_special": 0, "adapter_special": 0}
    rows = (dict(zip(names, text, strict=True)) for text in texts)
    return [
        {"id": f"in:{at}", "group": f"in:{at}", "source": "in", "witness": {}, **row, **ends}
        for at, row in enumerate(rows)
    ]


def many(count: int) -> list[dict[str, Any]]:
    """So many rows, five of each group, of two sources; every third one is N'Ko, and every fourth is corrected."""
    letters, partitions = ("ߊߓߔߕߖ", "abcde", "مرحبا"), ("boundary", "uncertain", "recovery", "stable")
    texts = []
    for at in range(count):
        words = [letters[at % 3][: 1 + (at + word) % 5] for word in range(3 + at % 17)]
        reference, noisy = " ".join(words), " ".join(words[1:])
        adapter = reference if at % 4 == 0 else noisy
        texts.append((partitions[at % 4], noisy, reference, noisy, adapter))
    rows = predictions(texts)
    return [row | {"group": f"speaker {at // 5}", "source": f"source {at % 2}"} for at, row in enumerate(rows)]


def metrics(steps: int) -> list[dict[str, Any]]:
    """metrics.jsonl of a training of so many steps."""
    train = {"event": "train", "tokens": 40, "computed_tokens_per_second": 1294.3, "skew_s": 0.0544, "seconds": 1.0}
    events = [
        train | {"step": step, "loss": 6 / step, "target_tokens_per_second": 200.0 + step % 3 * 40}
        for step in range(1, steps + 1)
    ]
    return [*events, {"event": "save", "seconds": 0.5, "step": steps}]


def finished(
    root: Path,
    texts: list[tuple[str, ...]] = TEXTS,
    steps: int = 4,
    rows: list[dict[str, Any]] | None = None,
    given: Evaluate | None = None,
    **losses: Any,
) -> Recipe:
    """A run's folder below root, up to the evaluation, and the templates; its recipe.

    rows: of predictions.jsonl, instead of the texts. given: another [evaluate]. losses: changed members of losses.json.
    """
    recipe = smoke(root)
    run, data = root / "runs" / recipe.name, root / "data" / recipe.dataset.name
    shutil.copytree(PROJECT / "templates", root / "templates")
    rows = predictions(texts) if rows is None else rows
    measured: dict[str, Any] = {
        model: {split: {"loss": loss, "perplexity": 99.5, "tokens": 77, "dropped": 0} for split in ("valid", "test")}
        for model, loss in (("base", 6.25), ("adapter", 1.5))
    }
    settings = replace(given or recipe.evaluate, probe=limits())  # the recipe's own limits allow everything
    measured |= {"environment": {"mlx": "0.32.4"}, "adapter_sha256": SHA} | losses
    judged, scored = conditions.judge(rows, {}, measured, settings, "recipes/smoke.toml")
    for name, value in (("eval.json", scored), ("preflight.json", PREFLIGHT), ("adapter/done.json", done(steps))):
        files.write_json(run / name, value)
    files.write_text(run / "predictions.jsonl", "".join(map(files.json_line, rows)))
    files.write_text(run / "decisions.jsonl", gate.as_jsonl(judged))
    files.write_text(run / "metrics.jsonl", "".join(map(files.json_line, metrics(steps))))
    files.write_json(run / "timing.json", TIMING)
    files.write_json(data / "manifest.json", DATA)
    files.write_text(data / "dropped.jsonl", "")
    files.write_json(root / "runs" / "models" / recipe.model.name / "model.lock.json", LOCK)
    for name in ("launch.sh", "evaluate.sh", "hostfile.json", "recipe.toml"):
        files.write_text(run / name, "")
    for name in ("adapters.safetensors", "adapter_config.json"):
        files.write_text(run / "adapter" / name, "")
    files.write_text(data / "audit.html", "")
    return recipe


def reported(root: Path, texts: list[tuple[str, ...]] = TEXTS, steps: int = 4, **given: Any) -> Path:
    """report.html of such a run, written, with promotion.json, report.md and manifest.json beside it."""
    recipe = finished(root, texts, steps, **given)
    run, folder, results = root / "runs" / recipe.name, root / "templates", run_report.gather(recipe, root)
    decision = run_report.decide(results)
    files.write_json(run / "promotion.json", decision)
    files.write_text(run / "report.md", run_report.markdown_page(results, decision, folder))
    files.write_text(run / "report.html", run_report.html_page(results, decision, folder))
    files.write_json(run / "manifest.json", manifest.build(recipe, root, {"train": "0" * 64}, {}))
    return run / "report.html"


def copied(root: Path, name: str, **changes: float) -> None:
    """Copy the manifest of that run to another run. changes: of keys of its [train]."""
    run = files.read_json(root / "runs" / "smoke" / "manifest.json")
    run["recipe"]["train"] |= changes
    run["run_id"] = manifest.run_id_of(run)
    files.write_json(root / "runs" / name / "manifest.json", run)


TIMING = {"seconds": 5400.5, "machine": "macOS", "ended": "2026-04-21T09:30+00:00", "commit": "0123456789ab"}
PREFLIGHT = {
    "backend": "ring",
    "hosts": [{"host": "localhost", "usable_memory_bytes": 24e9, "free_disk_bytes": 74e9, "clock_skew_s": 0.0}],
    "links": [
        {"from": "mac4", "to": "mac5", "address": "10.0.5.2", "interface": "bridge0, Thunderbolt Bridge"}
        | {"is_needed": True, "latency_ms": 0.52, "bytes_per_second": 2_400_000_000}
    ],
    "ranks": [
        {
            "rank": rank,
            "host": "127.0.0.1",
            "size": 2,
            "all_sum": True,
            "seconds": 0.099,
            "bytes_per_second": 134_000_000,
        }
        | {"mlx": "0.32.4", "mlx_lm": "0.32.2", "python": "3.11", "platform": "linux-x86_64"}
        for rank in (0, 1)
    ],
}
DATA = {
    "dataset": "agp-nko-corrections",
    "evidence_kinds": ["smoke", "synthetic"],
    "sources": [{"evidence_kind": "smoke", "files": [{"path": "data/sources/a.json", "sha256": "a" * 64, "rows": 26}]}],
    "templates": [{"path": "templates/prompts/correct.j2", "sha256": "b" * 64}],
    "dropped": {"exact duplicate": 1},
    "splits": {name: {"rows": rows, "sha256": "c" * 64} for name, rows in (("train", 16), ("valid", 4), ("test", 6))},
}
LOCK = {"kind": "nano", "files": [{"path": "model.safetensors", "sha256": "d" * 64, "bytes": 4}]}


def done(steps: int) -> dict[str, Any]:
    """done.json of a training."""
    return {
        "world_size": 2,
        "strategy": "data",
        "rows_per_step": 2,
        "packed": True,
        "steps": steps,
        "skipped_steps": 0,
        "skipped_validations": 0,
        "chosen": {"rule": "best", "step": steps},
        "best": {"loss": 1.5, "step": steps},
        "trainable_parameters": 31744,
        "parameters": 238592,
        "rows": {"train": 16, "valid": 4},
        "split": {"train": 0, "valid": 0},
        "tokens": {"train": 2944, "train_targets": 251, "valid": 764, "valid_targets": 77},
        "adapter": {"sha256": SHA, "bytes": 132584, "tensors": "e" * 64},
        "environment": {"mlx": "0.32.4", "mlx_lm": "0.32.2", "platform": "linux-x86_64", "python": "3.11"},
        "losses": {
            "train": [[step, 6 / step] for step in range(1, steps + 1)],
            "valid": [[0, 6.6], *([step, 6.5 / step] for step in range(2, steps + 1, 2))],
        },
    }
