"""The ASR row contract: which fields predictions and references have, and of which types.

Input: a row in canonical fields.  Output: a struct, and the name by which errors call its row.
"""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from thunder_train.data.rows import Listed, key_text

JOIN_KEYS = ("audio_path", "segment_id", "feat_id")
"""In the order in which a join tries them."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of the ASR row contract: a key and a text; all else is optional.

    `cer_edits` is left out on purpose: it is computed from the reference.
    """

    asr_text: str | UnsetType | None = UNSET
    """Null or empty: the recogniser heard nothing."""
    hypotheses: Listed = None
    n_best_hypotheses: Listed = None
    """The contract's name of the same."""
    id: str | int | float = ""
    video_id: str | int | float = ""
    audio_path: str = ""
    segment_id: str | int | float = ""
    feat_id: str | int | float = ""
    split: str | int = ""
    script: str = ""
    mode: str = ""
    partition: str = ""
    ctc_confidence: float | None = None
    trajectory_scalars: dict[str, float] = {}
    char_posteriors_summary: dict[str, Any] = {}
    telemetry: dict[str, Any] = {}


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The text that was said, written by a human. Empty: nothing was said; null: nobody wrote it down."""

    reference_text: str | None
    audio_path: str = ""
    segment_id: str | int | float = ""
    feat_id: str | int | float = ""
    split: str | int = ""
    """Of rows whose prediction has none: a published test set is often known by its references."""


class Pair(Prediction, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction with its reference beside it."""

    reference_text: str | UnsetType | None = UNSET
    offset: str | int | float = ""
    """Where the text begins in its recording, in seconds: a manifest of NeMo may cut one into many rows."""


CANONICAL = (*Prediction.__struct_fields__, "reference_text", "offset")


def own_name(row: Prediction) -> str:
    """The id of a row that needs no key to be joined by: its own, else what names its text most precisely."""
    if row.id != "":
        return key_text(row.id)
    audio, segment, feature = row.audio_path, key_text(row.segment_id), key_text(row.feat_id)
    begin = key_text(row.offset) if isinstance(row, Pair) and audio and not segment else ""
    return feature or ":".join(part for part in (audio.strip(), segment, begin) if part)
