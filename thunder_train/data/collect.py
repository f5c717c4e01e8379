"""Rows that wait on disk for their place: a million of them do not fit in memory as objects.

The rows of all sources, read once: those that can teach wait on disk, with a few bytes of each in memory.

Input: a `config.Dataset`.  Output: `Gathered`, from which parting.py and dataset.py make the splits.
"""

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from thunder_train.config.dataset import Dataset
from thunder_train.core import files
from thunder_train.data import examples, near_duplicates, sources, splits, statistics
from thunder_train.data.rows import Ledger, Row
from thunder_train.data.splits import SPLITS


class Shelf:
    """Lines in the order in which they were put there, each fetched by its number.

    A file without a name on the disk of `folder`, which need not exist yet: whatever happens, nothing is left behind.
    """

    def __init__(self, folder: Path) -> None:
        there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
        self._file = tempfile.TemporaryFile(dir=there, buffering=1 << 20)  # noqa: SIM115  (closed by __exit__)
        self._starts = array("q", [0])

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def put(self, line: bytes) -> None:
        """Add a line."""
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))

    def flush(self) -> None:
        """Make what was put there ready to be fetched."""
        self._file.flush()

    def get(self, number: int) -> bytes:
        """A line by its number."""
        start = self._starts[number]
        return os.pread(self._file.fileno(), self._starts[number + 1] - start, start)


Watch = Callable[[Iterable[Row]], Iterator[Row]]
"""Passes rows on unchanged, and may show how many there were."""


class Gathered:
    """Rows that can teach, in order of reading: lines on the shelf, and columns of a few bytes each."""

    def __init__(self, dataset: Dataset, root: Path, shelf: Shelf, decided: Shelf, watch: Watch) -> None:
        self.dataset, self.root, self.shelf, self.decided = dataset, root, shelf, decided
        self.ledger, self.tally, self.sketch = Ledger(), statistics.Tally(), near_duplicates.Sketch()
        self.composer = examples.Composer(dataset, root)
        self.ids: list[str] = []
        self.files: list[str] = []
        self.file_of, self.line_of = array("H"), array("I")
        self.splits, self.contents = array("B"), array("q")
        self.keys = {key: array("q") for key in dataset.group_keys}
        self.decisions: dict[int, int] = {}
        """Row -> its number on the shelf of decisions."""
        self._encode = msgspec.json.Encoder().encode
        for source in dataset.sources:
            for row in watch(sources.read(source, root, self.ledger)):
                self._take(row)
        shelf.flush()
        decided.flush()

    def _take(self, row: Row) -> None:
        example = self.composer.compose(row)
        if isinstance(example, str):
            self.ledger.drop(row.file, row.line, row.row_id, example)
            return
        number, dataset = len(self.ids), self.dataset
        self.shelf.put(msgspec.json.format(self._encode(example), indent=0) + b"\n")
        self.ids.append(row.row_id)
        if not self.files or self.files[-1] != row.file:
            self.files.append(row.file)
        self.file_of.append(len(self.files) - 1)
        self.line_of.append(row.line)
        place = splits.fraction(dataset.split_seed, example.group)
        self.splits.append(splits.split_of(place, dataset.valid, dataset.test))
        # Python's own hash is of 64 bits and only compared within this process: no output depends on its value.
        self.contents.append(hash((example.messages, example.reference_text)))
        text = near_duplicates.normal(example.reference_text or example.messages[-1].content)
        for key, column in self.keys.items():
            value = text if key == examples.TEXT else row.keys.get(key)
            column.append(hash(value) if value else 0)
        self.sketch.add(text)
        self.tally.add(number, row, example)
        is_judged = bool(row.telemetry) and SPLITS[self.splits[number]] == "test"  # a gate may ask for it
        if row.decision or row.witness or row.edit_budget or is_judged:
            self.decisions[number] = len(self.decided)
            self.decided.put(files.json_line(_decision(row)).encode())

    def place(self, number: int) -> tuple[str, int, str]:
        """File, line and id of a row."""
        return self.files[self.file_of[number]], self.line_of[number], self.ids[number]

    def text(self, number: int) -> str:
        """What is said in a row: its reference, else its answer."""
        example = msgspec.json.decode(self.shelf.get(number), type=examples.Example)
        return example.reference_text or example.messages[-1].content


def _decision(row: Row) -> dict[str, Any]:
    """What is known of a row without its reference, and what a gate said of it, as decisions.jsonl tells it."""
    return {
        "id": row.row_id,
        "decision": row.decision,
        "reason_codes": row.reason_codes,
        "edit_budget": row.edit_budget,
        "proposal_text": row.proposal_text,
        "proposal_source": row.proposal_source,
        "telemetry": row.telemetry,
        "witness": row.witness,
    }
