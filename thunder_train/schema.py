"""Every key that thunder.toml and a recipe may hold: type, bounds, unit, default, meaning. Data only.

Each table is a Cerberus schema; `meta` carries what people read. docs/recipe.md and the editors' JSON schemas are made
from it (reference.py), so a key is described here and nowhere else.
"""

from typing import Any

Table = dict[str, dict[str, Any]]

NAME = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,63}$"
"""Names become folder names: no slash, no "..", no leading dot or dash."""

SSH_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$"
ADDRESS = r"^[0-9A-Za-z][0-9A-Za-z.:-]*$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*=.*$"
REPO = r"^$|^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
REVISION = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._/-]*$"
LAYER = r"^[A-Za-z0-9_.]+$"

FORMS = {
    NAME: "use letters, digits, . _ - and begin with a letter or digit",
    SSH_NAME: "use the name of the host in ~/.ssh/config, or user@host",
    ADDRESS: "give an address as 10.0.5.1",
    VARIABLE: "write it as NAME=value",
    REPO: "write it as owner/name",
    REVISION: "give a branch, a tag or a commit",
    LAYER: "give a layer's name as self_attn.q_proj",
}
"""What a text must look like, in words, by its pattern."""


def _text(meaning: str, **rules: Any) -> dict[str, Any]:
    return {"type": "string", "meta": {"help": meaning}, **rules}


def _whole(meaning: str, unit: str, low: int, high: int, **rules: Any) -> dict[str, Any]:
    return {"type": "integer", "min": low, "max": high, "meta": {"help": meaning, "unit": unit}, **rules}


def _real(meaning: str, unit: str, low: float, high: float, **rules: Any) -> dict[str, Any]:
    meta = {"help": meaning, "unit": unit}
    return {"type": "number", "min": low, "max": high, "check_with": "finite", "meta": meta, **rules}


def _texts(meaning: str, **rules: Any) -> dict[str, Any]:
    return {"type": "list", "schema": {"type": "string"}, "meta": {"help": meaning}, **rules}


HOST: Table = {
    "ssh": _text("name that ssh reaches without a prompt", required=True, regex=SSH_NAME),
    "ips": _texts(
        "addresses on the training link, first one first (ring, nccl; jaccl needs rank 0's)",
        default=[],
        schema={"type": "string", "regex": ADDRESS},
    ),
    "rdma": _texts('jaccl: this host\'s row of the RDMA matrix; "" marks its own slot', default=[]),
}

CLUSTER: Table = {
    "backend": _text(
        "how MLX moves tensors between ranks", allowed=["ring", "jaccl", "jaccl-ring", "mpi", "nccl"], default="ring"
    ),
    "ranks": _whole("local processes, one per rank; instead of hosts", "ranks", 1, 64),
    "hosts": {
        "type": "list",
        "minlength": 1,
        "schema": {"type": "dict", "schema": HOST},
        "meta": {"help": "one table per rank, rank 0 first; instead of ranks"},
    },
    "envs": _texts(
        "environment of every rank, as NAME=value",
        default=[],
        schema={"type": "string", "regex": VARIABLE},
    ),
    "folder": _text("project folder on remote hosts, from the home folder", default="thunder-train"),
    "python": _text("interpreter on remote hosts, from the project folder", default=".venv/bin/python"),
}

MODEL: Table = {
    "kind": _text("where the base model comes from", allowed=["nano", "path", "hub"], required=True),
    "path": _text("path: an mlx-lm folder (safetensors, config.json, tokenizer)", default=""),
    "repo": _text("hub: owner/name", default="", regex=REPO),
    "revision": _text(
        "hub: branch, tag or commit; model.lock.json pins the commit it meant",
        default="main",
        regex=REVISION,
    ),
    "layers": _whole("nano: transformer layers", "layers", 1, 64, default=6),
    "width": _whole("nano: hidden size", "values", 8, 1024, default=64),
    "heads": _whole("nano: query heads", "heads", 1, 64, default=4),
    "kv_heads": _whole("nano: key/value heads", "heads", 1, 64, default=1),
    "hidden": _whole("nano: width of the MLP", "values", 8, 4096, default=128),
    "seed": _whole("nano: seed of the random weights", "", 0, 2**31 - 1, default=0),
}

SOURCE: Table = {
    "kind": _text(
        "report: correction report read through a field map; rows: row contract; chatml: messages as they are",
        allowed=["report", "rows", "chatml"],
        required=True,
    ),
    "path": _text("the file; for rows the predictions", required=True, minlength=1),
    "references": _text("rows: the references file", default=""),
    "evidence_kind": _text(
        "what a result on these rows can prove", allowed=["real", "synthetic", "smoke", "oracle"], required=True
    ),
    "rows": _text('report: dotted path to the list of rows; "" when the file is the list', default=""),
    "fields": {
        "type": "dict",
        "valuesrules": {"type": "string"},
        "default": {},
        "meta": {"help": "report: canonical field = dotted path inside a row"},
    },
    "constants": {
        "type": "dict",
        "valuesrules": {"type": "string"},
        "default": {},
        "meta": {"help": "report: canonical field = constant"},
    },
    "use": _texts(
        "report: which rows teach. accepted: the final text; corrected: rejected rows, their reference; "
        "unchanged: rejected rows, as they were",
        default=["accepted"],
        schema={"type": "string", "allowed": ["accepted", "corrected", "unchanged"]},
    ),
}

DATASET: Table = {
    "sources": {
        "type": "list",
        "minlength": 1,
        "required": True,
        "schema": {"type": "dict", "schema": SOURCE},
        "meta": {"help": "one table per input file"},
    },
    "system": _text("system message of every row", default=""),
    "template": _text("Jinja2 file of the user message, given hypothesis-side fields", required=True, minlength=1),
    "orthography": _text(
        "spelling of the texts, never mixed", default="", allowed=["", "bridge-toneless", "standard-toned"]
    ),
    "split_seed": _whole("seed of the split by source group", "", 0, 2**31 - 1, default=0),
    "valid": _real("validation rows", "share of groups", 0.0, 0.9, default=0.1),
    "test": _real("test rows", "share of groups", 0.0, 0.9, default=0.1),
}

TRAIN: Table = {
    "strategy": _text("data: every rank holds the whole model and its own rows", allowed=["data"], default="data"),
    "num_iters": _whole("optimizer steps", "steps", 1, 10_000_000, required=True),
    "batch_size": _whole("rows of each rank in each step", "rows per rank", 1, 65_536, default=1),
    "num_layers": _whole("last layers that get LoRA", "layers", 1, 1024, default=4),
    "lora_rank": _whole("rank of the LoRA matrices", "", 1, 4096, default=8),
    "lora_scale": _real("factor of the LoRA product", "", 0.0, 1000.0, default=20.0),
    "lora_dropout": _real("dropout before the LoRA product", "share", 0.0, 0.9, default=0.0),
    "lora_keys": _texts(
        "linear layers that get LoRA, as self_attn.q_proj; empty: all",
        default=[],
        schema={"type": "string", "regex": LAYER},
    ),
    "learning_rate": _real("step size of AdamW", "per step", 1e-9, 1.0, default=1e-5),
    "weight_decay": _real("decay of AdamW", "per step", 0.0, 1.0, default=0.01),
    "max_grad_norm": _real("gradients are clipped to this norm; 0: never", "", 0.0, 1e6, default=1.0),
    "log_every": _whole("steps between train losses", "steps", 1, 10_000_000, default=10),
    "eval_every": _whole("steps between validations", "steps", 1, 10_000_000, default=100),
    "save_every": _whole("steps between saved adapters", "steps", 1, 10_000_000, default=100),
    "max_seq_len": _whole("longest row", "tokens", 8, 1_048_576, default=512),
    "too_long": _text(
        "a row whose answer max_seq_len would cut: refuse stops, drop leaves it out and counts it",
        allowed=["refuse", "drop"],
        default="refuse",
    ),
    "seed": _whole("seed of LoRA weights, dropout and row order", "", 0, 2**31 - 1, default=0),
}

EVALUATE: Table = {
    "max_tokens": _whole("longest generation", "tokens", 1, 65_536, default=64),
    "batch_size": _whole("rows scored at once", "rows", 1, 4096, default=8),
}

BUILD: Table = {
    "environment": _text(
        "which environment changes retrain: strict: Python, mlx, mlx-lm, platform; mlx: mlx and mlx-lm; none",
        allowed=["strict", "mlx", "none"],
        default="mlx",
    ),
    "tolerance": _real(
        "how far off a metric may be when `reproduce` runs on another platform", "relative", 0.0, 1.0, default=1e-3
    ),
}

RECIPE: Table = {
    "name": _text("name of the run; the file's name without .toml when not given", regex=NAME, forbidden=["models"]),
    "description": _text("what the run is for", default=""),
    "cluster": _text("a [clusters.*] table of thunder.toml", required=True),
    "model": _text("a [models.*] table of thunder.toml", required=True),
    "dataset": _text("a [datasets.*] table of thunder.toml", required=True),
    "train": {"type": "dict", "schema": TRAIN, "required": True, "meta": {"help": "the training"}},
    "evaluate": {"type": "dict", "schema": EVALUATE, "default": {}, "meta": {"help": "the evaluation"}},
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
            "recipes": _texts("recipes that a bare `./doit` builds", required=True),
            "cache": _text("folder of the run cache; clones on one disk may share it", default=".thunder/cache"),
            "cache_limit_gb": _real(
                "size of the run cache; least recently used go first", "GB", 0.0, 1e6, default=10.0
            ),
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
