"""Records that are also targets: committed files, so one that `git pull` brought may lie where a build will write.

A build replaces it, because a record must say what is here; git keeps the other. What differs is said first, by key.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from thunder_train.build.key import differences
from thunder_train.core import files, paths

SHOWN = 5
"""Most differences that are printed of one file."""
MOST_CHARACTERS = 40
"""Of a text that is printed whole."""
SHA256_DIGITS = 12


def replaced(targets: Iterable[str], staging: Path, made: Mapping[str, str]) -> Iterator[str]:
    """Lines about each record that this project did not make and that differs from the one in staging.

    made: {path: sha256} of what the stage made last, as far as this project knows.
    """
    for path in targets:
        known, old, new = made.get(path), _sha256(Path(path)), _sha256(staging / path)
        if Path(path).name in paths.RECORDS and old and old not in (known, new):
            yield f"{path}: the one that lies here was not made by this build, which replaces it"
            lines = list(differences(_read(Path(path)), _read(staging / path)))
            yield from (f"  {line}" for line in lines[:SHOWN])
            if len(lines) > SHOWN:
                yield f"  and {len(lines) - SHOWN} more; `git diff {path}` shows all"


def _comparable(value: Any) -> Any:
    """The same value with lists of files as tables by path, and long texts and hashes cut to be read."""
    if isinstance(value, dict):
        return {key: _comparable(entry) for key, entry in value.items()}
    if isinstance(value, list) and all(isinstance(entry, dict) and "path" in entry for entry in value):
        return {str(entry["path"]): _comparable({**entry, "path": ""}) for entry in value}
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        return f"{value[:SHA256_DIGITS]}..."
    return value


def _sha256(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError:
        return ""


def _read(path: Path) -> Any:
    """The record; an empty one for a file that holds none."""
    try:
        value = json.loads(files.read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return _comparable(value) if isinstance(value, dict) else {}
