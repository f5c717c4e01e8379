"""Rows that hold their own prompt, or are plain text: chatml, sharegpt, alpaca, completions, text.

Input: the files of a source.  Output: usable rows; the ledger has the others.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from thunder_train.config.dataset import Source
from thunder_train.data import chat_shapes, conversations
from thunder_train.data.chat_shapes import Shape, Text
from thunder_train.data.conversations import Conversation
from thunder_train.data.field_map import FieldMap
from thunder_train.data.readers import Reader, full_id, stem
from thunder_train.data.rows import Ledger, Row, given_split, group_keys, hypothesis_texts, key_text


class Origin(NamedTuple):
    """Where a row is from: members of `Row`."""

    file: str
    line: int
    row_id: str
    source: str
    given_split: str


def read(
    source: Source, path: str, root: Path, ledger: Ledger, kind: str = "", label: str = "", split: str = ""
) -> Iterator[Row]:
    """The rows of one file. Raises all its problems at its end.

    kind: that of the source, if not given.  label: what begins the rows' ids, the file's stem if not given.  split: to
    which the file's rows go, "" if the source says it.
    """
    shape = chat_shapes.SHAPES[kind or source.kind]
    field_map = FieldMap(source, shape.__struct_fields__, (), is_whole=False, shape=shape)
    reader = Reader(path, root, field_map.columns, source)
    for line, values in reader.mapped(field_map):
        row: Shape | None = reader.shaped(line, values, shape)
        if row is None:
            continue
        talk = _conversation(row, path, ledger)
        weight, wrong = conversations.row_weight({"weight": row.weight, "train": row.train})
        problems = [
            *conversations.row_problems(values, source.fields.values()),
            *wrong,
            *chat_shapes.problems(row),
            *talk.problems,
        ]
        try:
            hypotheses = hypothesis_texts(row.hypotheses)
        except ValueError as error:
            problems.append(error.args)
        for what, hint in problems:
            reader.problems.add(what, reader.where(line), hint)
        row_id = full_id(label or path, row.id, row)
        if reason := talk.reason or ("" if weight else conversations.UNTRAINED_ROW):
            ledger.drop(path, line, row_id, reason)
        elif not problems:
            origin = Origin(path, line, row_id, label or stem(path), split or given_split(source))
            yield _row(source, row, talk, origin, hypotheses)
    reader.finish(ledger)


def _row(source: Source, row: Shape, talk: Conversation, origin: Origin, hypotheses: tuple[str, ...]) -> Row:
    keys = {"video_id": key_text(row.group)} if row.group != "" else {}
    return Row(
        **origin._asdict(),
        evidence_kind=source.evidence_kind,
        target_text=row.text if isinstance(row, Text) else talk.messages[-1]["content"],
        asr_text=row.asr_text or (hypotheses[0] if hypotheses and not isinstance(row.hypotheses, str) else ""),
        hypotheses=hypotheses,
        reference_text=row.reference_text,
        partition=row.partition,
        messages=talk.messages,
        tools=talk.tools,
        keys=keys | group_keys(row),
        own_split=str(row.split),
        is_text=isinstance(row, Text),
    )


def _conversation(row: Shape, path: str, ledger: Ledger) -> Conversation:
    """The conversation that the answer to learn ends; an empty one for plain text."""
    if isinstance(row, Text):
        return Conversation()
    tools = getattr(row, "tools", None)
    return conversations.read(chat_shapes.messages(row), tools, ledger.unused_in(path), ledger.notes)
