"""Folders of rows, as the library `datasets` saves them and as repositories of the hub lay them out.

Input: a folder, or the names of a repository's files.  Output: which files hold rows, and the splits that names say.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.data import formats
from thunder_train.data.rows import SPLIT_WORDS

FACTS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files of facts beside rows."""
STATE = "state.json"
"""Names the Arrow files of a saved dataset; others beside them are left from computations."""
ROWS = (*formats.JSON_NAMES, *formats.TABLE_NAMES, *formats.TYPED_NAMES)
STATE_LIMIT = 2**24
"""Most bytes of a state.json; a file of ours names a shard in 50."""


def has_rows(name: str) -> bool:
    """Whether a file, by its name, holds rows."""
    return formats.suffix(name) in ROWS and Path(name).name not in FACTS


def selected(names: Iterable[str], path: str) -> list[str]:
    """The names that a path selects: itself, those that match it as a pattern, or the rows in a folder of that name."""
    names = sorted(names)
    exact = [name for name in names if name == path or (files.is_pattern(path) and files.matches(path, name))]
    below = [name for name in names if name.startswith(f"{path.rstrip('/')}/") and has_rows(name)]
    return exact or [name for name in below if not _is_hidden(name.removeprefix(path))]


def rows_in(folder: str, root: Path) -> list[str]:
    """The files of rows in a folder below root, as paths from root, sorted; hidden files are left out."""
    names = []
    for parent, folders, children in os.walk(root / folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder) / os.path.relpath(parent, root / folder)  # as the folder was named
        saved = _saved(here / STATE, root) if STATE in children else None
        listed = children if saved is None else saved
        names += [str(here / name) for name in listed if not name.startswith(".") and has_rows(name)]
    return sorted(names)


def split_word(path: str) -> str:
    """The word for a split in a file's name, or else in that of the nearest folder; "" if there is none."""
    for part in reversed(Path(path).parts):
        for word in re.split("[^a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return word
    return ""


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in Path(path).parts)


def _saved(state: Path, root: Path) -> list[str] | None:
    """The files that a state.json names; None if it is the state of something else. Raises ThunderError."""
    try:
        content = files.read_bytes(root / state, STATE_LIMIT)
        table = json.loads(content)
        entries = table.get("_data_files") if isinstance(table, dict) else None
        if entries is None:
            return None
        names = [entry["filename"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ThunderError("cannot be read", str(state), "save the dataset again with save_to_disk") from None
    if not all(isinstance(name, str) and files.is_inside(name) for name in names):
        raise ThunderError("names files outside its folder", str(state), "save the dataset again with save_to_disk")
    return names
