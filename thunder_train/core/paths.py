"""Names of the files that stages hand to each other, below data/<dataset>/ and runs/<recipe>/."""

AUDIT = "audit.html"
"""Rendered from templates/audit.html.j2."""
DATA = ("train.jsonl", "valid.jsonl", "test.jsonl", "decisions.jsonl", "dropped.jsonl", AUDIT, "manifest.json")
SCRIPTS = ("launch.sh", "evaluate.sh")
"""Rendered from templates/<name>.j2."""
SENT = (*SCRIPTS, "hostfile.json", "recipe.toml")
"""Of a run's folder: what ranks read, or what makes the recipe the same on every machine."""
ADAPTER = ("adapter/adapters.safetensors", "adapter/adapter_config.json")
EVALUATED = ("predictions.jsonl", "decisions.jsonl", "eval.json")
REPORTS = ("report.md", "report.html")
"""Rendered from templates/<name>.j2."""
STYLE = "style.css"
"""Part of each HTML page of a run."""
MEASURED = ("preflight.json", "adapter/done.json", "metrics.jsonl", *EVALUATED)
"""What the report is made from."""
OUTPUTS = (
    "adapter/adapter_config.json",
    "adapter/adapters.safetensors",
    "adapter/done.json",
    "decisions.jsonl",
    "eval.json",
    "evaluate.sh",
    "hostfile.json",
    "launch.sh",
    "predictions.jsonl",
    "promotion.json",
)
"""Files of a run that are the same to the byte when the run is made again; the manifest lists them."""


TRAINED = (
    *ADAPTER,
    "adapter/done.json",
    "last/adapters.safetensors",
    "last/adapter_config.json",
    "metrics.jsonl",
    "timing.json",
)
"""What a training leaves: the chosen adapter, and the last one if another was better."""
