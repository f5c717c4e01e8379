"""Reads the rows of a source of any kind: correction reports, ASR rows, ChatML, completions, plain text.

Input: the files that a `config.dataset.Source` names.  Output: a stream of usable rows; a `Ledger` has the others.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from thunder_train.config.dataset import Source
from thunder_train.data import asr_rows, conversations, correction_reports
from thunder_train.data.conversations import Conversation as Talk
from thunder_train.data.field_map import FieldMap
from thunder_train.data.readers import Reader, full_id, paths, stem
from thunder_train.data.rows import Ledger, Row, given_split, group_keys


class SimpleRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a row of every simple kind may carry besides its texts."""

    id: str | int = ""
    group: str | int = ""
    """As video_id, for files that have one kind of group only."""
    video_id: str | int = ""
    audio_path: str = ""
    segment_id: str | int = ""
    feat_id: str | int = ""
    split: str | int = ""
    partition: str = ""
    asr_text: str = ""
    reference_text: str = ""


class Conversation(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """One ChatML row, whose members data/conversations.py reads."""

    messages: list[Any]
    tools: Any = None


class Completion(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """A question and its answer."""

    prompt: str
    completion: str


class Text(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """An answer without a question."""

    text: str


SHAPES: dict[str, type[Conversation] | type[Completion] | type[Text]] = {
    "chatml": Conversation,
    "completions": Completion,
    "text": Text,
}


def read(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """The rows of a source, in file order. Raises all problems of a file at its end.

    ledger receives the number of rows of each file, and those that are not used.
    """
    if source.kind == "report":
        return correction_reports.read(source, root, ledger)
    return asr_rows.read(source, root, ledger) if source.kind == "rows" else _simple(source, root, ledger)


def _simple(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """Rows that are texts and little else."""
    shape = SHAPES[source.kind]
    field_map = FieldMap(source, shape.__struct_fields__, (), is_whole=False, shape=shape)
    for path in paths(source.path, root):
        reader = Reader(path, root, field_map.columns)
        for line, values in reader.mapped(field_map):
            row = reader.shaped(line, values, shape)
            if row is None:
                continue
            talk = _conversation(row, path, ledger)
            for what, hint in (*conversations.row_problems(values), *talk.problems):
                reader.problems.add(what, reader.where(line), hint)
            if talk.reason:
                ledger.drop(path, line, full_id(path, row.id, row), talk.reason)
            elif not talk.problems:
                yield _row(source, row, talk, path, line)
        reader.finish(ledger)


def _row(source: Source, row: Conversation | Completion | Text, talk: Talk, path: str, line: int) -> Row:
    keys = {"video_id": str(row.group)} if row.group != "" else {}
    return Row(
        row_id=full_id(path, row.id, row),
        source=stem(path),
        file=path,
        line=line,
        evidence_kind=source.evidence_kind,
        target_text=row.text if isinstance(row, Text) else talk.messages[-1]["content"],
        asr_text=row.asr_text,
        reference_text=row.reference_text,
        partition=row.partition,
        messages=talk.messages,
        tools=talk.tools,
        keys=keys | group_keys(row),
        own_split=str(row.split),
        given_split=given_split(source),
        is_text=isinstance(row, Text),
    )


def _conversation(row: Conversation | Completion | Text, path: str, ledger: Ledger) -> Talk:
    """The conversation that the answer to learn ends; an empty one for plain text."""
    if isinstance(row, Conversation):
        return conversations.read(row.messages, row.tools, ledger.unused_in(path), ledger.notes)
    if isinstance(row, Completion):
        return Talk(({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion}))
    return Talk()
