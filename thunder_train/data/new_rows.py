"""New rows of a recogniser, which have no reference: prompts for an adapter, as its dataset would make them.

Input: a file of any format that a source can have.  Output: a `NewRow` for each row, in order, with the messages of its
prompt or why there is none. A row that cannot be read is a problem of the file, as in a dataset.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import PROMPTED, Dataset, Source
from thunder_train.data import formats, kinds, packed
from thunder_train.data.asr_contract import CANONICAL, JOIN_KEYS, Prediction, own_name
from thunder_train.data.asr_rows import Predictions
from thunder_train.data.collect import SILENT_HYPOTHESIS
from thunder_train.data.examples import Composer, Example, Message
from thunder_train.data.field_map import ABSENT, FieldMap, dig
from thunder_train.data.problems import Problems
from thunder_train.data.readers import first_row, stem
from thunder_train.data.rows import Ledger, Row, key_text

KEYS = ("id", "video_id", *JOIN_KEYS)
"""Fields of a row that tell which one it is."""
HEARD = ("asr_text", "hypotheses", "n_best_hypotheses")
"""Fields of which a new row needs one."""
LINES = (".txt", ".text", ".trn", ".hyp")
"""Names of files of plain text: a line is what the recogniser wrote."""


class NewRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row without a reference. line: its line, or its number in a list, from 1. row_id: as in a dataset.

    keys: those of KEYS that it has. asr_text: as it was read; hypothesis: as a gate sees it. messages: its prompt,
    empty if it is not asked. reason: why it is not, or "". has_reference: it came with one, which is ignored.
    """

    line: int
    row_id: str
    keys: dict[str, Any]
    asr_text: str
    hypothesis: str = ""
    partition: str = ""
    telemetry: dict[str, Any] = {}
    messages: tuple[Message, ...] = ()
    reason: str = ""
    has_reference: bool = False


def has_prompts(dataset: Dataset) -> bool:
    """Whether the dataset makes prompts of a recogniser's texts; else its rows are conversations or plain text."""
    return any(source.kind in PROMPTED for source in dataset.sources)


def read(dataset: Dataset, path: str, root: Path) -> Iterator[NewRow]:
    """Every row of a file. Raises ThunderError with all of its problems at its end.

    The field map is that of the first source that leads to a text in the file's first row, else the contract's own
    names.
    """
    composer = Composer(dataset, root)
    if formats.suffix(path) in LINES:
        yield from (of_text(composer, text, path, line) for line, text in _text_lines(path, root))
        return
    source = _fitting(dataset, path, root)
    reader = Predictions(path, root, _field_map(source), source)
    reference = source.fields.get("reference_text", "reference_text")
    for line, row, asr in reader.rows():
        made = reader.row(line, row, asr, _name(row, source), "")
        if made is not None:
            yield _new(composer, made, _keys(row), dig(reader.raw, reference) not in (ABSENT, None, ""))
    reader.finish(Ledger())


def of_text(composer: Composer, text: str, path: str = "", line: int = 1) -> NewRow:
    """A row that is a text alone."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    row = Row(
        row_id=f"{stem(path)}:{digest}",
        source=stem(path),
        file=path,
        line=line,
        evidence_kind="",
        target_text="",
        asr_text=text,
        is_silent=True,
    )
    return _new(composer, row, {}, has_reference=False)


def _new(composer: Composer, row: Row, keys: dict[str, Any], has_reference: bool) -> NewRow:
    """row: of a dataset, with an empty reference."""
    example = composer.compose(row) if row.asr_text.strip() else SILENT_HYPOTHESIS
    is_heard = isinstance(example, Example) and bool(example.asr_text.strip())
    reason = example if isinstance(example, str) else "" if is_heard else SILENT_HYPOTHESIS
    return NewRow(
        line=row.line,
        row_id=row.row_id,
        keys=keys,
        asr_text=row.asr_text,
        hypothesis=example.asr_text.strip() if isinstance(example, Example) else "",
        partition=row.partition,
        telemetry=row.telemetry,
        messages=example.messages[:-1] if isinstance(example, Example) and is_heard else (),
        reason=reason,
        has_reference=has_reference,
    )


def _keys(row: Prediction) -> dict[str, Any]:
    given = {name: getattr(row, name) for name in KEYS}
    return {name: value for name, value in given.items() if value != ""}


def _name(row: Prediction, source: Source) -> str:
    """The row's own part of its id: of rows that were joined the key that joins, as in the dataset."""
    keys = [key_text(getattr(row, key)) for key in JOIN_KEYS] if source.references and row.id == "" else []
    return next(filter(None, keys), own_name(row))


def _fitting(dataset: Dataset, path: str, root: Path) -> Source:
    """The source of the dataset whose field map fits a file, as one of predictions."""
    sources = [_predictions(source, path) for source in dataset.sources if source.kind in PROMPTED]
    plain = replace(sources[0], fields={}, constants={}, enums={}, reference_side=(), rows="")
    for source in (*sources, plain):
        for rows in dict.fromkeys((source.rows, "")):
            with contextlib.suppress(ThunderError):  # raised again below, if no source fits
                candidate = replace(source, rows=rows)
                values = _field_map(candidate).applied(first_row(path, root, candidate))[0]
                if any(name in values for name in HEARD):
                    return candidate
    return replace(sources[0], rows="")


def _predictions(source: Source, path: str) -> Source:
    """A source of any kind as one whose rows are a file of predictions; what it says of references is left out."""
    fields = {**(kinds.NEMO if source.kind == "nemo" else {}), **source.fields}
    if "row_id" in fields:
        fields["id"] = fields.pop("row_id")

    def kept(names: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in names.items() if name.partition(".")[0] in CANONICAL}

    return replace(
        source,
        kind="rows",
        path=path,
        fields=kept(fields),
        constants=kept(source.constants),
        enums=kept(source.enums),
        reference_side=tuple(kept(dict.fromkeys(source.reference_side))),
    )


def _field_map(source: Source) -> FieldMap:
    return FieldMap(source, CANONICAL, (), is_whole=False, shape=Prediction)


def _text_lines(path: str, root: Path) -> Iterator[tuple[int, str]]:
    """Each line of a file of plain text, an empty one too."""
    problems, count = Problems(path), 0
    for count, line in packed.lines(path, root, problems):
        try:
            yield count, line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            problems.keep(packed.not_utf8(line, error, path, count))
    if not count:
        problems.add("is empty", path, "give a file with rows")
    problems.raise_all()
