"""The row that every source turns into, and the ledger of what became of the others."""

from collections import Counter
from typing import Any

import msgspec

GROUP_KEYS = ("video_id", "audio_path", "segment_id", "feat_id")
"""What a row may carry that others share, coarsest first."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One example before the split. Only `target_text` and `reference_text` may know the reference."""

    row_id: str
    """Stem of its file, and its own id there; a digest of its content when it has none."""
    source: str
    """Stem of the source file."""
    file: str
    line: int
    """Where it stands: a line, or a number in a list, from 1."""
    evidence_kind: str
    target_text: str
    """What the model shall answer."""
    asr_text: str = ""
    reference_text: str = ""
    partition: str = ""
    decision: str = ""
    """`accepted`, `rejected`, or "" where no gate has spoken."""
    proposal_text: str = ""
    proposal_source: str = ""
    reason_codes: tuple[str, ...] = ()
    edit_budget: dict[str, Any] = {}
    witness: dict[str, str] = {}
    telemetry: dict[str, Any] = {}
    """What the recogniser knew without a reference; prompts may show it."""
    messages: tuple[dict[str, str], ...] = ()
    """ChatML and completions only: the conversation as it is; then no prompt is rendered."""
    keys: dict[str, str] = {}
    """Those of GROUP_KEYS that it carries."""
    needs_hypothesis: bool = True
    """False for plain text, which is an answer to no hypothesis."""


class Dropped(msgspec.Struct, frozen=True, order=True):
    """A row that does not teach."""

    file: str
    line: int
    row_id: str
    reason: str


class Ledger:
    """What became of the rows that were read: one for a dataset.

    rows_read: file -> rows in it; dropped: those that do not teach, each with its place and reason.
    """

    def __init__(self) -> None:
        self.rows_read: dict[str, int] = {}
        self.dropped: list[Dropped] = []

    def drop(self, file: str, line: int, row_id: str, reason: str) -> None:
        """Put down that a row does not teach, and why."""
        self.dropped.append(Dropped(file, line, row_id, reason))

    def reasons(self) -> dict[str, int]:
        """Dropped rows by reason."""
        return dict(Counter(each.reason for each in self.dropped))
