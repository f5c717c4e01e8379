"""The part of a recipe that is about its evaluation, once read; config.py tells what these classes are."""

from dataclasses import dataclass

CER_CODEPOINT = "cer-codepoint-nfc-pooled"
CER_CLUSTER = "cer-cluster-nfc-pooled"
CER_TONELESS = "cer-toneless-nfc-pooled"
CER_SPACELESS_RAW = "cer-spaceless-raw-pooled"
CER_CODEPOINT_RAW_CLAMPED = "cer-codepoint-raw-clamped-per-row"
CER_CODEPOINT_RAW = "cer-codepoint-raw-per-row"
WER = "wer-nfc-pooled"
PROFILES = (
    CER_CODEPOINT,
    CER_CLUSTER,
    CER_TONELESS,
    CER_SPACELESS_RAW,
    CER_CODEPOINT_RAW_CLAMPED,
    CER_CODEPOINT_RAW,
    WER,
)
"""Names of the error rates, the default first; evaluate/error_rates.py defines what each counts."""


@dataclass(frozen=True, eq=False)
class Gate:
    """The [evaluate.gate] table: what judges each proposal."""

    command: tuple[str, ...]
    """An external gate, its words; empty: the built-in policy of the keys below."""
    timeout_s: int
    preserved: tuple[str, ...]
    """Partitions whose rows stay as they are."""
    blocked: tuple[str, ...]
    """Partitions whose proposals are never taken."""
    floor: int
    """Code points that any row may be edited by."""
    relative: float
    """Share of the hypothesis' code points that it may be edited by, if that is more."""


@dataclass(frozen=True, eq=False)
class Probe:
    """The [evaluate.probe] table: shares of test rows over which an adapter's answers count as collapsed."""

    max_empty: float
    max_pad: float
    max_loop: float
    max_copied: float
    max_wrong_script: float
    max_over_long: float


@dataclass(frozen=True, eq=False)
class Evaluate:
    """The [evaluate] table."""

    max_tokens: int
    """Of an answer; 0: as the rows' own answers need."""
    batch_size: int
    profile: str
    """Name of the CER profile that decides."""
    bootstrap: int
    """Samples of the intervals."""
    seed: int
    gate: Gate
    probe: Probe


@dataclass(frozen=True, eq=False)
class Promotion:
    """The [promotion] table: what an adapter must show."""

    min_rows: int
    max_worse: int
    needs_witness: bool
    provenance: str
    """What the dataset's provenance must be; "" for any."""
