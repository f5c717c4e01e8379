"""DESIGN's import table as a test: which module may know which, and what `import dodo` may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "thunder_train"
LEAVES = {
    "__init__",
    "config",
    "config_evaluate",
    "files",
    "keys",
    "layout",
    "schema",
    "schema_data",
    "schema_evaluate",
    "schema_train",
}
"""What any module may import; every other arrow is listed."""
ARROWS: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    # The machine underneath.
    "process": set(),
    "stats": set(),
    "cache": set(),
    "code": {"stats"},
    "state": {"stats"},
    "build": {"cache", "code", "process", "stats"},
    "console": {"actions", "build"},
    "why": {"build"},
    # The project, read.
    "checks": set(),
    "contradictions": set(),
    "load": {"checks", "code", "contradictions", "stats"},
    "reference": set(),
    # The rooms of the stages.
    "rows": set(),
    "streams": {"rows"},
    "jsontext": set(),
    "tables": {"streams"},
    "readers": {"jsontext", "rows", "streams", "tables"},
    "fieldmap": {"readers", "rows", "streams"},
    "join": {"fieldmap", "readers", "rows", "streams"},
    "reports": {"fieldmap", "jsontext", "readers", "rows", "streams", "tables"},
    "sources": {"fieldmap", "join", "readers", "reports", "rows", "streams"},
    "alphabet": set(),
    "orthography": {"alphabet"},
    "neighbours": set(),
    "parting": {"neighbours"},
    "compose": {"alphabet", "orthography", "readers", "rows"},
    "shelf": set(),
    "progress": set(),
    "tally": {"compose", "parting", "rows"},
    "gather": {"compose", "neighbours", "parting", "progress", "rows", "shelf", "sources", "tally"},
    "facts": {"gather", "neighbours", "orthography", "parting"},
    "audit": set(),
    "dataset": {
        "alphabet",
        "audit",
        "compose",
        "facts",
        "fieldmap",
        "gather",
        "join",
        "jsontext",
        "neighbours",
        "orthography",
        "parting",
        "readers",
        "reports",
        "rows",
        "shelf",
        "sources",
        "streams",
        "tables",
    },
    "models": {"process"},
    "cluster": {"ssh"},
    "render": set(),
    "terminal": set(),
    "backends": set(),
    "pulse": set(),
    "rank": {"ssh"},
    "actions": {"commands", "fit", "gate", "hosts", "process", "replay", "reproduce", "sync"},
    "ssh": set(),
    "attempt": {"pulse", "rank", "ssh", "terminal"},
    "columns": set(),
    "session": {"columns", "ssh"},
    "links": {"session"},
    "readiness": {"fit", "models", "session"},
    "hosts": {"session", "toml_text"},
    "preflight": {"cluster", "columns", "fit", "links", "readiness", "session"},
    "there": set(),
    "remote": {"ssh", "there"},
    "needs": {"models", "stats"},
    "relay": {"links", "session"},
    "sync": {"needs", "relay", "remote", "session", "stats", "there"},
    "mirror": {"remote"},
    "mpi": {"session"},
    "launch": {"attempt", "backends", "mpi", "pulse", "rank", "session", "ssh", "terminal"},
    "profiles": set(),
    "intervals": set(),
    "examples": {"profiles"},
    "probe": {"profiles"},
    "external_gate": {"process", "rows"},
    "gate": {"external_gate"},
    "replay": {"external_gate", "gate"},
    "scores": {"examples", "gate", "intervals", "probe", "profiles"},
    "promotion": set(),
    "toml_text": set(),
    "manifest": {"render"},
    "report": {"gate", "manifest", "probe", "render"},
    "plots": set(),
    "page": {"audit", "plots", "profiles"},
    "index": {"audit", "compare", "manifest"},
    # A run made again.
    "compare": set(),
    "reproduce": {"checks", "compare", "load", "manifest", "process", "toml_text"},
    "commands": {"columns", "compare", "manifest", "process", "reproduce"},
    "fit": {"models", "process", "render"},
    # The halls: where things lie, and what is done there.
    "graph": {"build", "code", "external_gate", "models", "runs"},
    "runs": {
        "cluster",
        "contradictions",
        "dataset",
        "gate",
        "graph",
        "index",
        "manifest",
        "mirror",
        "models",
        "page",
        "preflight",
        "probe",
        "process",
        "promotion",
        "render",
        "report",
        "scores",
        "sync",
        "toml_text",
    },
}
HEAVY = {"mlx", "mlx_lm", "numpy", "matplotlib", "pyarrow", "transformers", "torch", "huggingface_hub"}


def imports(path: Path) -> set[str]:
    """Full names that a file imports at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> set[str]:
    """Modules of the package that a file imports, by their first name."""
    inner = [name.split(".")[1] for name in imports(path) if name.startswith("thunder_train.")]
    return {name for name in inner if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_only_leaves_and_its_listed_neighbours(path: Path) -> None:
    """
    Rooms do not open onto each other; the hall joins them. A new arrow belongs in the table first.
    """
    assert path.stem in ARROWS, f"add {path.stem} to the table, with what it may import"

    assert rooms(path) - LEAVES - {path.stem} <= ARROWS[path.stem]


@pytest.mark.parametrize("path", sorted((PACKAGE / "worker").glob("*.py")), ids=lambda path: path.stem)
def test_a_worker_imports_only_leaves_and_workers(path: Path) -> None:
    """
    Workers know flags and files, never recipes, TOML or doit.
    """
    allowed = {"__init__", "files", "worker"}

    assert rooms(path) <= allowed


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_only_workers_import_mlx(path: Path) -> None:
    """
    Every other command must start in a fraction of a second.
    """
    assert not {name.partition(".")[0] for name in imports(path)} & {"mlx", "mlx_lm"}


def test_no_room_imports_doit() -> None:
    """
    The engine is joined at its extension points and nowhere else: actions, state, console, commands.
    """
    users = {path.stem for path in PACKAGE.rglob("*.py") if any(one.startswith("doit") for one in imports(path))}

    assert {"actions", "build", "commands", "console", "state", "why"} >= users


def test_import_dodo_loads_nothing_heavy() -> None:
    """
    mlx-lm alone takes two seconds to import, and every `doit` imports dodo.
    """
    code = "import sys, dodo; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert set() == HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("path", sorted([*PACKAGE.rglob("*.py"), PROJECT / "dodo.py"]), ids=lambda path: path.stem)
def test_files_stay_short(path: Path) -> None:
    """
    A file over 250 lines means a missing room; dodo.py is a table of contents.
    """
    limit = 150 if path.name == "dodo.py" else 250

    assert limit >= len(path.read_text(encoding="utf-8").splitlines())
