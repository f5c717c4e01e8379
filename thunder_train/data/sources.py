"""Reads the rows of a source of any kind: correction reports, ASR rows, ChatML, completions, plain text.

Input: the files that a `config.dataset.Source` names.  Output: a stream of usable rows; a `Ledger` has the others.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data import asr_rows, correction_reports
from thunder_train.data.field_map import FieldMap
from thunder_train.data.readers import Reader, full_id, paths, stem
from thunder_train.data.rows import Ledger, Row, group_keys

ROLES = ("system", "user", "assistant")


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: str
    content: str


class SimpleRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a row of every simple kind may carry besides its texts."""

    id: str | int = ""
    group: str | int = ""
    """As video_id, for files that have one kind of group only."""
    video_id: str | int = ""
    audio_path: str = ""
    segment_id: str | int = ""
    feat_id: str | int = ""
    partition: str = ""
    asr_text: str = ""
    reference_text: str = ""


class Conversation(SimpleRow, frozen=True, kw_only=True, omit_defaults=True):
    """One ChatML row; the last message is the answer to learn."""

    messages: tuple[Message, ...]


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
    field_map = FieldMap(source, shape.__struct_fields__, (), is_whole=False)
    for path in paths(source.path, root):
        reader = Reader(path, root, field_map.columns)
        for line, row in reader.mapped_rows(field_map, shape):
            if not (isinstance(row, Conversation) and _is_wrong(row, reader, line)):
                yield _row(source, row, path, line)
        reader.finish(ledger)


def _is_wrong(row: Conversation, reader: Reader, line: int) -> bool:
    """Whether a conversation has an unknown role, or no answer at its end; each is a problem."""
    roles = [message.role for message in row.messages]
    unknown = [role for role in roles if role not in ROLES]
    for role in unknown:
        reader.problems.add(f"unknown role {quoted(role)}", reader.where(line), f"use one of: {', '.join(ROLES)}")
    is_answered = roles[-1:] == ["assistant"] and "user" in roles
    if not is_answered:
        hint = "end it with the answer to learn"
        reader.problems.add("is not a question and its answer", reader.where(line), hint)
    return bool(unknown) or not is_answered


def _row(source: Source, row: Conversation | Completion | Text, path: str, line: int) -> Row:
    target, messages = _conversation(row)
    keys = {"video_id": str(row.group)} if row.group != "" else {}
    return Row(
        row_id=full_id(path, row.id, row),
        source=stem(path),
        file=path,
        line=line,
        evidence_kind=source.evidence_kind,
        target_text=target,
        asr_text=row.asr_text,
        reference_text=row.reference_text,
        partition=row.partition,
        messages=messages,
        keys=keys | group_keys(row),
        is_text=isinstance(row, Text),
    )


def _conversation(row: Conversation | Completion | Text) -> tuple[str, tuple[dict[str, str], ...]]:
    """The answer to learn, and the conversation that it ends; () for plain text."""
    if isinstance(row, Conversation):
        messages = tuple({"role": message.role, "content": message.content} for message in row.messages)
        return messages[-1]["content"], messages
    if isinstance(row, Completion):
        messages = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
        return row.completion, messages
    return row.text, ()
