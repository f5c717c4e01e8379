"""The identity of a run, and the manifest that lets anyone make it again.

Reads what the stages left in runs/<recipe>/; writes manifest.json: sorted, with no time, host name or absolute path.
"""

from pathlib import Path
from typing import Any

from thunder_train import files
from thunder_train.config import Recipe, section
from thunder_train.render import launch_flags

OUTPUTS = (
    "adapter/adapter_config.json",
    "adapter/adapters.safetensors",
    "adapter/done.json",
    "eval.json",
    "evaluate.sh",
    "hostfile.json",
    "launch.sh",
    "predictions.jsonl",
    "promotion.json",
)
"""Files of a run that are the same to the byte when the run is made again."""


def run_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as the manifest holds it: all that decides numbers, and no host's name or address."""
    table = section(recipe)
    for key in ("file", "description", "dataset", "model"):
        del table[key]
    cluster = recipe.cluster
    table["cluster"] = {"name": cluster.name, "backend": cluster.backend, "ranks": len(cluster.hosts)}
    table |= {"dataset": recipe.dataset.name, "model": recipe.model.name}
    return table


def identity(recipe: Recipe, root: Path) -> dict[str, Any]:
    """What the run is made from, and run_id: 12 hex digits of the sha256 over exactly that.

    The environment is the one that the training wrote down itself.
    """
    data = files.read_json(root / "data" / recipe.dataset.name / "manifest.json")
    made_from = {
        "recipe": run_recipe(recipe),
        "inputs": {
            "dataset": data["dataset"],
            "sources": data["sources"],
            "splits": {name: {key: split[key] for key in ("rows", "sha256")} for name, split in data["splits"].items()},
            "evidence_kinds": data["evidence_kinds"],
        },
        "model": files.read_json(root / "runs" / "models" / recipe.model.name / "model.lock.json"),
        "environment": files.read_json(root / "runs" / recipe.name / "adapter" / "done.json")["environment"],
    }
    return {**made_from, "run_id": files.digest(made_from)[:12]}


def build(recipe: Recipe, root: Path) -> dict[str, Any]:
    """The run's manifest. Raises ThunderError when a stage's file is missing."""
    run = root / "runs" / recipe.name
    done = files.read_json(run / "adapter" / "done.json")
    evaluation = files.read_json(run / "eval.json")
    return {
        "schema": "thunder.run/1",
        **identity(recipe, root),
        "command": ["bash", f"runs/{recipe.name}/launch.sh"],
        "flags": dict(launch_flags(recipe)),
        "outputs": [_output(run, name, done) for name in OUTPUTS],
        "metrics": {
            "losses": done["losses"],
            "trainable_parameters": done["trainable_parameters"],
            "tokens": done["tokens"],
            "evaluation": evaluation["losses"],
            "conditions": evaluation["conditions"],
            "profile": evaluation["profile"],
        },
        "promotion": files.read_json(run / "promotion.json"),
    }


def _output(run: Path, name: str, done: dict[str, Any]) -> dict[str, Any]:
    path = files.require(run / name, mend=f"run `./doit manifest:{run.name}`")
    facts: dict[str, Any] = {"path": name, "sha256": files.sha256(path), "bytes": path.stat().st_size}
    return facts | ({"tensors": done["adapter"]["tensors"]} if name.endswith("adapters.safetensors") else {})
