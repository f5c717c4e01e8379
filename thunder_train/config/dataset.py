"""A dataset of thunder.toml and its sources."""

from dataclasses import dataclass
from typing import Any

BRIDGE_TONELESS = "bridge-toneless"
STANDARD_TONED = "standard-toned"
ORTHOGRAPHIES = (BRIDGE_TONELESS, STANDARD_TONED)
"""Names of the built-in orthographies; data/orthography.py defines them."""


@dataclass(frozen=True, eq=False)
class Source:
    """One input of a dataset; schema.py tells kinds and meanings. Paths may be patterns of several files."""

    kind: str
    path: str
    references: str
    """Row contract only: the references; `path` is the predictions."""
    evidence_kind: str
    rows: str
    """Report only: dotted path to the list of rows, "" when the file itself is the list."""
    fields: dict[str, str]
    """Canonical field -> dotted path inside a row."""
    constants: dict[str, str]
    """Canonical field -> constant."""
    enums: dict[str, dict[str, str]]
    """Canonical field -> word of the file -> canonical word."""
    reference_side: tuple[str, ...]
    """Canonical fields that know the reference: no prompt sees them."""
    use: tuple[str, ...]
    """Which rows teach: accepted, corrected, unchanged, stable."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Sources, prompt and split of a dataset."""

    name: str
    sources: tuple[Source, ...]
    system: str
    templates: tuple[str, ...]
    """User messages; a row takes one by its id."""
    orthography: str
    orthography_table: dict[str, Any]
    """What an orthography that is not built in allows; empty for those that are."""
    split_seed: int
    valid: float
    """Share of source groups that go to validation."""
    test: float
    """Share of source groups that go to the test rows."""
    group_keys: tuple[str, ...]
    """No value of any of them is in two splits; the first that a row carries is its group."""
    max_dropped: float
    """Share of the rows read that may be dropped."""
    provenance: str
    """Where the rows come from, as a promotion may ask."""
