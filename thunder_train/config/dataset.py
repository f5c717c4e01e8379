"""The keys of [datasets.NAME] and its sources: type, bounds, unit, default and help of each, stated only here."""
# ruff: noqa: RUF009  (a call per key is how keys are declared)

from dataclasses import dataclass
from typing import Any

from thunder_train.config.fields import (
    REPO,
    REVISION,
    SEED_MAX,
    mapping,
    nested,
    pair,
    real,
    scalars,
    switch,
    tables,
    text,
    texts,
    whole,
)
from thunder_train.core.characters import INVISIBLE_RULES

BRIDGE_TONELESS = "bridge-toneless"
STANDARD_TONED = "standard-toned"
ORTHOGRAPHIES = (BRIDGE_TONELESS, STANDARD_TONED)
"""Names of the built-in orthographies; data/orthography.py defines them."""
KINDS = ("report", "rows", "nemo", "chatml", "sharegpt", "alpaca", "completions", "folder", "text")
"""Kinds of sources."""
PROMPTED = ("report", "rows", "nemo")
"""Those whose rows hold no prompt: a template of the dataset makes it."""
REAL, SYNTHETIC, UNSTATED = "real", "synthetic", "unstated"
"""Kinds of evidence; UNSTATED: of a source that declares none. Only results on real rows can be a GO."""
SPLIT_KEYS = ("video_id", "audio_path", "segment_id", "feat_id", "text")


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """One input of a dataset. Paths may be patterns that match several files."""

    kind: str = text(
        help="rows: the row contract, predictions and references; nemo: a NeMo manifest with text and pred_text; "
        "report: a correction report; chatml: messages as OpenAI and axolotl write them; sharegpt: conversations; "
        "alpaca: instruction, input, output; completions: prompt, completion; folder: train, valid and test of mlx-lm; "
        "text: plain text, without a prompt. Files are JSON (lines, a list, a document), CSV of any separator, TSV, "
        "Parquet or Arrow; texts may be packed as .gz, .zst, .bz2 or .xz",
        choices=KINDS,
    )
    path: str = text(
        help="The file, a pattern such as data/sources/part-*.jsonl, or the folder of a dataset as the library "
        "`datasets` saves it or the hub lays it out; for rows: the predictions",
        minlength=1,
    )
    repo: str = text(
        help='A dataset of the Hugging Face hub as "owner/name", in which path and references lie; its commit is '
        'pinned in data/NAME/manifest.json. "" for files of this machine',
        pattern=REPO,
        default="",
    )
    revision: str = text(help="repo: branch, tag or commit; another one pins anew", pattern=REVISION, default="main")
    references: str = text(
        help='rows: the references, a file or a pattern; "" if each prediction has its reference beside it', default=""
    )
    evidence_kind: str = text(
        help="What a result on these rows can prove. unstated: nothing, so that no result can be a GO",
        choices=(REAL, SYNTHETIC, "smoke", "oracle", UNSTATED),
        default=UNSTATED,
    )
    split: str = text(
        help="Where the rows go. train, valid, test: all of them there; row: as each row's own split says; divide: by "
        '[datasets.NAME] valid and test; "": as row if the rows of the dataset have several splits, else as divide',
        choices=("", "train", "valid", "test", "row", "divide"),
        default="",
    )
    rows: str = text(
        help='Dotted path to the list of rows in a JSON document; "" if the file is that list, or has a row a line',
        default="",
    )
    fields: dict[str, str] = mapping(
        help="Canonical field = dotted path inside a row, with [0] for the first item of a list"
    )
    constants: dict[str, str | float | bool] = scalars(help="Canonical field = its value in every row")
    enums: dict[str, dict[str, str]] = mapping(
        help="Canonical field = {value in the file = canonical value}; other values are refused",
        type="dict",
        valuesrules={"type": "string"},
    )
    reference_side: tuple[str, ...] = texts(
        help="Canonical fields that depend on the reference, such as telemetry.cer_edits; prompts cannot use them",
        default=(),
    )
    telemetry: tuple[str, ...] = texts(
        help="Telemetry of your own, as rover.score, that is known without the reference: prompts and gates get it "
        "besides the names of the row contract",
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
    invisible: str = text(
        help="Zero-width spaces, soft hyphens, bidi controls and the like. remove: from all texts; drop: the row; "
        "keep: all but controls such as NUL",
        choices=INVISIBLE_RULES,
        default="remove",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Sources, prompt and split of a dataset."""

    name: str
    sources: tuple[Source, ...] = tables(Source, help="One table per input", minlength=1)
    system: str = text(help="System message of every row that has none of its own", default="")
    templates: tuple[str, ...] = texts(
        help="Several templates, instead of template; the id of a row selects one",
        minlength=1,
        optional=True,
        instead=(
            "template",
            text(
                help=f"Jinja2 file of the user message; only kinds {', '.join(PROMPTED)} need it",
                minlength=1,
                optional=True,
            ),
        ),
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
        "names its group. text: the reference, or all that is said, without marks, spaces and punctuation",
        choices=SPLIT_KEYS,
        default=SPLIT_KEYS,
    )
    train_on_silence: bool = switch(
        help="Whether rows whose hypothesis or reference is empty are trained on; in test they are always kept",
        default=False,
    )
    max_dropped: float = real(
        help="Rows that may be dropped before the stage fails", unit="share of rows", low=0.0, high=1.0, default=0.5
    )
    provenance: str = text(help="Where the rows come from, in one word that [promotion] may require", default="")
