"""The keys of [datasets.NAME] and its sources: type, bounds, unit, default and help of each, stated only here."""
# ruff: noqa: RUF009  (a call per key is how keys are declared)

from dataclasses import dataclass
from typing import Any

from thunder_train.config.fields import SEED_MAX, mapping, nested, pair, real, tables, text, texts, whole

BRIDGE_TONELESS = "bridge-toneless"
STANDARD_TONED = "standard-toned"
ORTHOGRAPHIES = (BRIDGE_TONELESS, STANDARD_TONED)
"""Names of the built-in orthographies; data/orthography.py defines them."""
SPLIT_KEYS = ("video_id", "audio_path", "segment_id", "feat_id", "text")


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """One input of a dataset. Paths may be patterns that match several files."""

    kind: str = text(
        help="rows: the row contract, predictions and references; report: a correction report; chatml: messages, taken "
        "unchanged; completions: prompt and completion; text: answers without a question. The file name says whether "
        "it is JSON, JSONL, CSV or Parquet; JSON may be compressed as .gz or .zst",
        choices=("report", "rows", "chatml", "completions", "text"),
    )
    path: str = text(
        help="The file, or a pattern such as data/sources/part-*.jsonl; for rows: the predictions", minlength=1
    )
    references: str = text(help="rows: the references, a file or a pattern", default="")
    evidence_kind: str = text(
        help="What a result on these rows can prove", choices=("real", "synthetic", "smoke", "oracle")
    )
    rows: str = text(help='report: dotted path to the list of rows; "" if the file itself is the list', default="")
    fields: dict[str, str] = mapping(help="Canonical field = dotted path inside a row")
    constants: dict[str, str] = mapping(help="Canonical field = constant value")
    enums: dict[str, dict[str, str]] = mapping(
        help="Canonical field = {value in the file = canonical value}; other values are refused",
        type="dict",
        valuesrules={"type": "string"},
    )
    reference_side: tuple[str, ...] = texts(
        help="Canonical fields that depend on the reference, such as telemetry.cer_edits; prompts cannot use them",
        default=(),
    )
    use: tuple[str, ...] = texts(
        help="Rows to train on. accepted: with their final text; corrected: rejected rows, with their reference; "
        "unchanged: rejected rows, with their own text; stable: rows of that partition, with their own text (also "
        "for kind rows, whose other rows are trained on with their reference)",
        choices=("accepted", "corrected", "unchanged", "stable"),
        default=("accepted",),
    )


@dataclass(init=False, repr=False, eq=False)
class SpellingRatio:
    """Declares one of an orthography's ratios: how often one of several rival spellings is used."""

    of: str = text(help="The spelling", minlength=1)
    among: tuple[str, ...] = texts(help="All rival spellings, `of` included", minlength=2)
    low: float = real(help="Lowest share allowed", low=0.0, high=1.0, default=0.0)
    high: float = real(help="Highest share allowed", low=0.0, high=1.0, default=1.0)


@dataclass(init=False, repr=False, eq=False)
class OrthographyTable:
    """Declares the project's own orthography; data/orthography.py reads it as a table."""

    letters: str = text(help="Characters of words, written as in a regular expression's [ ]")
    marks: str = text(help="Combining marks, written in the same way", default="")
    shared: str = text(help="Digits, punctuation and other allowed characters, written in the same way", default="")
    marks_per_letter: tuple[float, float] = pair(
        help="Lowest and highest average of the dataset; not checked if absent",
        unit="marks per letter",
        low=0.0,
        high=4.0,
    )
    ratios: tuple[SpellingRatio, ...] = tables(
        SpellingRatio, help="Share of a spelling among rival spellings", default=()
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Sources, prompt and split of a dataset."""

    name: str
    sources: tuple[Source, ...] = tables(Source, help="One table per input", minlength=1)
    system: str = text(help="System message of every row", default="")
    templates: tuple[str, ...] = texts(
        help="Several templates, instead of template; the id of a row selects one",
        minlength=1,
        optional=True,
        instead=("template", text(help="Jinja2 file of the user message", minlength=1, optional=True)),
    )
    orthography: str = text(
        help="Spelling of all texts, never mixed: bridge-toneless, standard-toned, the name of your own "
        'orthography_table, or "" (not checked)',
        default="",
    )
    orthography_table: dict[str, Any] = nested(
        OrthographyTable, help="Your own orthography (docs/orthography.md)", optional=True
    )
    split_seed: int = whole(help="Seed of the split by source group", low=0, high=SEED_MAX, default=0)
    valid: float = real(help="Validation rows", unit="share of groups", low=0.0, high=0.9, default=0.1)
    test: float = real(help="Test rows", unit="share of groups", low=0.0, high=0.9, default=0.1)
    group_keys: tuple[str, ...] = texts(
        help="Rows that share a value of one of these fields go to the same split; the first field that a row has "
        "names its group. text: the answer without marks, spaces and punctuation",
        choices=SPLIT_KEYS,
        default=SPLIT_KEYS,
    )
    max_dropped: float = real(
        help="Rows that may be dropped before the stage fails", unit="share of rows", low=0.0, high=1.0, default=0.5
    )
    provenance: str = text(help="Where the rows come from, in one word that [promotion] may require", default="")
