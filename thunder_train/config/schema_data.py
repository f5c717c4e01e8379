"""Every key of a dataset in thunder.toml; schema.py tells what a table is. Data only."""

from thunder_train.config.fields import Table, real, text, texts, whole

SOURCE: Table = {
    "kind": text(
        "rows: row contract, predictions and references; report: correction report; chatml: messages as they are; "
        "completions: prompt and completion; text: answers without a question. JSON, JSONL, CSV or Parquet by the "
        "file's name, JSON also as .gz or .zst",
        allowed=["report", "rows", "chatml", "completions", "text"],
        required=True,
    ),
    "path": text(
        "the file, or a pattern as data/sources/part-*.jsonl; for rows the predictions", required=True, minlength=1
    ),
    "references": text("rows: the references, a file or a pattern", default=""),
    "evidence_kind": text(
        "what a result on these rows can prove", allowed=["real", "synthetic", "smoke", "oracle"], required=True
    ),
    "rows": text('report: dotted path to the list of rows; "" when the file is the list', default=""),
    "fields": {
        "type": "dict",
        "valuesrules": {"type": "string"},
        "default": {},
        "meta": {"help": "canonical field = dotted path inside a row"},
    },
    "constants": {
        "type": "dict",
        "valuesrules": {"type": "string"},
        "default": {},
        "meta": {"help": "canonical field = constant"},
    },
    "enums": {
        "type": "dict",
        "valuesrules": {"type": "dict", "valuesrules": {"type": "string"}},
        "default": {},
        "meta": {"help": "canonical field = {word of the file = canonical word}; other words are refused"},
    },
    "reference_side": texts(
        "canonical fields that know the reference, as telemetry.cer_edits: no prompt sees them", default=[]
    ),
    "use": texts(
        "which rows teach. accepted: the final text; corrected: rejected rows, their reference; unchanged: rejected "
        "rows, as they were; stable: rows of that partition, as they were (also of kind rows, whose others teach their "
        "reference)",
        default=["accepted"],
        schema={"type": "string", "allowed": ["accepted", "corrected", "unchanged", "stable"]},
    ),
}

ORTHOGRAPHY: Table = {
    "letters": text("characters that words are made of, as in a regular expression's [ ]", required=True),
    "marks": text("combining marks, written alike", default=""),
    "shared": text("digits, punctuation and what else may stand there, written alike", default=""),
    "marks_per_letter": {
        "type": "list",
        "minlength": 2,
        "maxlength": 2,
        "schema": real("a bound", "marks per letter", 0.0, 4.0),
        "meta": {"help": "lowest and highest that the dataset may show; not judged when it is not given"},
    },
    "ratios": {
        "type": "list",
        "default": [],
        "schema": {
            "type": "dict",
            "schema": {
                "of": text("a word", required=True, minlength=1),
                "among": texts("the words that it is counted among", required=True, minlength=2),
                "low": real("lowest share", "", 0.0, 1.0, default=0.0),
                "high": real("highest share", "", 0.0, 1.0, default=1.0),
            },
        },
        "meta": {"help": "shares of a spelling among rival ones"},
    },
}

DATASET: Table = {
    "sources": {
        "type": "list",
        "minlength": 1,
        "required": True,
        "schema": {"type": "dict", "schema": SOURCE},
        "meta": {"help": "one table per input"},
    },
    "system": text("system message of every row", default=""),
    "template": text("Jinja2 file of the user message, given hypothesis-side fields", minlength=1),
    "templates": texts("several of them, instead: a row takes one by its id", minlength=1),
    "orthography": text(
        'spelling of the texts, never mixed: bridge-toneless, standard-toned, the name of orthography_table, or ""',
        default="",
    ),
    "orthography_table": {
        "type": "dict",
        "schema": ORTHOGRAPHY,
        "meta": {"help": "an orthography of your own (docs/orthography.md)"},
    },
    "split_seed": whole("seed of the split by source group", "", 0, 2**31 - 1, default=0),
    "valid": real("validation rows", "share of groups", 0.0, 0.9, default=0.1),
    "test": real("test rows", "share of groups", 0.0, 0.9, default=0.1),
    "group_keys": texts(
        "no value of any of them is in two splits; the first that a row carries is its group. text: its answer, marks, "
        "spaces and punctuation apart",
        default=["video_id", "audio_path", "segment_id", "feat_id", "text"],
        schema={"type": "string", "allowed": ["video_id", "audio_path", "segment_id", "feat_id", "text"]},
    ),
    "provenance": text("where the rows come from, in a word that [promotion] may ask for", default=""),
    "max_dropped": real("rows that may be dropped before the stage fails", "share of rows", 0.0, 1.0, default=0.5),
}
