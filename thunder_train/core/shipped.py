"""Files that come with the package, under the paths that they have in a project: a project's own file wins.

In this repository they are the project's own files; the wheel has them in thunder_train/shipped/ (pyproject.toml).
"""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
FOLDER = next(folder for folder in (PACKAGE / "shipped", PACKAGE.parent) if folder.is_dir())
"""Where the shipped files lie."""


def place(path: str, root: Path = Path()) -> Path:
    """Where a file or folder of a project lies: in the project at root, else in the package, if either has it.

    path: from the project's folder, as `templates/launch.sh.j2`.
    """
    own, shipped = root / path, FOLDER / path
    return shipped if shipped.exists() and not own.exists() else own
