"""The runs whose adapters a run began with: they are made again before it, by their own manifests in the project."""

import re
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.config.fields import RUN
from thunder_train.core import paths
from thunder_train.core.text import quoted
from thunder_train.reproduce import foreign, manifest
from thunder_train.reproduce.compare import first_of

PARTS = ("name", "cluster", "dataset", "model", "train", "adapter")
"""Of such a run's recipe: what its training needs. Nothing is evaluated again, so no gate of it runs."""


def behind(run: dict[str, Any], root: Path) -> tuple[list[dict[str, Any]], list[ThunderError]]:
    """The manifests of the runs that a run began with, the nearest first, and why one of them cannot be made again."""
    chain: list[dict[str, Any]] = []
    while name := first_of(run["recipe"]):
        if not re.fullmatch(RUN, name):
            return chain, [ThunderError(f"{quoted(name)} names no recipe", "recipe.train.start_from")]
        path = Path(paths.run_manifest(name))
        if any(name == each["recipe"]["name"] for each in (run, *chain)):
            return chain, [ThunderError(f"begins with itself, by {name!r}", "recipe.train.start_from")]
        if not (root / path).is_file():
            what, hint = f"is missing, and the run began with the adapter of {name!r}", f"run `./doit manifest:{name}`"
            return chain, [ThunderError(what, str(path), f"restore it with git, or {hint}")]
        try:
            first = manifest.read(root / path)
            first = {**first, "recipe": foreign.recipe_of(first, str(path))}
        except ThunderError as problem:
            return chain, [problem]
        if problems := _other_adapter(run, first, str(path)):
            return chain, problems
        first["recipe"] = {key: first["recipe"][key] for key in PARTS if key in first["recipe"]}
        chain.append(first)
        run = first
    return chain, []


def _other_adapter(run: dict[str, Any], first: dict[str, Any], path: str) -> list[ThunderError]:
    weights = paths.ADAPTER[0]
    name = f"{paths.run(first['recipe']['name'])}/{weights}"
    pinned = {entry["path"]: entry["sha256"] for entry in run["inputs"].get("start", [])}.get(name)
    made = {entry["path"]: entry["sha256"] for entry in first["outputs"]}.get(weights)
    if pinned and pinned == made:
        return []
    what = f"makes the adapter {made}, and the run began with {pinned or 'one that its manifest does not pin'}"
    return [ThunderError(what, path, "restore the manifest of then with git")]


def disagreements(runs: list[dict[str, Any]]) -> list[ThunderError]:
    """A problem for each dataset, model or cluster of one name that two of the runs describe differently."""
    problems, seen = [], dict[tuple[str, str], Any]()
    for run in runs:
        for kind in ("cluster", "dataset", "model"):
            table = run["recipe"][kind]
            facts = (table, run["model"]) if kind == "model" else table
            if seen.setdefault((kind, table["name"]), facts) != facts:
                what = f"is another {kind} {table['name']!r} than that of the run which began with its adapter"
                where = paths.run_manifest(run["recipe"]["name"])
                problems.append(ThunderError(what, where, "restore the manifests of one commit"))
    return problems
