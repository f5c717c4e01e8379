"""Files that come with the package, under the paths that they have in a project: a project's own file wins.

In this repository they are the project's own files; the wheel has them in thunder_train/shipped/ (pyproject.toml).
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
FOLDER = next(folder for folder in (PACKAGE / "shipped", PACKAGE.parent) if folder.is_dir())
"""Where the shipped files lie."""
PATHS = (
    "templates",
    "models/nko-nano-base",
    "data/sources/nko_nano_predictions.jsonl",
    "data/sources/nko_nano_references.jsonl",
    "docs/recipe.schema.json",
    "docs/thunder.schema.json",
    "requirements.lock",
    "doit",
)
"""What is shipped: these files and folders."""


def place(path: str, root: Path = Path()) -> Path:
    """Where a file or folder of a project lies: in the project at root, else in the package, if either has it.

    path: from the project's folder, as `templates/launch.sh.j2`.
    """
    return root_of(path, root) / path


def root_of(path: str, root: Path = Path()) -> Path:
    """The folder from which `place` takes a path: root, or FOLDER."""
    is_other = is_shipped(path) and not os.path.lexists(root / path) and (FOLDER / path).exists()
    return FOLDER if is_other else root


def file(path: str) -> str:
    """A path from the project's folder as a program opens it: itself, or the file of the package."""
    return str(FOLDER / path) if root_of(path) != Path() else path


def is_shipped(path: str) -> bool:
    """Whether the package has a path, or may have it: it is one of PATHS or lies in one, and leads out of none."""
    return ".." not in path.split("/") and any(path == each or path.startswith(f"{each}/") for each in PATHS)


def logical(path: str) -> str:
    """The path in a project of a file of `place`, also of another installation."""
    return path.rpartition("/thunder_train/shipped/")[2].removeprefix(f"{FOLDER}/")
