"""Every key that thunder.toml and a recipe may hold: type, bounds, unit, default, meaning. Data only.

Each table is a Cerberus schema; `meta` carries what people read. docs/recipe.md and the editors' JSON schemas are made
from it (reference.py), so a key is described here and nowhere else.
"""

from typing import Any

from thunder_train.keys import (
    ADDRESS,
    NAME,
    REPO,
    REVISION,
    SSH_NAME,
    VARIABLE,
    Table,
    real,
    switch,
    text,
    texts,
    whole,
)
from thunder_train.schema_train import TRAIN as TRAIN  # the keys of [train] are many, and lie apart

PROFILES = [
    "cer-codepoint-nfc-pooled",
    "cer-cluster-nfc-pooled",
    "cer-toneless-nfc-pooled",
    "cer-spaceless-raw-pooled",
    "cer-codepoint-raw-clamped-per-row",
    "cer-codepoint-raw-per-row",
    "wer-nfc-pooled",
]
"""Names of the error rates; profiles.py says what each counts."""

HOST: Table = {
    "ssh": text("name that ssh reaches without a prompt", required=True, regex=SSH_NAME),
    "ips": texts(
        "addresses on the training link, first one first (ring, nccl; jaccl needs rank 0's)",
        default=[],
        schema={"type": "string", "regex": ADDRESS},
    ),
    "rdma": texts('jaccl: this host\'s row of the RDMA matrix; "" marks its own slot', default=[]),
}

CLUSTER: Table = {
    "backend": text(
        "how MLX moves tensors between ranks", allowed=["ring", "jaccl", "jaccl-ring", "mpi", "nccl"], default="ring"
    ),
    "ranks": whole("local processes, one per rank; instead of hosts", "ranks", 1, 64),
    "hosts": {
        "type": "list",
        "minlength": 1,
        "schema": {"type": "dict", "schema": HOST},
        "meta": {"help": "one table per rank, rank 0 first; instead of ranks"},
    },
    "envs": texts(
        "environment of every rank, as NAME=value",
        default=[],
        schema={"type": "string", "regex": VARIABLE},
    ),
    "folder": text("project folder on remote hosts, from the home folder", default="thunder-train"),
    "python": text("interpreter on remote hosts, from the project folder", default=".venv/bin/python"),
}

MODEL: Table = {
    "kind": text("where the base model comes from", allowed=["nano", "path", "hub"], required=True),
    "path": text("path: an mlx-lm folder (safetensors, config.json, tokenizer)", default=""),
    "repo": text("hub: owner/name", default="", regex=REPO),
    "revision": text(
        "hub: branch, tag or commit; model.lock.json pins the commit it meant",
        default="main",
        regex=REVISION,
    ),
    "layers": whole("nano: transformer layers", "layers", 1, 64, default=6),
    "width": whole("nano: hidden size", "values", 8, 1024, default=64),
    "heads": whole("nano: query heads", "heads", 1, 64, default=4),
    "kv_heads": whole("nano: key/value heads", "heads", 1, 64, default=1),
    "hidden": whole("nano: width of the MLP", "values", 8, 4096, default=128),
    "seed": whole("nano: seed of the random weights", "", 0, 2**31 - 1, default=0),
}

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
        "schema": real("a bound", "marks per letter", 0.0, 10.0),
        "default": [0.0, 10.0],
        "meta": {"help": "lowest and highest share that the dataset may show"},
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
    "max_dropped": real("rows that may be dropped before the stage fails", "share of rows", 0.0, 1.0, default=0.5),
}

GATE: Table = {
    "command": texts(
        "an external gate, word by word: proposals in, verdicts out, as JSON lines (docs/gate.md); empty: the built-in "
        "policy of the keys below",
        default=[],
    ),
    "timeout_s": whole("longest silence of an external gate", "seconds", 1, 86_400, default=60),
    "preserved": texts("built-in: partitions whose rows stay as they are", default=["stable"]),
    "blocked": texts("built-in: partitions whose proposals are never taken", default=["novelty"]),
    "floor": whole("built-in: edits that any row may have", "code points", 0, 10_000, default=2),
    "relative": real(
        "built-in: edits that a row may have, if that is more", "share of its code points", 0.0, 10.0, default=0.2
    ),
}

PROBE: Table = {
    f"max_{what}": real(
        f"an adapter with more answers that {words} has collapsed", "share of rows", 0.0, 1.0, default=most
    )
    for what, words, most in (
        ("empty", "are empty", 0.05),
        ("pad", "hold pad or other control tokens", 0.0),
        ("loop", "repeat themselves", 0.05),
        ("copied", "copy the hypothesis", 1.0),
        ("wrong_script", "are in another script", 0.05),
        ("over_long", "do not end", 0.05),
    )
}

EVALUATE: Table = {
    "max_tokens": whole(
        "longest answer; 0: half as long again as the longest of the training rows", "tokens", 0, 65_536, default=0
    ),
    "batch_size": whole("rows scored at once", "rows", 1, 4096, default=8),
    "profile": text("the error rate that decides", allowed=PROFILES, default=PROFILES[0]),
    "bootstrap": whole("samples behind each interval", "samples", 100, 100_000, default=1000),
    "seed": whole("seed of these samples", "", 0, 2**31 - 1, default=0),
    "gate": {"type": "dict", "schema": GATE, "default": {}, "meta": {"help": "what judges each proposal"}},
    "probe": {"type": "dict", "schema": PROBE, "default": {}, "meta": {"help": "when answers count as collapsed"}},
}

PROMOTION: Table = {
    "min_rows": whole("test rows that must have been scored", "rows", 1, 2**31 - 1, default=500),
    "max_worse": whole("test rows that the gated adapter may make worse", "rows", 0, 2**31 - 1, default=0),
    "needs_witness": switch("every decision must carry a witness", default=True),
    "provenance": text('provenance that the dataset must declare; "" for any', default=""),
}

BUILD: Table = {
    "environment": text(
        "which environment changes retrain: strict: Python, mlx, mlx-lm, platform; mlx: mlx and mlx-lm; none",
        allowed=["strict", "mlx", "none"],
        default="mlx",
    ),
    "tolerance": real(
        "how far off a metric may be when `reproduce` runs on another platform", "relative", 0.0, 1.0, default=1e-3
    ),
}

RECIPE: Table = {
    "name": text("name of the run; the file's name without .toml when not given", regex=NAME, forbidden=["models"]),
    "description": text("what the run is for", default=""),
    "cluster": text("a [clusters.*] table of thunder.toml", required=True),
    "model": text("a [models.*] table of thunder.toml", required=True),
    "dataset": text("a [datasets.*] table of thunder.toml", required=True),
    "train": {"type": "dict", "schema": TRAIN, "required": True, "meta": {"help": "the training"}},
    "evaluate": {"type": "dict", "schema": EVALUATE, "default": {}, "meta": {"help": "the evaluation"}},
    "promotion": {"type": "dict", "schema": PROMOTION, "default": {}, "meta": {"help": "what an adapter must show"}},
    "build": {"type": "dict", "schema": BUILD, "default": {}, "meta": {"help": "what counts as stale"}},
}


def _optional(table: Table) -> Table:
    """The same keys with no default and none required: a recipe may leave any of them to its own default."""
    return {
        key: {rule: value for rule, value in rules.items() if rule not in ("required", "default")}
        for key, rules in table.items()
    }


def _named(table: Table, what: str, **rules: Any) -> dict[str, Any]:
    return {
        "type": "dict",
        "keysrules": {"type": "string", "regex": NAME, **rules},
        "valuesrules": {"type": "dict", "schema": table},
        "minlength": 1,
        "required": True,
        "meta": {"help": what},
    }


PROJECT: Table = {
    "project": {
        "type": "dict",
        "required": True,
        "schema": {
            "recipes": texts("recipes that a bare `./doit` builds", required=True),
            "cache": text("folder of the run cache; clones on one disk may share it", default=".thunder/cache"),
            "cache_limit_gb": real("size of the run cache; least recently used go first", "GB", 0.0, 1e6, default=10.0),
        },
        "meta": {"help": "the project"},
    },
    "clusters": _named(CLUSTER, "where recipes train, by name"),
    "models": _named(MODEL, "base models, by name"),
    "datasets": _named(DATASET, "datasets, by name", forbidden=["sources"]),
    "defaults": {
        "type": "dict",
        "default": {},
        "schema": {
            "train": {"type": "dict", "schema": _optional(TRAIN), "default": {}, "meta": {"help": "the training"}},
            "evaluate": {"type": "dict", "schema": _optional(EVALUATE), "default": {}, "meta": {"help": "evaluation"}},
            "build": {"type": "dict", "schema": _optional(BUILD), "default": {}, "meta": {"help": "what is stale"}},
        },
        "meta": {"help": "values of recipe keys that a recipe does not state"},
    },
}
