"""One pass over the rows of all sources. A million rows do not fit in memory: their lines wait on disk.

Input: a `config.dataset.Dataset`.  Output: `Collected`, from which builder.py makes the splits.
"""

import bisect
import marshal
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec

from thunder_train.config.dataset import Dataset, Source
from thunder_train.data import examples, given_splits, near_duplicates, sources, statistics
from thunder_train.data.rows import Ledger, Row

Watch = Callable[[Iterable[Any]], Iterator[Any]]
"""Passes rows, or an item for each of them, on unchanged, and may show how many there were."""
MERGED = (
    *("ids", "unfit", "contents", "keys", "columns", "ledger", "statistics", "sketch", "composer"),
    *("_decision_of", "_files", "_file_of", "_line_of"),
)
"""Members of Collected that hold what was read."""
SILENT_REFERENCE, SILENT_HYPOTHESIS = "nothing was said", "the recogniser heard nothing"
"""Why rows are not trained on, unless train_on_silence says so."""


class LineSpool:
    """Temporary files of lines, each read back by its number.

    They have no name and lie on the disk of `folder`, which need not exist yet: a crash leaves nothing behind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
        file = tempfile.TemporaryFile(dir=self.folder, buffering=1 << 20)  # noqa: SIM115  (closed by __exit__)
        self._file: IO[bytes] = file
        """The last of the files, which grows."""
        self._files, self._bases = [self._file], [0]
        """bases: where each file would begin if all of them were one."""
        self._starts = array("q", [0])
        """Where each line begins in that one."""

    def __enter__(self) -> "LineSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

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
        index = bisect.bisect_right(self._bases, start) - 1
        return os.pread(self._files[index].fileno(), self._starts[number + 1] - start, start - self._bases[index])

    def merge(self, other: "LineSpool", starts: "array[int]") -> None:
        """Append the lines that another process wrote into another spool. starts: those of that spool."""
        self.flush()
        self._bases.append(self._starts[-1])
        self._files += other._files
        self._file, other._files = self._files[-1], []
        self._file.seek(0, os.SEEK_END)
        self._starts.extend(_raised(starts[1:], self._bases[-1]))


class Collected:
    """The n usable rows, in order of reading: lines in the spools, and columns of a few bytes for each row.

    places: where the files of each source lie; ids: n names; contents, keys, unfit: as `splits.assign` takes them;
    columns: what decides the splits; ledger: rows that were dropped, and why.
    """

    def __init__(
        self,
        dataset: Dataset,
        root: Path,
        lines: LineSpool,
        decision_lines: LineSpool,
        places: Mapping[Source, sources.Place] | None = None,
    ) -> None:
        self.dataset, self.root, self._lines, self._decision_lines = dataset, root, lines, decision_lines
        self.ledger, self.statistics, self.sketch = Ledger(), statistics.Statistics(), near_duplicates.Sketch()
        self.composer = examples.Composer(dataset, root)
        self.places = places or {source: sources.Place(root) for source in dataset.sources}
        self.ids: list[str] = []
        self._decision_of = array("i")
        """Number of each row's line in decision_lines, from 1; negative if only a test row needs it; 0 for none."""
        self.columns = given_splits.Columns(dataset)
        self.contents = array("q")
        self.keys = {key: array("q") for key in dataset.group_keys}
        self._appends = [(key, column.append) for key, column in self.keys.items() if key != examples.TEXT]
        self.unfit: dict[int, str] = {}
        self._files: list[str] = []
        self._file_of, self._line_of = array("I"), array("I")
        self._encode = msgspec.json.Encoder().encode
        self._new_ids: dict[int, str] = {}

    def take(self, rows: Iterable[Row], source: Source) -> None:
        """Add the rows of a source."""
        for row in rows:
            self._take(row, source)

    def finish(self) -> None:
        """Make the rows readable, after the last of them."""
        self.ledger.notes.update(self.composer.notes)
        self._lines.flush()
        self._decision_lines.flush()

    def new_spools(self) -> tuple[LineSpool, LineSpool]:
        """Spools for another process, whose rows `merge` adds."""
        return LineSpool(self._lines.folder), LineSpool(self._decision_lines.folder)

    def __getstate__(self) -> dict[str, Any]:
        """What `merge` needs, for another process; the lines of the spools are in files that both have."""
        self._lines.flush()
        self._decision_lines.flush()
        starts = {"starts": self._lines._starts, "decision_starts": self._decision_lines._starts}
        return starts | {name: vars(self)[name] for name in MERGED}

    def merge(self, other: "Collected", lines: LineSpool, decision_lines: LineSpool) -> None:
        """Add the rows that another process collected, which follow on these, in these spools."""
        rows, decisions, files = len(self.ids), len(self._decision_lines), len(self._files)
        self._lines.merge(lines, vars(other)["starts"])
        self._decision_lines.merge(decision_lines, vars(other)["decision_starts"])
        self.ids += other.ids
        self._files += other._files
        self.unfit |= {rows + number: reason for number, reason in other.unfit.items()}
        self._decision_of.extend(
            [each and each + (decisions if each > 0 else -decisions) for each in other._decision_of]
        )
        self._file_of.extend(_raised(other._file_of, files))
        self._line_of.extend(other._line_of)
        self.contents.extend(other.contents)
        for key, column in self.keys.items():
            column.extend(other.keys[key])
        self.ledger.merge(other.ledger)
        self.statistics.merge(other.statistics)
        self.sketch.merge(other.sketch)
        self.columns.merge(other.columns)
        self.composer.merge(other.composer)

    def _take(self, row: Row, source: Source) -> None:
        example = self.composer.compose(row)
        if isinstance(example, str):
            self.ledger.drop(row.file, row.line, row.row_id, example)
            return
        number = len(self.ids)
        self._lines.add(msgspec.json.format(self._encode(example), indent=0) + b"\n")
        self.ids.append(row.row_id)
        if not self._files or self._files[-1] != row.file:
            self._files.append(row.file)
        self._file_of.append(len(self._files) - 1)
        self._line_of.append(row.line)
        may_be_test = self.columns.add(row, source, example.group)
        # Python's own hash has 64 bits and differs between processes; here it is only compared within one.
        self.contents.append(self._hash(example.taught))
        text = near_duplicates.normal(_text(example))
        value_of = row.keys.get
        for key, append in self._appends:
            value = value_of(key)
            append(hash(value) if value else 0)
        if examples.TEXT in self.keys:
            self.keys[examples.TEXT].append(hash(text) if text else 0)
        self.sketch.add_normal(text)
        self.statistics.add(number, row, example)
        if not row.is_given and not self.dataset.train_on_silence and (example.silent or not example.asr_text):
            self.unfit[number] = SILENT_REFERENCE if example.silent else SILENT_HYPOTHESIS
        self._take_decision(row, may_be_test)

    def _hash(self, taught: tuple[Any, ...]) -> int:
        """Of all that a row teaches. Calls and tools, as JSON, have no hash; other rows take a third of the time."""
        try:
            return hash(taught)
        except TypeError:
            return hash(self._encode(taught))

    def _take_decision(self, row: Row, may_be_test: bool) -> None:
        """Keep what a gate decided, or may ask for: telemetry of test rows, which are known only after the last row."""
        is_decided = bool(row.decision or row.witness or row.edit_budget)
        if not is_decided and not (may_be_test and row.telemetry):
            self._decision_of.append(0)
            return
        # As JSON it would take longer than the rest of the row, and most of these lines are never written.
        has_more = is_decided or row.proposal_text or row.proposal_source or row.reason_codes
        self._decision_lines.add(marshal.dumps(_decision(row) if has_more else {"telemetry": row.telemetry}))
        count = len(self._decision_lines)
        self._decision_of.append(count if is_decided else -count)

    def rename(self, new_ids: dict[int, str]) -> None:
        """Give rows another id."""
        self._new_ids = new_ids
        for row, name in new_ids.items():
            self.ids[row] = name

    def place(self, number: int) -> tuple[str, int, str]:
        """File, line and id of a row."""
        return self._files[self._file_of[number]], self._line_of[number], self.ids[number]

    def line(self, number: int) -> bytes:
        """A row as a line of its split."""
        line = self._lines.read(number)
        if number not in self._new_ids:
            return line
        example = msgspec.json.decode(line) | {"id": self._new_ids[number]}
        return msgspec.json.format(self._encode(example), indent=0) + b"\n"

    def decision(self, number: int, is_test: bool) -> dict[str, Any] | None:
        """A row of decisions.jsonl; None for a row without one."""
        count = self._decision_of[number]
        if count == 0 or (count < 0 and not is_test):
            return None
        # Not untrusted: this process wrote it into a file that nobody else has.
        decision: dict[str, Any] = marshal.loads(self._decision_lines.read(abs(count) - 1))  # noqa: S302
        return NO_DECISION | decision | {"id": self.ids[number]}

    def text(self, number: int) -> str:
        """The text that duplicates are searched by."""
        return _text(msgspec.json.decode(self._lines.read(number), type=examples.Example))


def _text(example: examples.Example) -> str:
    """A row's reference; without one the answer to its hypothesis, or all of a conversation but the system message.

    Many questions have one answer, so the answer alone does not make two conversations one.
    """
    if example.reference_text or example.text:
        return example.reference_text or example.text
    if example.asr_text or example.silent:
        return example.answer
    return "\n".join([message.content for message in example.messages if message.role != "system"])


def _raised(numbers: "array[int]", by: int) -> "array[int]":
    """The numbers, each greater by the same."""
    return array(numbers.typecode, [number + by for number in numbers])


NO_DECISION: dict[str, Any] = {
    "id": "",
    "decision": "",
    "reason_codes": (),
    "edit_budget": {},
    "proposal_text": "",
    "proposal_source": "",
    "telemetry": {},
    "witness": {},
}
"""A line of decisions.jsonl: what is known of a row without its reference, and what a gate decided."""


def _decision(row: Row) -> dict[str, Any]:
    """The line of a row, but for its id."""
    return {name: getattr(row, name) for name in NO_DECISION if name != "id"}
