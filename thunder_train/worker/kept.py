"""Answers kept on disk batch by batch, so that an evaluation that was killed goes on and does not begin anew.

Reads and writes FOLDER/answers.jsonl: a line that says what the answers are to, then one line a batch.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files

SCHEMA = "thunder.answers/1"

Answers = list[dict[str, Any]]
"""The answers of one batch, in the order of its rows."""


class Kept:
    """The batches of one evaluation. folder: None keeps nothing, as on every rank but the first.

    identity: all that decides the answers; a file of another identity, or none, begins anew.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, str]) -> None:
        self._path = folder / "answers.jsonl" if folder else None
        self._found: list[dict[str, Any]] = []
        if self._path:
            header = {"schema": SCHEMA, "identity": dict(identity)}
            self._found = _read(self._path, header)
            # Written anew: without the half line that a kill left.
            files.write_text(self._path, "".join(map(files.json_line, [header, *self._found])))

    def batches(self, condition: str) -> dict[int, Answers]:
        """The batches found at the start, by number."""
        return {each["batch"]: each["answers"] for each in self._found if each["condition"] == condition}

    def add(self, condition: str, made: Mapping[int, Answers]) -> None:
        """Append batches; they are on disk when this returns. Raises ThunderError when they cannot be."""
        if not self._path:
            return
        lines = [{"condition": condition, "batch": number, "answers": made[number]} for number in sorted(made)]
        try:
            with self._path.open("ab") as file:
                file.write("".join(map(files.json_line, lines)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            mend = "free or unlock it"
            raise ThunderError(f"cannot be written: {error.strerror}", where=str(self._path), mend=mend) from error


def _read(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The whole lines below this very header; the first that is not whole ends them."""
    found = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    with contextlib.suppress(ValueError):
        if json.loads(lines[0]) != header:
            return []
        for line in lines[1:]:
            found.append(json.loads(line))
    return found
