"""Which of our own modules decide a stage's output, and a hash of what each of them does.

A stage names the modules it starts from. Every module of the package that they import counts too, so no list is kept
by hand and no change is missed. Imports below `if TYPE_CHECKING:` do not count, because they never run.
"""

import ast
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from thunder_train.core import files

if TYPE_CHECKING:
    from thunder_train.core.stat_cache import StatCache

PACKAGE = Path(__file__).parent.parent
NEUTRAL_KEYWORDS = frozenset({"help"})
"""Keyword arguments that hold a text for people; they change no output."""
NEUTRAL_MODULES = frozenset(f"{PACKAGE.name}.core.{name}" for name in ("console", "terminal", "model_files"))
"""Modules that only show something to people, or only refuse what others then read."""


@cache
def digest(starts: tuple[str, ...], stats: "StatCache") -> str:
    """One hash over `hashes`."""
    return files.digest(hashes(starts, stats))


@cache
def hashes(starts: tuple[str, ...], stats: "StatCache") -> dict[str, str]:
    """{path in the project: sha256 of its syntax tree} of modules, as `worker.loop`, and of all that they import.

    The answer is kept for the life of the process, which a build with nothing to do needs; `hashes_now` asks again.
    Raises LookupError for a start that is no module.
    """
    return _closure(starts, _modules(), lambda path: _module(path, stats))


def hashes_now(starts: tuple[str, ...], stats: "StatCache") -> dict[str, str]:
    """The same of the files as they are now: somebody may have edited them since this process began."""
    return _closure(starts, _modules_now(), lambda path: _module_now(path, stats))


@cache
def at_first(stats: "StatCache") -> dict[str, str]:
    """`hashes` of every module, as they are when this is first asked."""
    return {path: _module_now(path, stats)[0] for path in _modules_now().values()}


def _closure(
    starts: tuple[str, ...], modules: dict[str, str], module: Callable[[str], tuple[str, list[str]]]
) -> dict[str, str]:
    waiting = [f"{PACKAGE.name}.{start}" for start in starts]
    if missing := sorted(set(waiting) - set(modules)):
        raise LookupError(f"no such module: {', '.join(missing)}")
    seen: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in modules and name not in seen and name not in NEUTRAL_MODULES:
            seen[name], imports = module(modules[name])
            waiting += imports
            waiting.append(name.rpartition(".")[0])  # importing a module runs the __init__ of its package
    return dict(sorted((modules[name], sha) for name, sha in seen.items()))


def module_name(path: str) -> str:
    """The name under which a module of the package is imported. path: in the project."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _modules() -> dict[str, str]:
    return _modules_now()


def _modules_now() -> dict[str, str]:
    """{name: path in the project} of every module of the package."""
    modules = {}
    for folder, folders, names in os.walk(PACKAGE):
        folders[:] = [name for name in folders if name != "__pycache__"]
        place = folder.removeprefix(f"{PACKAGE.parent}/")
        for path in (f"{place}/{name}" for name in names if name.endswith(".py")):
            modules[module_name(path)] = path
    return modules


@cache
def _root(folder: str) -> str:
    """The project's folder as a prefix of paths from a folder, mostly empty."""
    root = os.path.relpath(PACKAGE.parent, folder)
    return "" if root == "." else f"{root}/"


@cache
def _module(path: str, stats: "StatCache") -> tuple[str, list[str]]:
    return _read_module(path, stats)


def _read_module(path: str, stats: "StatCache") -> tuple[str, list[str]]:
    """The hash of a module's code, and the names that it imports of the package."""
    sha, *imports = stats.memo("module", _root(os.getcwd()) + path, _describe).split()
    return sha, imports


def _module_now(path: str, stats: "StatCache") -> tuple[str, list[str]]:
    try:
        return _read_module(path, stats)
    except FileNotFoundError:  # removed since the folder was listed
        return "", []


def _describe(path: Path) -> str:
    try:
        return " ".join([code_digest(path), *_imports(path)])
    except (SyntaxError, ValueError):  # somebody edits it while a stage runs
        return files.sha256(path)


def _imports(path: Path) -> list[str]:
    """Names that a file imports of the package, also those inside functions; some name an object of a module."""
    names = set()
    for node in _running(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(name for name in names if name.partition(".")[0] == PACKAGE.name)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, without the bodies of `if TYPE_CHECKING:`."""
    yield node
    is_typing = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    children = node.orelse if is_typing and isinstance(node, ast.If) else ast.iter_child_nodes(node)
    for child in children:
        yield from _running(child)


def code_digest(path: Path) -> str:
    """Hex sha256 of what a Python file does: its syntax tree without comments, docstrings and texts of `help=`.

    The tree is written out here, because ast.dump and ast.unparse change between Python versions.
    """
    return hashlib.sha256(_tree(ast.parse(path.read_bytes()).body).encode()).hexdigest()


def _tree(node: object) -> str:
    if isinstance(node, list):
        return f"[{','.join(_tree(item) for item in node if not _is_docstring(item))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    fields = [(name, _effective(value) if name == "keywords" else value) for name, value in fields]
    return f"{type(node).__name__}({','.join(f'{name}={_tree(value)}' for name, value in fields)})"


def _effective(keywords: list[ast.keyword]) -> list[ast.keyword]:
    return [keyword for keyword in keywords if keyword.arg not in NEUTRAL_KEYWORDS]


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
