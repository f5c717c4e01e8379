"""One pass over the rows of all sources. A million rows do not fit in memory: their lines wait on disk.

Input: a `config.dataset.Dataset`.  Output: `Collected`, from which builder.py makes the splits.
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

Watch = Callable[[Iterable[Row]], Iterator[Row]]
"""Passes rows on unchanged, and may show how many there were."""


class LineSpool:
    """A temporary file of lines, each read back by its number.

    The file has no name and lies on the disk of `folder`, which need not exist yet: a crash leaves nothing behind.
    """

    def __init__(self, folder: Path) -> None:
        existing = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
        self._file = tempfile.TemporaryFile(dir=existing, buffering=1 << 20)  # noqa: SIM115  (closed by __exit__)
        self._starts = array("q", [0])

    def __enter__(self) -> "LineSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, line: bytes) -> None:
        """Append a line; its number is the count of those before it."""
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))

    def flush(self) -> None:
        """Make every line readable."""
        self._file.flush()

    def read(self, number: int) -> bytes:
        """A line by its number."""
        start = self._starts[number]
        return os.pread(self._file.fileno(), self._starts[number + 1] - start, start)


class Collected:
    """The n usable rows, in order of reading: lines in the spools, and columns of a few bytes for each row.

    ids: n names; splits, contents, keys: as `splits.assign` takes them; ledger: rows that were dropped, and why.
    """

    def __init__(self, dataset: Dataset, root: Path, lines: LineSpool, decision_lines: LineSpool, watch: Watch) -> None:
        self.dataset, self.root, self.lines, self.decision_lines = dataset, root, lines, decision_lines
        self.ledger, self.statistics, self.sketch = Ledger(), statistics.Statistics(), near_duplicates.Sketch()
        self.composer = examples.Composer(dataset, root)
        self.ids: list[str] = []
        self.decisions: dict[int, int] = {}
        """Row -> its number in decision_lines."""
        self.splits, self.contents = array("B"), array("q")
        self.keys = {key: array("q") for key in dataset.group_keys}
        self._files: list[str] = []
        self._file_of, self._line_of = array("H"), array("I")
        self._encode = msgspec.json.Encoder().encode
        for source in dataset.sources:
            for row in watch(sources.read(source, root, self.ledger)):
                self._take(row)
        lines.flush()
        decision_lines.flush()

    def _take(self, row: Row) -> None:
        example = self.composer.compose(row)
        if isinstance(example, str):
            self.ledger.drop(row.file, row.line, row.row_id, example)
            return
        number, dataset = len(self.ids), self.dataset
        self.lines.add(msgspec.json.format(self._encode(example), indent=0) + b"\n")
        self.ids.append(row.row_id)
        if not self._files or self._files[-1] != row.file:
            self._files.append(row.file)
        self._file_of.append(len(self._files) - 1)
        self._line_of.append(row.line)
        place = splits.fraction(dataset.split_seed, example.group)
        self.splits.append(splits.split_of(place, dataset.valid, dataset.test))
        # Python's own hash has 64 bits and differs between processes; here it is only compared within one.
        self.contents.append(hash((example.messages, example.reference_text)))
        text = near_duplicates.normal(example.reference_text or example.messages[-1].content)
        for key, column in self.keys.items():
            value = text if key == examples.TEXT else row.keys.get(key)
            column.append(hash(value) if value else 0)
        self.sketch.add(text)
        self.statistics.add(number, row, example)
        is_judged = bool(row.telemetry) and SPLITS[self.splits[number]] == "test"  # a gate may ask for it
        if row.decision or row.witness or row.edit_budget or is_judged:
            self.decisions[number] = len(self.decision_lines)
            self.decision_lines.add(files.json_line(_decision(row)).encode())

    def place(self, number: int) -> tuple[str, int, str]:
        """File, line and id of a row."""
        return self._files[self._file_of[number]], self._line_of[number], self.ids[number]

    def text(self, number: int) -> str:
        """The text that near-duplicates are searched by: a row's reference, or its answer if it has none."""
        example = msgspec.json.decode(self.lines.read(number), type=examples.Example)
        return example.reference_text or example.messages[-1].content


def _decision(row: Row) -> dict[str, Any]:
    """A line of decisions.jsonl: what is known of a row without its reference, and what a gate decided."""
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
