"""Every key that thunder.toml and a recipe may hold: type, bounds, unit, default, meaning. Data only.

Each table is a Cerberus schema; `meta` carries what people read. docs/recipe.md and the editors' JSON schemas are made
from it (reference.py), so a key is described here and nowhere else.
"""

from typing import Any

from thunder_train.config.fields import (
    ADDRESS,
    NAME,
    REPO,
    REVISION,
    SSH_NAME,
    VARIABLE,
    Table,
    real,
    text,
    texts,
    whole,
)
from thunder_train.config.schema_data import DATASET as DATASET
from thunder_train.config.schema_data import ORTHOGRAPHY as ORTHOGRAPHY
from thunder_train.config.schema_data import SOURCE as SOURCE
from thunder_train.config.schema_evaluate import EVALUATE as EVALUATE
from thunder_train.config.schema_evaluate import GATE as GATE
from thunder_train.config.schema_evaluate import PROBE as PROBE
from thunder_train.config.schema_evaluate import PROMOTION as PROMOTION
from thunder_train.config.schema_train import TRAIN as TRAIN

HOST: Table = {
    "ssh": text("name that ssh reaches without a prompt", required=True, regex=SSH_NAME),
    "ips": texts(
        "addresses on the training link, first one first (ring, nccl, mpi; jaccl needs rank 0's)",
        default=[],
        schema={"type": "string", "regex": ADDRESS},
    ),
    "rdma": texts('jaccl: this host\'s row of the RDMA matrix; "" marks its own slot', default=[]),
    "weight": real(
        "share of a step's rows that its rank takes, relative to the others (strategy data)",
        "",
        0.01,
        100.0,
        default=1.0,
    ),
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
