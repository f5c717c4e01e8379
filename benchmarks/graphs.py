"""Projects of any size for the benchmark: ours with the real dodo.py, and its graph as plain data for the others."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CHAIN = ("scripts", "train", "evaluate", "report", "manifest")
"""Stages that a changed learning rate remakes; hostfile and check do not read it."""

DUMP = """
import json, dodo
for name, creator in sorted(vars(dodo).items()):
    made = creator() if name.startswith("task_") else {}
    for task in [] if isinstance(made, dict) else made:
        if task.get("targets"):
            after = [other for other in task.get("task_dep", []) if other.startswith("check:")]
            parts = {"name": f"{name[5:]}:{task['name']}", "inputs": task["file_dep"], "targets": task["targets"]}
            print(json.dumps({**parts, "after": after}))
"""


@dataclass(frozen=True)
class Node:
    """One task. after: tasks that only have to come first."""

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
    """The project as it is, with `size` recipes that share dataset and model, all of them default."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("thunder_train", "templates", "data/sources"):
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    shutil.copy(PROJECT / "pyproject.toml", folder)
    shutil.copy(PROJECT / "dodo.py", folder / "pipeline.py")
    shutil.copy(PROJECT / "benchmarks" / "short_dodo.py", folder / "dodo.py")
    names = [recipe_name(number) for number in range(size)]
    settings = (PROJECT / "thunder.toml").read_text(encoding="utf-8")
    (folder / "thunder.toml").write_text(settings.replace('["smoke"]', json.dumps(names)), encoding="utf-8")
    (folder / "recipes").mkdir()
    for name in names:
        shutil.copy(PROJECT / "recipes" / "smoke.toml", folder / "recipes" / f"{name}.toml")


def read_graph(ours: Path) -> list[Node]:
    """What a bare doit builds in a project of ours; scripts gets its recipe as an input file."""
    done = subprocess.run([sys.executable, "-c", DUMP], cwd=ours, stdout=subprocess.PIPE, text=True, check=True)
    nodes = [Node(**json.loads(line)) for line in done.stdout.splitlines()]
    for node in nodes:
        if node.stage == "scripts":
            node.inputs.append(f"recipes/{node.recipe}.toml")
    used = {path for node in nodes for path in node.inputs}
    return [node for node in nodes if node.stage in ("check", "manifest") or used.intersection(node.targets)]


def write_inputs(folder: Path, ours: Path, nodes: list[Node]) -> None:
    """A folder for another tool: the same input files, and the folders of all targets."""
    folder.mkdir(parents=True)
    targets = {path for node in nodes for path in node.targets}
    for path in sorted({path for node in nodes for path in node.inputs} - targets):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ours / path, folder / path)
    for path in sorted(targets):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").write_text(json.dumps([asdict(node) for node in nodes]))


def edit_rate(folder: Path, number: int, turn: int) -> None:
    """Another learning rate in one recipe, never the same one twice."""
    recipe = folder / "recipes" / f"{recipe_name(number)}.toml"
    lines = recipe.read_text(encoding="utf-8").splitlines()
    changed = [f"learning_rate = {turn + 2}e-6" if line.startswith("learning_rate") else line for line in lines]
    recipe.write_text("\n".join(changed) + "\n", encoding="utf-8")
