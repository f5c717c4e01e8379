"""Rows in: correction reports, the ASR row contract, ChatML, completions and plain text.

Input: the files that a `config.Source` names.  Output: a stream of rows that teach; a `Ledger` tells the others.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data import asr_rows, correction_reports
from thunder_train.data.field_map import Map, group_keys
from thunder_train.data.readers import Reader, own_id, paths, stem
from thunder_train.data.rows import Ledger, Row

ROLES = ("system", "user", "assistant")


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: str
    content: str


class Plain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a row of every simple kind may carry besides its texts."""

    id: str | int = ""
    group: str | int = ""
    """As video_id, for files that have but one kind of group."""
    video_id: str | int = ""
    audio_path: str = ""
    segment_id: str | int = ""
    feat_id: str | int = ""
    partition: str = ""
    asr_text: str = ""
    reference_text: str = ""


class Conversation(Plain, frozen=True, kw_only=True, omit_defaults=True):
    """One ChatML row; the last message is the answer to learn."""

    messages: tuple[Message, ...]


class Completion(Plain, frozen=True, kw_only=True, omit_defaults=True):
    """A question and its answer."""

    prompt: str
    completion: str


class Text(Plain, frozen=True, kw_only=True, omit_defaults=True):
    """An answer without a question."""

    text: str


SHAPES: dict[str, type[Plain]] = {"chatml": Conversation, "completions": Completion, "text": Text}


def read(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """The rows of a source, in file order. What is wrong in a file is raised, all together, at its end.

    ledger takes the rows of each file, and those that do not teach.
    """
    if source.kind == "report":
        return correction_reports.read(source, root, ledger)
    return asr_rows.read(source, root, ledger) if source.kind == "rows" else _simple(source, root, ledger)


def _simple(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """Rows that are texts and little else."""
    shape = SHAPES[source.kind]
    mapped = Map(source, shape.__struct_fields__, (), is_whole=False)
    for path in paths(source.path, root):
        reader = Reader(path, root, mapped.columns)
        for line, raw in reader.objects():
            value = mapped.applied(raw, reader, line)
            row = reader.shaped(line, value, shape) if value is not None else None
            if row is not None and not (isinstance(row, Conversation) and _is_wrong(row, reader, line)):
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


def _row(source: Source, row: Plain, path: str, line: int) -> Row:
    """A simple row as every source's row."""
    target, turns = _said(row)
    keys = {"video_id": str(row.group)} if row.group != "" else {}
    return Row(
        row_id=own_id(path, row.id, row),
        source=stem(path),
        file=path,
        line=line,
        evidence_kind=source.evidence_kind,
        target_text=target,
        asr_text=row.asr_text,
        reference_text=row.reference_text,
        partition=row.partition,
        messages=turns,
        keys=keys | group_keys(row),
        needs_hypothesis=not isinstance(row, Text),
    )


def _said(row: Any) -> tuple[str, tuple[dict[str, str], ...]]:
    """The answer to learn, and the conversation that it ends; () for plain text."""
    if isinstance(row, Conversation):
        turns = tuple({"role": message.role, "content": message.content} for message in row.messages)
        return turns[-1]["content"], turns
    if isinstance(row, Completion):
        turns = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
        return row.completion, turns
    return row.text, ()
