"""Where stages write before their files get their final names: a folder per stage and process."""

import os
from pathlib import Path

from thunder_train.core import files, paths


def folder(stage: str) -> Path:
    """The folder in which this process makes a stage."""
    return Path(paths.STAGING) / f"{stage.replace(':', '-')}-{os.getpid()}"


def abandoned(root: Path = Path(paths.STAGING)) -> list[Path]:
    """Folders of processes that have ended, and whatever else lies there."""
    if root.is_symlink() or not root.is_dir():
        return []
    return [path for path in sorted(root.iterdir()) if not _is_in_use(path.name)]


def sweep(root: Path = Path(paths.STAGING)) -> None:
    """Delete what processes left that have ended. Call it with the project's lock."""
    if os.path.lexists(root) and (root.is_symlink() or not root.is_dir()):
        files.set_aside(root, "is no folder")
    for path in abandoned(root):
        files.remove(path)


def _is_in_use(name: str) -> bool:
    """Whether another process that lives may write there. Our own number there is that of an earlier process."""
    number = name.rpartition("-")[2]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:
        pass  # it lives, as another user's
    return True
