"""The ASR row contract: a recogniser's predictions, each joined with its reference by a key.

Input: prediction and reference files.  Output: rows in the order of the predictions; those without a partner are
dropped, each by name. Predictions stream. Of the references memory holds each key and text, and a number for its place.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data.field_map import FieldMap
from thunder_train.data.readers import Reader, full_id, paths, place, stem
from thunder_train.data.rows import Ledger, Row

JOIN_KEYS = ("audio_path", "segment_id", "feat_id")
"""In the order in which a join tries them."""
LINE_BITS = 40
"""Low bits of a place, which hold its line; the bits above hold the number of its file."""
NO_REFERENCE = "prediction without a reference"
NO_PREDICTION = "reference without a prediction"


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ASR row contract. `cer_edits` is left out on purpose: it is computed from the reference."""

    audio_path: str
    split: str
    script: str
    mode: str
    asr_text: str
    ctc_confidence: float
    partition: str
    video_id: str | int = ""
    segment_id: str | int = ""
    feat_id: str | int = ""
    trajectory_scalars: dict[str, float] = {}


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The text that was said, written by a human."""

    reference_text: str
    audio_path: str = ""
    segment_id: str | int = ""
    feat_id: str | int = ""


CANONICAL = (*Prediction.__struct_fields__, "reference_text")


def read(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """Predictions with their references; the target is the reference, or the hypothesis itself of a stable row."""
    yield from Join(source, root, ledger).rows()


class Join:
    """A join of predictions and references, and where the rows of all its files are."""

    def __init__(self, source: Source, root: Path, ledger: Ledger) -> None:
        self.source, self.root, self.ledger = source, root, ledger
        self.field_map = FieldMap(source, CANONICAL, (), is_whole=False)
        self.predictions, self.references = paths(source.path, root), paths(source.references, root)
        self.files = [*self.references, *self.predictions]
        self.key = self._key()
        self.held: dict[str, bytes | int] = {}
        """Key -> the text of its reference; once its prediction was read, the place of that."""
        self.places = array("Q")
        """Places of the references, in the order of `held`, which they fill first."""

    def rows(self) -> Iterator[Row]:
        """Each prediction with its reference."""
        for number, path in enumerate(self.references):
            self._hold(path, number)
        for number, path in enumerate(self.predictions, start=len(self.references)):
            yield from self._pairs(path, number)
        for (name, value), where in zip(self.held.items(), self.places, strict=False):
            if value.__class__ is bytes:
                path, line = self._at(where)
                self.ledger.drop(path, line, f"{stem(path)}:{name}", NO_PREDICTION)

    def _hold(self, path: str, number: int) -> None:
        """Read a file of references."""
        reader, twice = self._reader(path), dict[str, list[int]]()
        for line, row in reader.mapped_rows(self.field_map, Reference):
            name = str(getattr(row, self.key))
            if not name:
                self.ledger.drop(path, line, full_id(path, "", row), NO_PREDICTION)
            elif name in self.held:
                twice.setdefault(name, []).append(line)
            else:
                self.held[name] = row.reference_text.encode()
                self.places.append(number << LINE_BITS | line)
        if twice:
            first = {name: where for name, where in zip(self.held, self.places, strict=True) if name in twice}
            for line, name in sorted((line, name) for name, lines in twice.items() for line in lines):
                self._add_repeated(reader, line, name, first[name])
        reader.finish(self.ledger)

    def _pairs(self, path: str, number: int) -> Iterator[Row]:
        """The rows of a file of predictions that have a reference."""
        reader, held, file_stem = self._reader(path), self.held, stem(path)
        for line, row in reader.mapped_rows(self.field_map, Prediction):
            name = str(getattr(row, self.key))
            partner = held.get(name) if name else None
            if isinstance(partner, int):
                self._add_repeated(reader, line, name, partner)
                continue
            if name:
                held[name] = number << LINE_BITS | line
            if partner is None:
                self.ledger.drop(path, line, full_id(path, name, row), NO_REFERENCE)
            else:
                yield self._row(row, f"{file_stem}:{name}", file_stem, partner.decode(), path, line)
        reader.finish(self.ledger)

    def _row(self, row: Prediction, row_id: str, source: str, reference: str, path: str, line: int) -> Row:
        keys = {"video_id": str(row.video_id), "audio_path": row.audio_path}
        keys |= {"segment_id": str(row.segment_id), "feat_id": str(row.feat_id)}
        is_stable = row.partition == "stable" and "stable" in self.source.use
        telemetry = {"ctc_confidence": row.ctc_confidence, **row.trajectory_scalars}
        return Row(
            row_id=row_id,
            source=source,
            file=path,
            line=line,
            evidence_kind=self.source.evidence_kind,
            target_text=row.asr_text if is_stable else reference,
            asr_text=row.asr_text,
            reference_text=reference,
            partition=row.partition,
            telemetry=self.field_map.without_reference(telemetry),
            keys={name: value for name, value in keys.items() if value},
        )

    def _key(self) -> str:
        """The first join key that every row of both sides carries, else the first that both sides carry at all.

        The problems of a malformed file are raised when its rows are read.
        """
        right = self._carried(self.references)
        if right is None or JOIN_KEYS[0] in right[0]:  # the contract requires that key of predictions
            return JOIN_KEYS[0]
        left = self._carried(self.predictions)
        if left is None:
            return JOIN_KEYS[0]
        for on_left, on_right in zip(left, right, strict=True):
            for key in JOIN_KEYS:
                if key in on_left and key in on_right:
                    return key
        where, hint = f"{self.source.path}, {self.source.references}", f"give both files one of: {', '.join(JOIN_KEYS)}"
        raise ThunderError("share no join key", where=where, hint=hint)

    def _carried(self, files: list[str]) -> tuple[set[str], set[str]] | None:
        """The join keys that all rows of some files carry, and those that any carries; None if a file is malformed."""
        by_all, by_any = set(JOIN_KEYS), set[str]()
        for path in files:
            reader = self._reader(path)
            for _, values in reader.mapped(self.field_map):
                for key in JOIN_KEYS:
                    if values.get(key) in (None, ""):
                        by_all.discard(key)
                    else:
                        by_any.add(key)
            if reader.problems.first or not reader.count:
                return None
        return by_all, by_any

    def _reader(self, path: str) -> Reader:
        return Reader(path, self.root, self.field_map.columns)

    def _add_repeated(self, reader: Reader, line: int, name: str, first: int) -> None:
        also = place(*self._at(first))
        what = f"{self.key} {quoted(name)} is also at {also}"
        reader.problems.add(what, reader.where(line), "a join key must be unique")

    def _at(self, where: int) -> tuple[str, int]:
        """File and line of a place."""
        return self.files[where >> LINE_BITS], where & ((1 << LINE_BITS) - 1)
