"""Answers kept on disk batch by batch, so that an evaluation that was killed resumes instead of starting again.

Reads and writes FOLDER/answers.jsonl: a header with the evaluation's identity, then one line per batch.
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
            files.write_text(self._path, "".join(map(files.json_line, [header, *self._lines])))

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
                file.write("".join(map(files.json_line, lines)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            hint = "free or unlock it"
            raise ThunderError(f"cannot be written: {error.strerror}", where=str(self._path), hint=hint) from error


def _read(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines below this header, up to the first that is not whole; none below another header."""
    batches = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    with contextlib.suppress(ValueError):
        if json.loads(lines[0]) != header:
            return []
        for line in lines[1:]:
            batches.append(json.loads(line))
    return batches
