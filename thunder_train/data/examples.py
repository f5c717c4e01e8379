"""A row of a source -> an example as it is written: in NFC, with a rendered prompt that does not hold the reference.

Input: `rows.Row`.  Output: `Example`, or why the row is not used.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import Dataset
from thunder_train.core import characters
from thunder_train.core.drop_reasons import EMPTY_TARGET
from thunder_train.core.text import nfc
from thunder_train.data import conversations, leak_check, orthography
from thunder_train.data.prompts import Prompts
from thunder_train.data.rows import GROUP_KEYS, Row
from thunder_train.data.spelling import Spelling

OWN_SYSTEM = "the dataset's system message is not used: a conversation has its own"
NO_SYSTEM = "the dataset's system message is not used: plain text has none"
NUMBERS = frozenset({float, int, bool, type(None)})
"""Types of telemetry that hold no text."""
SHOWN = 3
"""Leaking rows that an error names."""
TEXT = "text"
"""The group key whose value is the text of a row itself."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn. weight: 0 for an answer that must not be trained on."""

    content: str
    name: str = ""
    role: str
    tool_call_id: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()
    weight: int = 1


class Example(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a split, as it is written. Fields are in the order of their names, as in every file of the project."""

    asr_text: str
    group: str
    id: str
    messages: tuple[Message, ...]
    partition: str
    raw: dict[str, str] = {}
    """asr_text and reference_text as they were read, where they differ: for error rates of raw texts."""
    reference_text: str
    silent: bool = False
    """A reference was given and is empty: nothing was said."""
    source: str
    text: str = ""
    """All of a row of plain text, which has no messages."""
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of the functions that the answers may call."""

    @property
    def answer(self) -> str:
        """What the model shall write."""
        return self.messages[-1].content if self.messages else self.text

    @property
    def taught(self) -> tuple[Any, ...]:
        """All that a row teaches: rows in which it is equal are duplicates."""
        return self.messages, self.reference_text, self.text, self.tools


class Composer:
    """Makes the examples of a dataset.

    spelling: statistics of the answers, by source; notes: what was decided for many rows -> their number.
    """

    def __init__(self, dataset: Dataset, root: Path) -> None:
        self.spelling: dict[str, Spelling] = {}
        self.notes: Counter[str] = Counter()
        self.table = orthography.of_dataset(dataset)
        self._dataset = dataset
        self._where = f"thunder.toml: datasets.{dataset.name}"
        self._prompts = Prompts(dataset, root)
        self._given_prompts, self._shown = leak_check.Shown(), leak_check.Shown()
        self._static: set[str] = set()
        """Partitions that are no leak, whatever the reference is."""
        self._system = (Message(content=nfc(dataset.system), role="system"),) if dataset.system else ()

    def merge(self, other: "Composer") -> None:
        """Add what another noted of rows that follow on these."""
        for source in other.spelling:
            self._spelling_of(source).merge(other.spelling[source])
        self.notes.update(other.notes)
        self._shown.merge(other._shown)
        self._given_prompts.merge(other._given_prompts)

    def __getstate__(self) -> dict[str, Any]:
        """What `merge` needs, for another process."""
        return {name: vars(self)[name] for name in ("spelling", "notes", "_shown", "_given_prompts")}

    @property
    def problems(self) -> list[ThunderError]:
        """The leaks of all rows so far."""
        rendered, given = f"{self._where}.template", f"{self._where}.sources"
        return [
            *_leak(self._shown.leaks(), rendered, "take it out of the telemetry or the partition"),
            *_leak(
                self._given_prompts.leaks(),
                given,
                "take it out of the messages; if they show what was heard, map hypotheses to that field",
            ),
        ]

    def compose(self, row: Row) -> Example | str:
        """The example, or the reason to drop the row."""
        spelling, is_prose = self._spelling_of(row.source), row.is_given
        cleaned = self._uncounted if row.messages else spelling.cleaned  # messages are counted, each once
        asr, reference = cleaned(row.asr_text, is_prose), cleaned(row.reference_text, is_prose)
        target = reference if row.target_text == row.reference_text else cleaned(row.target_text, is_prose)
        is_silent = not is_prose and not reference and (row.is_silent or bool(row.reference_text.strip()))
        if not _is_seen(target) and not is_silent and not _is_call(row):
            return EMPTY_TARGET
        if reason := spelling.unfit(row.row_id, asr, reference, target, is_prose) or _unfit_message(row, self.table):
            return reason
        if row.target_text:
            spelling.add(row.target_text)
        heard = (asr, *[cleaned(each, is_prose) for each in row.hypotheses])
        messages = self._given(row, heard, reference) if is_prose else self._rendered(row, heard, reference, target)
        raw = {}
        if asr != row.asr_text:
            raw["asr_text"] = row.asr_text
        if reference != row.reference_text:
            raw["reference_text"] = row.reference_text
        return Example(
            asr_text=asr,
            group=self._group(row),
            id=row.row_id,
            messages=messages,
            partition=row.partition,
            raw=raw,
            reference_text=reference,
            silent=is_silent,
            source=row.source,
            text=target if row.is_text else "",
            tools=row.tools,
        )

    def _uncounted(self, text: str, is_prose: bool) -> str:
        return characters.cleaned(text, self.table, is_prose)

    def _spelling_of(self, source: str) -> Spelling:
        spelling = self.spelling.get(source)
        if spelling is None:
            spelling = self.spelling[source] = Spelling(self.table)
        return spelling

    def _group(self, row: Row) -> str:
        """The row's first group key of the dataset, else its coarsest key of any kind, else the row itself."""
        for key in (*self._dataset.group_keys, *GROUP_KEYS):
            if value := row.keys.get(key):
                return value
        return row.row_id

    def _rendered(self, row: Row, heard: tuple[str, ...], reference: str, target: str) -> tuple[Message, ...]:
        """System, user and assistant turns. The template sees hypothesis-side fields. heard: asr_text, then others."""
        telemetry = row.telemetry
        user = self._prompts.render(
            row.row_id,
            asr_text=heard[0],
            hypotheses=heard[1:] or heard,
            partition=row.partition,
            telemetry=telemetry,
        )
        # What else is in the prompt are the template's own words, which know no row, and numbers.
        shown = [] if NUMBERS.issuperset(map(type, telemetry.values())) else [*leak_check.texts_of(telemetry)]
        if row.partition and row.partition not in self._static:
            shown.append(row.partition)
            if self._shown.is_static(row.partition):
                self._static.add(row.partition)
        if shown:
            self._shown.add(row.row_id, [text for text in shown if text in user], reference, heard)
        answer = Message(content=target, role="assistant")
        return (*self._system, Message(content=nfc(user), role="user"), answer)

    def _given(self, row: Row, heard: tuple[str, ...], reference: str) -> tuple[Message, ...]:
        """The conversation of a row, after the dataset's system message if it has none; () for plain text."""
        cleaned = self._spelling_of(row.source).cleaned
        messages = tuple(
            Message(content=cleaned(each["content"], True), role=each["role"])
            if len(each) == 2  # nearly all
            else Message(
                content=cleaned(each["content"], True),
                name=each.get("name", ""),
                role=each["role"],
                tool_call_id=each.get("tool_call_id", ""),
                tool_calls=tuple(_cleaned(call, cleaned) for call in each.get("tool_calls", ())),
                weight=each.get("weight", 1),
            )
            for each in row.messages
        )
        if reference:
            prompt = [message.content for message in messages[:-1]]
            self._given_prompts.add(row.row_id, prompt, reference, [each.strip() for each in heard])
        is_text = row.is_text
        if not self._system or not (is_text or conversations.is_instructed(row.messages)):
            return (*self._system, *messages)
        if is_text or self._system[0] not in messages:
            self.notes[NO_SYSTEM if is_text else OWN_SYSTEM] += 1
        return messages


def _leak(row_ids: list[str], where: str, hint: str) -> list[ThunderError]:
    """One problem for all rows whose prompts hold their references."""
    if not row_ids:
        return []
    what = f"the prompt of {row_ids[0]} holds its reference"
    if len(row_ids) > 1:
        what = f"the prompts of {len(row_ids)} rows hold their references, the first: {', '.join(row_ids[:SHOWN])}"
    return [ThunderError(what, where, hint)]


def _cleaned(value: Any, clean: Callable[[str, bool], str]) -> Any:
    """A call of a tool with all its texts cleaned."""
    if isinstance(value, str):
        return clean(value, True)
    if isinstance(value, dict):
        return {name: _cleaned(item, clean) for name, item in value.items()}
    return [_cleaned(item, clean) for item in value] if isinstance(value, list) else value


def _is_seen(text: str) -> bool:
    """Whether a text has more than blanks and invisible characters."""
    return bool(text.strip()) and (text.isprintable() or bool(characters.UNSEEN.sub("", text).strip()))


def _is_call(row: Row) -> bool:
    """Whether the answer is a call of tools, which needs no text."""
    return bool(row.messages) and "tool_calls" in row.messages[-1]


def _unfit_message(row: Row, table: characters.Orthography | None) -> str:
    """A fault in a message before the answer, as a reason to drop the row, or "". A question may be in any script."""
    for message in row.messages[:-1]:
        if table is None and message["content"].isprintable():
            continue
        is_trained = message["role"] == "assistant" and message.get("weight") != 0
        text = characters.cleaned(message["content"], table, is_prose=True)
        if table and table.invisible == characters.DROP and (unseen := characters.UNSEEN.search(text)):
            return f"{characters.INVISIBLE} U+{ord(unseen[0]):04X} in a {message['role']} message"
        for fault in characters.faults(text, table if is_trained else None, is_prose=True):
            return f"{fault} in an earlier answer" if is_trained else f"{fault} in a {message['role']} message"
    return ""
