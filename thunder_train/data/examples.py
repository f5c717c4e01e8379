"""A row of a source -> an example as it is written: in NFC, with a rendered prompt that does not hold the reference.

Input: `rows.Row`.  Output: `Example`, or why the row is not used.
"""

import zlib
from pathlib import Path

import msgspec

from thunder_train import ThunderError
from thunder_train.config.dataset import Dataset
from thunder_train.core import templates
from thunder_train.core.text import nfc
from thunder_train.data import leak_check, orthography, readers
from thunder_train.data.rows import GROUP_KEYS, Row
from thunder_train.data.spelling import Spelling

TEXT = "text"
"""The group key whose value is the text of a row itself."""


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    content: str
    role: str


class Example(msgspec.Struct, frozen=True):
    """One row of a split, as it is written. Fields are in the order of their names, as in every file of the project."""

    asr_text: str
    group: str
    id: str
    messages: tuple[Message, ...]
    partition: str
    reference_text: str
    source: str


class Composer:
    """Makes the examples of a dataset.

    problems: leaks so far, which the builder raises together; spelling: statistics of the answers, by source.
    """

    def __init__(self, dataset: Dataset, root: Path) -> None:
        self.problems: list[ThunderError] = []
        self.spelling: dict[str, Spelling] = {}
        self.table = orthography.of_dataset(dataset)
        self._dataset = dataset
        self._where = f"thunder.toml: datasets.{dataset.name}"
        self._templates = [templates.prompt(readers.text(path, root), path) for path in dataset.templates]
        self._values = [dict(template.globals) for template in self._templates]
        self._system = (Message(nfc(dataset.system), "system"),) if dataset.system else ()

    def compose(self, row: Row) -> Example | str:
        """The example, or the reason to drop the row."""
        spelling, is_prose = self._spelling_of(row.source), row.is_given
        asr = spelling.cleaned(row.asr_text, is_prose)
        reference = spelling.cleaned(row.reference_text, is_prose)
        target = reference if row.target_text == row.reference_text else spelling.cleaned(row.target_text, is_prose)
        if not target.strip():
            return "empty target"
        if not row.is_given and not asr.strip():
            return "empty hypothesis"
        if reason := spelling.unfit(row.row_id, asr, reference, target, is_prose) or _unfit_message(row, self.table):
            return reason
        spelling.add(row.target_text)
        example = Example(
            asr_text=asr,
            group=self._group(row),
            id=row.row_id,
            messages=tuple(Message(spelling.cleaned(each["content"], True), each["role"]) for each in row.messages)
            or self._messages(row, asr, target),
            partition=row.partition,
            reference_text=reference,
            source=row.source,
        )
        prompt = [message.content for message in example.messages[:-1]]
        if leak_check.holds_reference(prompt, example.reference_text, example.asr_text):
            what = f"the prompt of {example.id} holds its reference"
            hint = "take it out of the system text, the template or the telemetry"
            self.problems.append(ThunderError(what, f"{self._where}.template", hint))
        return example

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

    def _messages(self, row: Row, asr: str, target: str) -> tuple[Message, ...]:
        """System, user and assistant turns. The template sees hypothesis-side fields only."""
        # By a checksum of the id, so that appended rows do not change the template of others.
        number = zlib.crc32(row.row_id.encode()) % len(self._templates)
        template, values = self._templates[number], self._values[number]
        values.update(asr_text=asr, partition=row.partition, telemetry=row.telemetry)
        try:  # as template.render does, but without copying its globals for each row: half of the time
            user = "".join(template.root_render_func(template.new_context(values, shared=True)))
        except Exception as error:  # a template is the user's code and may raise anything
            hint = "a prompt may use asr_text, partition and telemetry"
            raise ThunderError(f"row {row.row_id}: {error}", self._dataset.templates[number], hint) from None
        return (*self._system, Message(nfc(user), "user"), Message(target, "assistant"))


def _unfit_message(row: Row, table: orthography.Orthography | None) -> str:
    """A fault in a question of a conversation, as a reason to drop it, or "". A question may be in any script."""
    for message in row.messages[:-1]:
        text = orthography.cleaned(message["content"], table, is_prose=True)
        for fault in orthography.faults(text, None, is_prose=True):
            return f"{fault} in a {message['role']} message"
    return ""
