"""Which of our own modules decide a stage's output, and a hash of what each does.

A stage names the modules it starts from; everything they import of the package counts too, so no list is kept by hand
and no change is missed. Imports below `if TYPE_CHECKING:` do not count: they never run.
"""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from thunder_train.core import files
from thunder_train.core.stat_cache import StatCache

PACKAGE = Path(__file__).parent.parent


@cache
def digest(starts: tuple[str, ...], stats: StatCache) -> str:
    """One hash over `hashes`."""
    return files.digest(hashes(starts, stats))


@cache
def hashes(starts: tuple[str, ...], stats: StatCache) -> dict[str, str]:
    """{path in the project: sha256 of its syntax tree} for modules as `worker.loop` and all that they import."""
    seen: dict[str, str] = {}
    waiting = [f"thunder_train.{start}" for start in starts]
    while waiting:
        path = _path(waiting.pop())
        if path and path not in seen:
            seen[path] = stats.memo("code", path, files.code_digest)
            waiting += stats.memo("imports", path, _imports).split()
    root = os.path.relpath(PACKAGE.parent)
    return {os.path.relpath(path, root): seen[path] for path in sorted(seen)}


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
    for node in _running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return " ".join(sorted(name for name in names if name.partition(".")[0] == "thunder_train"))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, without the bodies of `if TYPE_CHECKING:`."""
    yield node
    is_typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    children = node.orelse if is_typing and isinstance(node, ast.If) else ast.iter_child_nodes(node)
    for child in children:
        yield from _running(child)
