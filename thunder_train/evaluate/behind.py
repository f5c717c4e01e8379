"""Which rows stand behind a reason against an adapter.

Input: predictions, decisions and dropped rows of a run.  Output: ids, in the order of the files.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from thunder_train.config.profiles import Profile
from thunder_train.core.drop_reasons import LACKING
from thunder_train.core.text import nfc
from thunder_train.evaluate import chat_answers, collapse, gate
from thunder_train.evaluate.conditions import gated_edits
from thunder_train.evaluate.silence import is_silent

KEPT = frozenset({"stable", "novelty"})
"""Partitions whose text no gate may change: the recogniser was sure of it, or nobody is."""
Line = dict[str, Any]
"""A line of one of the files."""


@dataclass(frozen=True)
class Rows:
    """The rows of a run, by the file that has them."""

    predictions: Sequence[Line] = ()
    decisions: Sequence[Line] = ()
    """Without the header."""
    dropped: Sequence[Line] = ()
    """Rows of the dataset that are not used."""


def lacking(rows: Rows) -> list[str]:
    """Rows that were dropped for want of a reference or a text."""
    return [row["id"] for row in rows.dropped if row["reason"] in LACKING]


def without_reference(rows: Rows) -> list[str]:
    """Test rows that no error rate covers, chats left out."""
    return [
        row["id"]
        for row in rows.predictions
        if not (row["reference_text"].strip() or is_silent(row) or chat_answers.is_chat(row))
    ]


def worse(rows: Rows, profile: Profile) -> list[str]:
    """Rows that the gated text makes worse."""
    decisions, found = {each["id"]: each for each in rows.decisions}, []
    for row in rows.predictions:
        decision = decisions.get(row["id"])
        if decision and decision["verdict"] == gate.ACCEPT and (row["reference_text"].strip() or is_silent(row)):
            before, after = gated_edits(row, decision, profile)
            found += [row["id"]] * (after > before)
    return found


def collapsed(rows: Rows, sentence: str) -> list[str]:
    """Rows whose answers are degenerate in the way that a sentence of the probe names."""
    kind = next((kind for kind, predicate in collapse.BEHAVIOURS.items() if f" {predicate};" in sentence), "")
    answers = zip(rows.predictions, collapse.answers(list(rows.predictions), "adapter"), strict=True)
    return [row["id"] for row, answer in answers if kind and kind in collapse.faults(answer)]


def changed_in_kept(rows: Rows) -> list[str]:
    """Rows of KEPT partitions whose text the gate changed."""
    return [
        each["id"]
        for each in rows.decisions
        if each["partition"].strip().casefold() in KEPT and nfc(each["final"]) != nfc(each["hypothesis"])
    ]


def unwitnessed(rows: Rows) -> list[str]:
    """Rows whose decision has no well-formed witness."""
    return [each["id"] for each in rows.decisions if each["witness"] is None]


def sharing_witness(rows: Rows) -> list[str]:
    """Rows whose witness is that of another slice or of another recording: a token belongs to one slice."""
    groups = {row["id"]: row.get("group", row["id"]) for row in rows.predictions}
    slices, holders = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    witnessed = [each for each in rows.decisions if each["witness"] is not None]
    for each in witnessed:
        slices[each["witness"]["token"]].add(each["witness"]["slice_id"])
        holders[each["witness"]["token"]].add(str(groups.get(each["id"], each["id"])))
    tokens = [each["witness"]["token"] for each in witnessed]
    is_shared = [len(slices[token]) > 1 or len(holders[token]) > 1 for token in tokens]
    return [each["id"] for each, holds in zip(witnessed, is_shared, strict=True) if holds]


def first(ids: Iterable[str], most: int) -> Iterator[str]:
    """The first ids, at most so many, each once."""
    yield from list(dict.fromkeys(ids))[:most]
