"""Projects of any size for the build benchmark: ours with the real dodo.py, and its graph as data for other tools."""

import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import toml

PROJECT = Path(__file__).resolve().parent.parent
RECIPE = PROJECT / "recipes" / "smoke.toml"
"""All generated recipes are copies of it."""
CHAIN = ("scripts", "train", "evaluate", "report", "manifest")
"""Stages that run again after a change of the learning rate; hostfile and check do not read it."""

DUMP = """
import json, dodo
for name, creator in sorted(vars(dodo).items()):
    tasks = creator() if name.startswith("task_") else {}
    for task in [] if isinstance(tasks, dict) else tasks:
        if task.get("targets"):
            after = [*task.get("task_dep", [])]
            parts = {"name": f"{name[5:]}:{task['name']}", "inputs": task["file_dep"], "targets": task["targets"]}
            print(json.dumps({**parts, "after": after}))
"""
"""Prints the tasks of a project's dodo.py, one JSON object per line."""


@dataclass(frozen=True)
class Node:
    """One task. after: tasks that must run before it although it does not read their targets."""

    name: str
    inputs: list[str]
    targets: list[str]
    after: list[str]

    @property
    def stage(self) -> str:
        """The first half of its name."""
        return self.name.partition(":")[0]

    @property
    def recipe(self) -> str:
        """The second half of its name."""
        return self.name.partition(":")[2]


def recipe_name(number: int) -> str:
    """The name of a generated recipe."""
    return f"recipe-{number:03d}"


def write_ours(folder: Path, size: int) -> None:
    """A project of this package with `size` recipes that share a dataset and a model; `doit` builds all of them."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("thunder_train", "templates", "data/sources"):
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    shutil.copy(PROJECT / "pyproject.toml", folder)
    shutil.copy(PROJECT / "dodo.py", folder / "pipeline.py")
    shutil.copy(PROJECT / "benchmarks" / "short_dodo.py", folder / "dodo.py")
    names = [recipe_name(number) for number in range(size)]
    recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    _write_toml(folder / "thunder.toml", _settings(recipe, names))
    (folder / "recipes").mkdir()
    for name in names:
        _write_toml(folder / "recipes" / f"{name}.toml", recipe)


def _settings(recipe: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The project's thunder.toml, reduced to what the recipe uses, with the generated recipes as default."""
    project = tomllib.loads((PROJECT / "thunder.toml").read_text(encoding="utf-8"))
    used = {f"{key}s": {recipe[key]: project[f"{key}s"][recipe[key]]} for key in ("cluster", "model", "dataset")}
    return project | used | {"project": project["project"] | {"recipes": names}}


def _write_toml(path: Path, table: dict[str, Any]) -> None:
    text = toml.dumps(table)
    assert tomllib.loads(text) == table, f"{path}: toml.dumps lost a value"  # noqa: S101  (a benchmark, never optimised)
    path.write_text(text, encoding="utf-8")


def read_graph(ours: Path) -> list[Node]:
    """The tasks that a bare `doit` runs in one of our projects. The recipe becomes an input file of what reads it."""
    done = subprocess.run([sys.executable, "-c", DUMP], cwd=ours, stdout=subprocess.PIPE, text=True, check=True)
    nodes = [Node(**json.loads(line)) for line in done.stdout.splitlines()]
    for node in nodes:
        if node.stage in ("scripts", "train"):
            node.inputs.append(f"recipes/{node.recipe}.toml")
    used = {name for node in nodes for name in (*node.inputs, *node.after)}
    return [node for node in nodes if node.stage == "manifest" or used.intersection([node.name, *node.targets])]


def write_inputs(folder: Path, ours: Path, nodes: list[Node]) -> None:
    """A folder for another tool: the same input files, and empty folders for all targets."""
    folder.mkdir(parents=True)
    targets = {path for node in nodes for path in node.targets}
    for path in sorted({path for node in nodes for path in node.inputs} - targets):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ours / path, folder / path)
    for path in sorted(targets):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_text(json.dumps([asdict(node) for node in nodes]))


def edit_rate(folder: Path, number: int, turn: int) -> None:
    """Change the learning rate of one recipe; each turn has another value."""
    path = folder / "recipes" / f"{recipe_name(number)}.toml"
    recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    recipe["train"]["learning_rate"] = (turn + 2) * 1e-6
    _write_toml(path, recipe)
