"""The row that every source gives, and the ledger of the rows that were read and dropped."""

from collections import Counter
from typing import Any

import msgspec

from thunder_train.config.dataset import Source
from thunder_train.data.field_map import decoded

GROUP_KEYS = ("video_id", "audio_path", "segment_id", "feat_id")
"""Fields of a row whose value several rows may share, coarsest first."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval", "evaluation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words that rows, files and folders use for a split, in small letters -> the split."""
DEEPEST = 32
"""Most levels of a value that a row carries on: writing or rendering more would exceed Python's recursion limit."""
Listed = str | tuple[str | dict[str, Any], ...] | None
"""Hypotheses as files have them, best first: texts, or objects with a text; one text stands for itself."""
MOST_HYPOTHESES = 1000
"""Most hypotheses of a row: a prompt with more fits into no model."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One example before the split. Only `target_text` and `reference_text` may know the reference."""

    row_id: str
    """`STEM:ID`, its file's stem and its own id there, or a digest of its content if it has none."""
    source: str
    """Stem of the source file."""
    file: str
    line: int
    """Its line, or its number in a list, from 1."""
    evidence_kind: str
    target_text: str
    """What the model shall answer."""
    asr_text: str = ""
    reference_text: str = ""
    partition: str = ""
    decision: str = ""
    """`accepted`, `rejected`, or "" without a gate's decision."""
    proposal_text: str = ""
    proposal_source: str = ""
    reason_codes: tuple[str, ...] = ()
    edit_budget: dict[str, Any] = {}
    witness: dict[str, str] = {}
    telemetry: dict[str, Any] = {}
    """What the recogniser knew without a reference; prompts may show it."""
    hypotheses: tuple[str, ...] = ()
    """All texts that the recogniser offers, best first; () if it offers asr_text alone."""
    messages: tuple[dict[str, Any], ...] = ()
    """Conversations only: as data/conversations.py gives them, so that no prompt is rendered."""
    tools: tuple[dict[str, Any], ...] = ()
    """Conversations only: the schemas of the functions that the model may call."""
    keys: dict[str, str] = {}
    """Those of GROUP_KEYS that it carries."""
    own_split: str = ""
    """The word of its own `split` field, as it stands; "" for none."""
    given_split: str = ""
    """`train`, `valid` or `test` if its file or its source says so, else ""."""
    is_text: bool = False
    """Plain text, without a prompt: target_text is all of it."""
    is_silent: bool = False
    """A reference was given and is empty: nothing was said."""

    @property
    def is_given(self) -> bool:
        """Whether it is text as people wrote it, a conversation or plain text: no template makes its prompt."""
        return bool(self.messages) or self.is_text


def group_keys(fields: Any) -> dict[str, str]:
    """The group keys among the attributes of a source's own row."""
    keys = {}
    for name in GROUP_KEYS:
        value = getattr(fields, name)
        text = value.strip() if value.__class__ is str else key_text(value)
        if text:
            keys[name] = text
    return keys


def key_text(value: str | int | float) -> str:
    """A key as a text: 7, 7.0 and "7 " are one key, for tables write whole numbers with a fraction."""
    if value.__class__ is str:
        return value.strip()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def hypothesis_texts(listed: Listed) -> tuple[str, ...]:
    """The texts of hypotheses. Raises ValueError(what, hint) if there are too many or one has no text."""
    if isinstance(listed, str):
        listed = decoded(listed)
    if not isinstance(listed, list | tuple):
        return (str(listed),) if listed else ()
    if len(listed) > MOST_HYPOTHESES:
        raise ValueError(f"has {len(listed)} hypotheses", f"give at most {MOST_HYPOTHESES}")
    texts = [each.get("text") if isinstance(each, dict) else each for each in listed]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("has a hypothesis without a text", 'write texts, or {"text", "score"}')
    return tuple(map(str, texts))


def given_split(source: Source) -> str:
    """The split to which all rows of a source go, "" if each goes its own way."""
    return source.split if source.split in SPLIT_WORDS.values() else ""


def split_of(word: str) -> str:
    """The split that a row's own word means, "" if it means none."""
    return SPLIT_WORDS.get(word.strip().casefold(), "")


def depth(value: Any) -> int:
    """Levels of lists and objects."""
    levels, level = 0, [value]
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        levels += 1
        level = [item for inner in level for item in (inner.values() if isinstance(inner, dict) else inner)]
    return levels


class Dropped(msgspec.Struct, frozen=True, order=True):
    """A row that is not used."""

    file: str
    line: int
    row_id: str
    reason: str
    also_at: str = ""
    """File and line of the row because of which it is dropped."""


class Ledger:
    """What happened to the rows of a dataset.

    rows_read: file -> its number of rows; unused: file -> {name of a field that nothing reads: rows that have it};
    notes: what readers decided for many rows at once -> the number of rows.
    """

    def __init__(self) -> None:
        self.rows_read: dict[str, int] = {}
        self.dropped: list[Dropped] = []
        self.unused: dict[str, Counter[str]] = {}
        self.notes: Counter[str] = Counter()

    def unused_in(self, file: str) -> Counter[str]:
        """The unused fields of a file, to be counted."""
        return self.unused.setdefault(file, Counter())

    def drop(self, file: str, line: int, row_id: str, reason: str, also_at: str = "") -> None:
        """Note that a row is not used, and why."""
        self.dropped.append(Dropped(file, line, row_id, reason, also_at))

    def merge(self, other: "Ledger") -> None:
        """Add the rows of another, which follow on these. rows_read and unused are not its own."""
        self.dropped += other.dropped
        self.notes.update(other.notes)

    def reasons(self) -> dict[str, int]:
        """Dropped rows by reason."""
        return dict(Counter(each.reason for each in self.dropped))
