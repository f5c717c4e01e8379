"""Which of our own modules decide a stage's output, and a hash of what each does.

A stage names the module it starts from; everything that module imports of the package counts too, so that no list has
to be kept by hand and no change can be missed.
"""

import ast
import os
from functools import cache, partial
from pathlib import Path

from thunder_train import files
from thunder_train.stats import StatCache

PACKAGE = Path(__file__).parent


@cache
def digest(starts: tuple[str, ...], stats: StatCache) -> str:
    """One hash over `hashes`."""
    return files.digest(hashes(starts, stats))


@cache
def hashes(starts: tuple[str, ...], stats: StatCache) -> dict[str, str]:
    """{path in the project: sha256 of its syntax tree} for modules as `worker.loop` and all that they import.

    `runs:train` is one function of runs.py, without what that file imports.
    """
    seen: dict[str, str] = {}
    waiting = [f"thunder_train.{start}" for start in starts if ":" not in start]
    while waiting:
        path = _path(waiting.pop())
        if path and path not in seen:
            seen[path] = stats.memo("code", path, files.code_digest)
            waiting += stats.memo("imports", path, _imports).split()
    root = os.path.relpath(PACKAGE.parent)
    found = {os.path.relpath(path, root): seen[path] for path in sorted(seen)}
    for module, _, name in (start.partition(":") for start in starts if ":" in start):
        path = os.path.relpath(PACKAGE / f"{module}.py")
        found[f"thunder_train/{module}.py: {name}"] = stats.memo(f"function {name}", path, partial(_function, name))
    return found


def _function(name: str, path: Path) -> str:
    return files.code_digest(path, name)


def _path(module: str) -> str | None:
    """A module of the package as a path from here; None for a name inside one."""
    place = PACKAGE.parent / module.replace(".", "/")
    for candidate in (place.with_suffix(".py"), place / "__init__.py"):
        if candidate.is_file():
            return os.path.relpath(candidate)
    return None


def _imports(path: Path) -> str:
    """Names that a file imports of the package, space-separated; also those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return " ".join(sorted(name for name in names if name.partition(".")[0] == "thunder_train"))
