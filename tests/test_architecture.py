"""The import list of docs/architecture.md as a test: which package may know which, and what `import dodo` may cost."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT

PACKAGE = PROJECT / "thunder_train"
LOWER = {
    "core": set(),
    "config": {"core"},
    "build": {"core"},
    "models": {"core", "config"},
    "data": {"core", "config"},
    "evaluate": {"core", "config"},
    "agent": {"core", "config"},
    "launch": {"core", "config", "models", "agent"},
    "cluster": {"core", "config", "models", "agent", "launch"},
    "reproduce": {"core", "config", "evaluate", "launch"},
    "report": {"core", "config", "evaluate", "launch", "reproduce"},
    "pipeline": set(),
    "cli": {"pipeline"},
    "worker": {"core", "config.fields", "config.train", "config.evaluate"},
}
"""What each package may import besides itself and the root, ThunderError."""
ABOVE_ALL = {
    "core",
    "config",
    "build",
    "models",
    "data",
    "evaluate",
    "agent",
    "launch",
    "cluster",
    "reproduce",
    "report",
}
LOWER["pipeline"] |= ABOVE_ALL
LOWER["cli"] |= ABOVE_ALL
LOWER["dodo"] = {"pipeline", "build", "cli", "config", "core"}
ON_HOSTS = {"main", "files", "interfaces", "link", "mpi_holder"}
"""Modules of agent/ that run on a host's own Python, without an environment."""
DOIT = {"build.stage", "build.state", "build.reporter", "build.explain", "cli.commands", "cli.tasks"}
DOIT |= {
    "cli.program",
    "cli.doit_commands",
    "cli.completion",
    "cli.prune",
    "cli.accept",
    "cli.exchange",
    "cli.init",
    "cli.runs",
    "dodo",
}
"""The modules at doit's extension points."""
HEAVY = {
    "mlx",
    "mlx_lm",
    "numpy",
    "matplotlib",
    "pyarrow",
    "transformers",
    "torch",
    "huggingface_hub",
    "jinja2",
    "rich",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """A module's name below thunder_train, as `worker.train.loop`; "" for the root."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Full names that a file imports at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, as `core.files`; the root is left out."""
    known = {name_of(each) for each in MODULES} - {""}
    names = {name.removeprefix("thunder_train.") for name in imports(path) if name.startswith("thunder_train.")}
    return {next((each for each in (name, name.rpartition(".")[0]) if each in known), "") for name in names} - {""}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_package_imports_only_those_below_it(path: Path) -> None:
    """
    Imports go one way, down the list, so that a reader knows where to look and a change what it can reach.
    """
    package = name_of(path).partition(".")[0]
    allowed = LOWER.get(package, set()) | {package}

    assert set() == {name for name in own_imports(path) if not allowed & {name, name.partition(".")[0]}}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_worker_imports_mlx(path: Path) -> None:
    """
    Every other command must start in a fraction of a second.
    """
    is_worker = name_of(path).startswith("worker")

    assert is_worker or not {name.partition(".")[0] for name in imports(path)} & {"mlx", "mlx_lm"}


@pytest.mark.parametrize("name", sorted(ON_HOSTS))
def test_what_runs_on_a_host_needs_only_the_standard_library(name: str) -> None:
    """
    A host may have no environment yet: sync makes it.
    """
    found = imports(PACKAGE / "agent" / f"{name}.py")
    others = {each.partition(".")[0] for each in found} - {*sys.stdlib_module_names, "thunder_train"}

    assert set() == others
    assert {"agent"} >= {each.partition(".")[0] for each in own_imports(PACKAGE / "agent" / f"{name}.py")}


def test_only_its_entry_point_imports_the_training() -> None:
    """
    What decides a training's numbers is the training's alone: nothing else of the worker changes with it.
    """
    users = {name_of(path) for path in MODULES if any(name.startswith("worker.train.") for name in own_imports(path))}

    assert {"worker.__main__"} == {name for name in users if not name.startswith("worker.train")}


def test_no_module_imports_itself_through_another() -> None:
    """
    A circle has no first file to read.
    """
    TopologicalSorter({name_of(path): own_imports(path) for path in MODULES}).prepare()


def test_only_the_extension_points_import_doit() -> None:
    """
    The engine is joined where doit offers it and nowhere else: tasks, state, reporter, commands.
    """
    users = {name_of(path) for path in MODULES if any(name.startswith("doit") for name in imports(path))}

    assert users <= DOIT


def test_import_dodo_loads_nothing_heavy() -> None:
    """
    mlx-lm alone takes two seconds to import, and every `doit` imports dodo.
    """
    code = "import sys, dodo; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert set() == HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("path", [*MODULES, PROJECT / "dodo.py"], ids=lambda path: str(path.relative_to(PROJECT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    """
    A file of more than 400 lines hides a second subject, a function of more than 40 a second step.
    """
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]

    assert (150 if path == PROJECT / "dodo.py" else 400) >= len(text.splitlines())
    assert [] == [each.name for each in functions if (each.end_lineno or 0) - each.lineno >= 40]


def test_the_map_names_every_file_and_no_other() -> None:
    """
    A map with a missing house sends a reader the wrong way.
    """
    text = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Every file")[2].partition("## Where")[0]
    listed = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", section))
    files = {str(path.relative_to(PACKAGE)) for path in MODULES if path.parent == PACKAGE or path.name != "__init__.py"}

    assert files == listed
