"""Answers kept on disk batch by batch, so that an evaluation that was killed resumes instead of starting again.

Reads and writes FOLDER/answers.jsonl: a header with the evaluation's identity, then one line per batch. Each line holds
a digest of the rest: a flipped bit in an answer would otherwise become a score.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files

SCHEMA = "thunder.answers/2"

BatchAnswers = list[dict[str, Any]]
"""The answers of one batch, in the order of its rows."""


class KeptAnswers:
    """The kept batches of one evaluation. folder: None keeps nothing, as on all ranks but the first.

    identity: everything that decides the answers. A file with another identity is replaced by an empty one.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, str]) -> None:
        self._path = folder / "answers.jsonl" if folder else None
        self._lines: list[dict[str, Any]] = []
        if self._path:
            header = {"schema": SCHEMA, "identity": dict(identity)}
            self._lines = _read(self._path, header)
            # Written again without the partial line that a kill may have left: `add` appends.
            files.write_text(self._path, "".join(map(_sealed, [header, *self._lines])))

    def batches(self, condition: str) -> dict[int, BatchAnswers]:
        """The batches that were on disk at the start, by number."""
        return {line["batch"]: line["answers"] for line in self._lines if line["condition"] == condition}

    def add(self, condition: str, batches: Mapping[int, BatchAnswers]) -> None:
        """Append batches, by number; they are on disk when this returns. Raises ThunderError when that fails."""
        if not self._path:
            return
        lines = [{"condition": condition, "batch": number, "answers": batches[number]} for number in sorted(batches)]
        try:
            with self._path.open("ab") as file:
                file.write("".join(map(_sealed, lines)).encode())
                file.flush()
                files.to_disk(file.fileno())
        except OSError as error:
            hint = "free or unlock it"
            raise ThunderError(f"cannot be written: {error.strerror}", where=str(self._path), hint=hint) from error


def _read(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines below this header that are as they were written; none below another header."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        files.set_aside(path, "is no file")
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    *whole, _ = lines  # behind the last line break lies nothing, or what a kill cut off
    values = [_opened(line) for line in whole]
    if damaged := values.count(None):
        print(f"warning: {path}: {damaged} damaged lines; what they held is answered again", file=sys.stderr)
    return [value for value in values[1:] if value] if values[:1] == [header] else []


def _sealed(value: dict[str, Any]) -> str:
    return files.json_line({**value, "digest": files.digest(value)})


def _opened(line: bytes) -> dict[str, Any] | None:
    """What `_sealed` was given; None if the line is not as it was written."""
    try:
        value: dict[str, Any] = json.loads(line)
        found = value.pop("digest")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return value if found == files.digest(value) else None
