"""Rows in: correction reports, the ASR row contract, and ChatML.

Input: the files that a `config.Source` names.  Output: `Loaded`: the rows that teach, and the rest counted by reason.
"""

from pathlib import Path

import msgspec

from thunder_train import ThunderError, reports
from thunder_train.config import Source
from thunder_train.rows import Loaded, Located, Row, convert_all, lacking, objects, raise_some

JOIN_KEYS = ("audio_path", "segment_id", "feat_id")
"""In the order in which a join tries them."""
PREDICTION_FIELDS = ("audio_path", "split", "script", "mode", "asr_text", "ctc_confidence", "partition")
ROLES = ("system", "user", "assistant")


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ASR row contract. `cer_edits` is left out on purpose: it is computed from the reference."""

    audio_path: str
    asr_text: str
    ctc_confidence: float
    partition: str
    segment_id: str | int = ""
    feat_id: str | int = ""
    trajectory_scalars: dict[str, float] = {}


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What was said, written by a human."""

    reference_text: str


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: str
    content: str


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One ChatML row; the last message is the answer to learn."""

    messages: tuple[Message, ...]
    id: str | int = ""
    group: str = ""
    partition: str = ""
    asr_text: str = ""
    reference_text: str = ""


def read(source: Source, root: Path) -> Loaded:
    """The rows of a source, in file order, and the count of those left out."""
    return {"report": reports.read, "rows": _joined, "chatml": _chatml}[source.kind](source, root)


def _joined(source: Source, root: Path) -> Loaded:
    """Predictions of the row contract, each with its reference; the target is the reference."""
    predictions, references = objects(source.path, root), objects(source.references, root)
    raise_some([*lacking(predictions, PREDICTION_FIELDS), *lacking(references, ("reference_text",))])
    key = _join_key(source, predictions, references)
    left, right = _unique(predictions, key), _unique(references, key)
    names = [name for name in left if name in right]
    unjoined = {
        "prediction without a reference": len(predictions) - len(names),
        "reference without a prediction": len(references) - len(names),
    }
    hypotheses = convert_all([left[name] for name in names], Prediction)
    targets = convert_all([right[name] for name in names], Reference)
    rows = [_from_pair(source, *pair) for pair in zip(names, hypotheses, targets, strict=True)]
    counts = {source.path: len(predictions), source.references: len(references)}
    return Loaded(rows=rows, rows_read=counts, dropped={reason: n for reason, n in unjoined.items() if n})


def _join_key(source: Source, predictions: list[Located], references: list[Located]) -> str:
    """The first join key that every row of both files carries, else the first that both files carry at all."""
    for enough in (all, any):
        for key in JOIN_KEYS:
            if all(enough(row.get(key) for _, row in side) for side in (predictions, references)):
                return key
    where = f"{source.path}, {source.references}"
    raise ThunderError("share no join key", where=where, mend=f"give both files one of: {', '.join(JOIN_KEYS)}")


def _unique(located: list[Located], key: str) -> dict[str, Located]:
    """Join value -> object. A value that two rows share would pair the wrong rows, so it is an error."""
    found: dict[str, Located] = {}
    problems = []
    for where, row in located:
        name = str(row.get(key) or "")
        if name in found:
            what = f"{key} {name!r} is also at {found[name][0]}"
            problems.append(ThunderError(what, where=where, mend="a join key must be unique"))
        elif name:
            found[name] = (where, row)
    raise_some(problems)
    return found


def _from_pair(source: Source, name: str, row: Prediction, reference: Reference) -> Row:
    """A prediction and its reference as every source's row."""
    stem = Path(source.path).stem
    return Row(
        row_id=f"{stem}:{name}",
        group=row.audio_path,
        source=stem,
        evidence_kind=source.evidence_kind,
        target_text=reference.reference_text,
        asr_text=row.asr_text,
        reference_text=reference.reference_text,
        partition=row.partition,
        telemetry={"ctc_confidence": row.ctc_confidence, **row.trajectory_scalars},
    )


def _chatml(source: Source, root: Path) -> Loaded:
    """Conversations as they are; the last message must be the assistant's."""
    found = objects(source.path, root)
    raise_some(lacking(found, ("messages",)))
    conversations = convert_all(found, Conversation)
    places = [where for where, _ in found]
    raise_some([problem for pair in zip(places, conversations, strict=True) for problem in _wrong(*pair)])
    rows = [_from_conversation(source, where, row) for where, row in zip(places, conversations, strict=True)]
    return Loaded(rows=rows, rows_read={source.path: len(found)}, dropped={})


def _wrong(where: str, conversation: Conversation) -> list[ThunderError]:
    """What is wrong with a conversation: an unknown role, or no answer at its end."""
    roles = [message.role for message in conversation.messages]
    mend = f"use one of: {', '.join(ROLES)}"
    problems = [ThunderError(f"unknown role {role!r}", where=where, mend=mend) for role in roles if role not in ROLES]
    if roles[-1:] != ["assistant"] or "user" not in roles:
        mend = "end it with the answer to learn"
        problems.append(ThunderError("is not a question and its answer", where=where, mend=mend))
    return problems


def _from_conversation(source: Source, where: str, row: Conversation) -> Row:
    """A conversation as every source's row; its line number stands in for a missing id."""
    stem, name = Path(source.path).stem, str(row.id) or where.rpartition(":")[2]
    return Row(
        row_id=f"{stem}:{name}",
        group=row.group or f"{stem}:{name}",
        source=stem,
        evidence_kind=source.evidence_kind,
        target_text=row.messages[-1].content,
        asr_text=row.asr_text,
        reference_text=row.reference_text,
        partition=row.partition,
        messages=tuple({"role": message.role, "content": message.content} for message in row.messages),
    )
