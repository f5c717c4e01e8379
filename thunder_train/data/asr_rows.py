"""Rows of the ASR row contract: a recogniser's predictions, each joined with its reference by a key.

Input: prediction and reference files, or predictions that have their references beside them.
Output: rows in the order of the predictions; those without a partner are dropped, each by name. Predictions stream. Of
the references memory holds each key and text, and a number for its place.
"""

import itertools
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from thunder_train import ThunderError
from thunder_train.config.dataset import REAL, SYNTHETIC, Source
from thunder_train.core.drop_reasons import NO_PREDICTION, NO_REFERENCE, NULL_REFERENCE
from thunder_train.core.text import quoted
from thunder_train.data import formats, json_rows, kinds, packed
from thunder_train.data.asr_contract import CANONICAL, JOIN_KEYS, Pair, Prediction, Reference, own_name
from thunder_train.data.field_map import FieldMap, decoded
from thunder_train.data.problems import HYPOTHESES
from thunder_train.data.readers import Reader, first_row, full_id, paths, place, stem
from thunder_train.data.rows import (
    DEEPEST,
    Ledger,
    Row,
    depth,
    given_split,
    group_keys,
    hypothesis_texts,
    key_text,
    split_of,
)

SEPARATOR = re.compile(r"[\n\t|]|<sep>|</s>|\[SEP\]")
"""What stands between hypotheses that were joined to one text."""
LINE_BITS = 40
"""Low bits of a place, which hold its line; the bits above hold the number of its file."""
NULL, SPLIT = b"\xff", b"\xfe"
"""Held for a reference whose text is null; held between a text and the split of its row. No text has such bytes."""


class _Keys(msgspec.Struct):
    """The join keys of a row, whatever they are; the rest of it is not decoded."""

    audio_path: Any = None
    segment_id: Any = None
    feat_id: Any = None


DECODE_KEYS = msgspec.json.Decoder(_Keys).decode_lines
LACKING = (None, "")
"""Values of a join key that a row lacks."""


def opened(source: Source, root: Path, ledger: Ledger) -> "Pairs":
    """The pairs of a source, before its predictions are read."""
    return Join(source, root, ledger) if source.references else Pairs(source, root, ledger, Pair)


class Predictions(Reader):
    """A file of predictions. shape: Prediction, or Pair if each has its reference beside it."""

    def __init__(
        self, path: str, root: Path, field_map: FieldMap, source: Source, shape: type[Prediction] = Prediction
    ) -> None:
        super().__init__(path, root, field_map.columns, source)
        self.stem = stem(path)
        self._map, self._source, self._shape = field_map, source, shape
        self._missing = {"asr_text": True, "reference_text": shape is Pair}
        """Columns of a table that no row has filled so far."""

    def rows(self) -> Iterator[tuple[int, Prediction, str]]:
        """Each prediction with its place and its hypothesis, "" if the recogniser heard nothing."""
        for line, row in self.mapped_rows(self._map, self._shape):
            asr = row.asr_text
            if asr.__class__ is str:  # nearly all
                self._missing["asr_text"] = False
                if asr.startswith("[") and isinstance(decoded(asr), list):
                    self.problems.add("asr_text is a list, not a text", self.where(line), HYPOTHESES)
                else:
                    yield line, row, asr
                continue
            if asr is UNSET and (row.hypotheses is not None or row.n_best_hypotheses is not None):
                texts = self._hypotheses(line, row)
                if texts is None:
                    continue
                asr = texts[0] if texts else None
                if isinstance(row.hypotheses, str) and (between := SEPARATOR.search(row.hypotheses)):
                    what = f"hypotheses is one text, with {quoted(between[0])} between several"
                    self.problems.add(what, self.where(line), "write a list of texts, or map the text to asr_text")
                    continue
            asr = self.text(line, asr, "asr_text")
            if asr is not UNSET:
                yield line, row, asr or ""

    def text(self, line: int, value: str | UnsetType | None, name: str) -> str | UnsetType | None:
        """A text or null; UNSET, and a problem, if the row does not have it. An empty cell of a table is null."""
        if value is not UNSET:
            self._missing[name] = False
        elif value is UNSET and self.form == formats.JSON:
            others = [other for other in self._missing if not kinds.is_in_header(other, [*self.raw], self.source)]
            needed = ("asr_text", "reference_text") if self._shape is Pair else ("asr_text",)
            self.add_missing([other for other in needed if other == name or other in others], line)
        elif value is UNSET:
            return None
        return value

    def row(self, line: int, row: Prediction, asr: str, name: str, reference: str, split: str = "") -> Row | None:
        """A row of the dataset; None, and a problem, if it holds what no prompt can show. split: of its reference."""
        hypotheses = self._hypotheses(line, row) if row.hypotheses or row.n_best_hypotheses else ()
        telemetry: dict[str, Any] = {} if row.ctc_confidence is None else {"ctc_confidence": row.ctc_confidence}
        telemetry |= row.trajectory_scalars
        if row.telemetry or row.char_posteriors_summary:
            telemetry = row.char_posteriors_summary | row.telemetry | telemetry
            if depth(telemetry) > DEEPEST:
                what = f"telemetry is nested deeper than {DEEPEST}"
                self.problems.add(what, self.where(line), "map its members one by one")
                return None
        if hypotheses is None:
            return None
        # Where nothing was heard, or said, nothing is stable: the row would teach to answer nothing, or to invent.
        is_stable = (
            row.partition == "stable" and "stable" in self._source.use and bool(asr.strip() and reference.strip())
        )
        return Row(
            row_id=f"{self.stem}:{name}" if name else full_id(self.path, "", row),
            source=self.stem,
            file=self.path,
            line=line,
            evidence_kind=_evidence(self._source.evidence_kind, row.mode),
            target_text=asr if is_stable else reference,
            asr_text=asr,
            reference_text=reference,
            partition=row.partition,
            telemetry=self._map.visible(telemetry, self.unused),
            hypotheses=hypotheses,
            keys=group_keys(row),
            own_split=self._own_split(line, row, split) if split else str(row.split),
            given_split=given_split(self._source),
            is_silent=not reference.strip(),
        )

    def finish(self, ledger: Ledger) -> None:
        """As Reader.finish; a column that every row of a table lacks is a problem."""
        missing = [name for name, is_missing in self._missing.items() if is_missing and self.count]
        if missing and not self.problems.first and not self.add_missing_columns(missing):
            self.problems.add(f"no row has {' or '.join(missing)}", self.path, "name the columns in `fields`")
        super().finish(ledger)

    def _own_split(self, line: int, row: Prediction, split: str) -> str:
        """The split of a row whose reference has one; a problem if the prediction has another."""
        own = str(row.split)
        is_other = (split_of(own) or own) != (split_of(split) or split)
        if own and is_other and self._source.split in ("", "row"):
            what = f"split is {quoted(own)}, but {quoted(split)} where its reference is"
            self.problems.add(what, self.where(line), 'correct one of them, or set split = "divide"')
        return own or split

    def _hypotheses(self, line: int, row: Prediction) -> tuple[str, ...] | None:
        """The texts that the recogniser offers; None, and a problem, if they cannot be read."""
        try:
            return hypothesis_texts(row.hypotheses or row.n_best_hypotheses)
        except ValueError as error:
            what, hint = error.args
            self.problems.add(what, self.where(line), hint)
            return None


def _evidence(declared: str, mode: str) -> str:
    """The kind of evidence of a row. One that calls itself synthetic is not real, whatever its source declares."""
    return SYNTHETIC if declared == REAL and mode.strip().casefold().startswith(SYNTHETIC) else declared


class Pairs:
    """The predictions of a source, each with its reference beside it. shape: of a prediction."""

    def __init__(self, source: Source, root: Path, ledger: Ledger, shape: type[Prediction]) -> None:
        self.source, self.root, self.ledger, self.shape = source, root, ledger, shape
        self.left = FieldMap(source, CANONICAL, (), is_whole=False, shape=shape)
        self.predictions = paths(source.path, root)

    def rows(self) -> Iterator[Row]:
        """Each prediction with its reference."""
        for path in self.predictions:
            reader = self.reader(path)
            yield from self.pairs(reader)
            reader.finish(self.ledger)
        self.finish(self.used())

    def reader(self, path: str) -> Predictions:
        """A file of predictions."""
        return Predictions(path, self.root, self.left, self.source, self.shape)

    def pairs(self, reader: Predictions) -> Iterator[Row]:
        """The rows of a file of predictions, or a part of one, that have a reference."""
        for line, row, asr in reader.rows():
            given = row.reference_text if isinstance(row, Pair) else UNSET
            reference, name = reader.text(line, given, "reference_text"), own_name(row)
            if reference is None:
                self.ledger.drop(reader.path, line, full_id(reader.path, name, row), NULL_REFERENCE)
            elif isinstance(reference, str) and (made := reader.row(line, row, asr, name, reference)) is not None:
                yield made

    def used(self) -> bytes:
        """1 for each reference with a prediction, 0 for each without, as they were read."""
        return b""

    def unmatched(self) -> list[str]:
        """The keys of predictions without a reference, as they were read."""
        return []

    def finish(self, used: bytes) -> None:
        """Drop the references without a prediction."""


class Join(Pairs):
    """A join of predictions and references, and where the rows of all its files are. The references are held."""

    def __init__(self, source: Source, root: Path, ledger: Ledger) -> None:
        super().__init__(source, root, ledger, Prediction)
        self.right = FieldMap(source, CANONICAL, (), is_whole=False, shape=Reference)
        self.references = paths(source.references, root)
        self.files = [*self.references, *self.predictions]
        self.key = self._key()
        self.held: dict[str, bytes | int] = {}
        """Key -> the text of its reference; once its prediction was read, the place of that."""
        self.numbered = set[str]()
        """Files whose rows are known by their number instead of their line."""
        self.places = array("Q")
        """Places of the references, in the order of `held`, which they fill first."""
        for number, path in enumerate(self.references):
            self._hold(path, number)

    def _hold(self, path: str, number: int) -> None:
        """Read a file of references."""
        reader, twice, key = Reader(path, self.root, self.right.columns, self.source), dict[str, list[int]](), self.key
        for line, row in reader.mapped_rows(self.right, Reference):
            name = key_text(getattr(row, key))
            if not name:
                self.ledger.drop(path, line, full_id(path, "", row), NO_PREDICTION)
            elif name in self.held:
                twice.setdefault(name, []).append(line)
            else:
                split = SPLIT + str(row.split).encode() if row.split != "" else b""
                self.held[name] = NULL if row.reference_text is None else row.reference_text.encode() + split
                self.places.append(number << LINE_BITS | line)
        if reader.is_numbered:
            self.numbered.add(path)
        if twice:
            first = {name: where for name, where in zip(self.held, self.places, strict=True) if name in twice}
            for line, name in sorted((line, name) for name, lines in twice.items() for line in lines):
                self._add_repeated(reader, line, name, first[name])
        reader.finish(self.ledger)

    def pairs(self, reader: Predictions) -> Iterator[Row]:
        """The rows of a file of predictions, or a part of one, that have a reference."""
        path, held, key = reader.path, self.held, self.key
        number = self.files.index(path)
        for line, row, asr in reader.rows():
            name = key_text(getattr(row, key))
            partner = held.get(name) if name else None
            if isinstance(partner, int):
                self._add_repeated(reader, line, name, partner)
                continue
            if name:
                held[name] = number << LINE_BITS | line
            if partner is None or partner == NULL:
                reason = NO_REFERENCE if partner is None else NULL_REFERENCE
                self.ledger.drop(path, line, full_id(path, name, row), reason)
                continue
            text, _, split = partner.partition(SPLIT)
            if (made := reader.row(line, row, asr, name, text.decode(), split.decode())) is not None:
                yield made
        if reader.is_numbered:
            self.numbered.add(path)

    def used(self) -> bytes:  # noqa: D102
        return bytes(text.__class__ is int for text in itertools.islice(self.held.values(), len(self.places)))

    def unmatched(self) -> list[str]:  # noqa: D102
        return [*itertools.islice(self.held, len(self.places), None)]

    def finish(self, used: bytes) -> None:  # noqa: D102
        if not any(used):
            raise self._unjoined()
        for name, where, is_used in zip(self.held, self.places, used, strict=False):
            if not is_used:
                path, line = self._at(where)
                self.ledger.drop(path, line, f"{stem(path)}:{name}", NO_PREDICTION)

    def _unjoined(self) -> ThunderError:
        """That no prediction has a reference, with a key of each side."""
        sides = [(self.predictions[0], self.left), (self.references[0], self.right)]
        shown = [quoted(key_text(next(self._key_values(*side))[JOIN_KEYS.index(self.key)])) for side in sides]
        what = f"no {self.key} is on both sides: {' here, '.join(shown)} there, for example"
        where = f"{self.source.path}, {self.source.references}"
        return ThunderError(what, where, f"write {self.key} alike in both, or map another key in fields")

    def _key(self) -> str:
        """The first join key that every row of both sides carries, else the first that both sides carry at all.

        The problems of a malformed file are raised when its rows are read.
        """
        right = self._carried(self.references, self.right)
        left = self._carried(self.predictions, self.left) if right else None
        if right is None or left is None:
            return JOIN_KEYS[0]
        for on_left, on_right in zip(left, right, strict=True):
            for key in JOIN_KEYS:
                if key in on_left and key in on_right:
                    return key
        where, hint = f"{self.source.path}, {self.source.references}", f"give both files one of: {', '.join(JOIN_KEYS)}"
        mapped = [key for key in JOIN_KEYS if key in self.source.fields]
        row = first_row((self.references if mapped else self.predictions)[0], self.root, self.source)
        meant = [*kinds.near(mapped or JOIN_KEYS[:2], [*row]).items()][:1]
        if meant and mapped:
            hint = f"call the field {quoted(meant[0][1])} of the references {meant[0][0]}, or {hint}"
        elif meant and not row.keys() & {*JOIN_KEYS}:
            hint = f"set {kinds.as_toml(dict(meant), row)}, or {hint}"
        raise ThunderError("share no join key", where=where, hint=hint)

    def _carried(self, files: list[str], field_map: FieldMap) -> tuple[set[str], set[str]] | None:
        """The join keys that all rows of some files carry, and those that any carries; None if a file is malformed."""
        by_all, by_any = set(JOIN_KEYS), set[str]()
        try:
            for path in files:
                values = self._key_values(path, field_map)
                lacking = {(one in LACKING, two in LACKING, three in LACKING) for one, two, three in values}
                if not lacking:
                    return None
                for lacks in lacking:
                    by_all -= {key for key, is_lacking in zip(JOIN_KEYS, lacks, strict=True) if is_lacking}
                    by_any |= {key for key, is_lacking in zip(JOIN_KEYS, lacks, strict=True) if not is_lacking}
        except (*packed.DAMAGE, RecursionError, ThunderError):
            return None
        return by_all, by_any

    def _key_values(self, path: str, field_map: FieldMap) -> Iterator[tuple[Any, ...]]:
        """The values of JOIN_KEYS in each row. Raises ValueError, RecursionError or ThunderError."""
        declared = {*self.source.fields, *self.source.constants, *self.source.enums}
        reader = Reader(path, self.root, field_map.columns, self.source)
        is_plain = reader.form == formats.JSON and not self.source.rows and not declared & {*JOIN_KEYS}
        if is_plain and reader.layout == json_rows.LINES:
            for several in packed.whole_lines(path, self.root):
                for keys in DECODE_KEYS(several):  # in a tenth of the time that whole rows would take
                    yield keys.audio_path, keys.segment_id, keys.feat_id
        else:
            for _, row in reader.mapped(field_map):
                yield row.get(JOIN_KEYS[0]), row.get(JOIN_KEYS[1]), row.get(JOIN_KEYS[2])
        reader.problems.raise_all()

    def _add_repeated(self, reader: Reader, line: int, name: str, first: int) -> None:
        path, row = self._at(first)
        is_numbered = reader.is_numbered if path == reader.path else path in self.numbered
        what = f"{self.key} {quoted(name)} is also at {place(path, row, is_numbered)}"
        reader.problems.add(what, reader.where(line), "a join key must be unique")

    def _at(self, where: int) -> tuple[str, int]:
        """File and line of a place."""
        return self.files[where >> LINE_BITS], where & ((1 << LINE_BITS) - 1)
