"""A config of mlx_lm.lora, as `mlx_lm.lora --config lora.yaml` reads it -> keys of a recipe, model and data.

The keys and their defaults are those of mlx-lm 0.32. A key without a place in a recipe is named with the reason. Counts
of iterations become counts of steps: with gradient accumulation mlx-lm counts batches, a recipe counts updates.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.core.text import printable, quoted

MOST_BYTES = 1 << 20
DEEPEST = 32
FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
"""PyYAML takes 1e-5 for a text, and mlx-lm for a number."""
SCHEDULES = {"cosine_decay": "cosine", "linear_schedule": "linear"}
NO_PLACE = {
    "test": (False, "every run is evaluated on its test rows"),
    "test_batches": (500, "every test row is evaluated"),
    "val_batches": (25, "every validation row counts"),
    "adapter_path": ("adapters", "the adapter lies in runs/NAME/adapter"),
    "config": (None, "a recipe is the config"),
    "clear_cache_threshold": (0, "memory is bounded by train.micro_tokens"),
    "resume_adapter_file": (
        None,
        "copy its folder into adapters/ and give it as train.start_from (docs/warm-starts.md)",
    ),
    "project_name": (None, "the trackers get the recipe's name"),
    "hf_dataset": (None, 'name the dataset with repo = "owner/name" in a source (docs/data.md)'),
    "trust_remote_code": (False, "code of a model's repository is never run"),
    "lora_layers": (None, "the name before num_layers"),
}
"""{key of mlx-lm that no key of a recipe stands for: its default, which need not be named, and why}"""


DECAYS = {"adam": 0.0, "adamw": 0.01, "muon": 0.01, "sgd": 0.0, "adafactor": 0.0}
"""{optimizer of mlx-lm: the weight decay that it has by default}"""


@dataclass
class Converted:
    """Keys for [train], the model and the data that a config names, and what has no place, a line each."""

    train: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    data: str = ""
    notes: list[str] = field(default_factory=list)


def read(path: Path) -> Converted:
    """The config in a file. Raises ThunderError with every value that is of no use."""
    return converted(_table(path), str(path))


def converted(table: dict[str, Any], where: str) -> Converted:
    """A config as keys of a recipe."""
    taken = Converted()
    given = {key: value for key, value in table.items() if value is not None}
    batches = _whole(given, "grad_accumulation_steps", 1, where)
    _counts(given, taken, batches, where)
    _numbers(given, taken, where)
    _optimizer(given, taken, where)
    _lora(given, taken, where)
    _schedule(given, taken, batches, where)
    taken.model, taken.data = (_text(given, key, where) for key in ("model", "data"))
    if not given.pop("mask_prompt", False):
        taken.train["train_on"] = "everything"
    if given.pop("train", True) is False:
        taken.notes.append("train: false, and a recipe is a training")
    for key in sorted(given):
        default, reason = NO_PLACE.get(key, (None, "mlx-lm 0.32 has no such key"))
        if given[key] != default:
            taken.notes.append(f"{printable(key)}: {reason}")
    return taken


def _counts(given: dict[str, Any], taken: Converted, batches: int, where: str) -> None:
    """Iterations become steps, and rows of all ranks stay rows of all ranks."""
    taken.train["num_iters"] = max(1, _whole(given, "iters", 1000, where) // batches)
    for ours, theirs, default in (
        ("log_every", "steps_per_report", 10),
        ("eval_every", "steps_per_eval", 200),
        ("save_every", "save_every", 100),
    ):
        taken.train[ours] = max(1, _whole(given, theirs, default, where) // batches)
    taken.train["global_batch_size"] = _whole(given, "batch_size", 4, where) * batches


def _numbers(given: dict[str, Any], taken: Converted, where: str) -> None:
    taken.train["max_seq_len"] = _whole(given, "max_seq_length", 2048, where)
    taken.train["seed"] = _whole(given, "seed", 0, where)
    taken.train["learning_rate"] = _number(given, "learning_rate", 1e-5, where)
    taken.train["max_grad_norm"] = 0.0  # mlx-lm does not clip gradients
    taken.train["too_long"] = "drop"  # mlx-lm cuts such rows, with or without their answers
    layers = _whole(given, "num_layers", 16, where, low=-1)
    taken.train["num_layers"] = "all" if layers == -1 else layers
    if given.pop("grad_checkpoint", False):
        taken.train["grad_checkpoint"] = True
    trackers = given.pop("report_to", "")
    if trackers:
        taken.train["report_to"] = [each.strip() for each in str(trackers).split(",")]


def _optimizer(given: dict[str, Any], taken: Converted, where: str) -> None:
    name = given.pop("optimizer", "adam")
    options = given.pop("optimizer_config", {})
    options = options.get(name) if isinstance(options, dict) else {}
    options = dict(options) if isinstance(options, dict) else {}
    if name not in DECAYS:
        taken.notes.append(f"optimizer: {quoted(name)} is none of mlx-lm 0.32, and AdamW here")
        name, options = "adamw", {}
    taken.train["optimizer"] = name
    decay = options.pop("weight_decay", DECAYS[name])
    taken.train["weight_decay"] = _as_number(decay, f"{where}: optimizer_config.{name}.weight_decay")
    if name == "adafactor":
        taken.notes.append("optimizer: adafactor takes train.learning_rate here, and in mlx-lm steps of its own")
    for key in sorted(options):
        taken.notes.append(f"optimizer_config.{name}.{key}: a recipe has no such key (docs/optimizers.md)")


def _lora(given: dict[str, Any], taken: Converted, where: str) -> None:
    kind = given.pop("fine_tune_type", "lora")
    if kind not in ("lora", "dora"):
        hint = 'set it to "lora" or "dora"'
        raise ThunderError(f"is {quoted(kind)}, and a recipe trains an adapter", f"{where}: fine_tune_type", hint)
    taken.train["fine_tune_type"] = kind
    options = given.pop("lora_parameters", {})
    if not isinstance(options, dict):
        raise ThunderError(f"must be a table, is {quoted(options)}", f"{where}: lora_parameters", "correct it")
    options = dict(options)
    place = f"{where}: lora_parameters"
    taken.train["lora_rank"] = _whole(options, "rank", 8, place)
    taken.train["lora_dropout"] = _number(options, "dropout", 0.0, place)
    scale = _number(options, "scale", 20.0, place)
    if "alpha" in options:  # of earlier versions: scale = alpha / rank
        scale = _number(options, "alpha", 16.0, place) / taken.train["lora_rank"]
    taken.train["lora_scale"] = scale
    keys = options.pop("keys", None)
    if keys:
        taken.train["lora_keys"] = [str(key) for key in keys] if isinstance(keys, list) else [str(keys)]
    for key in sorted(options):
        taken.notes.append(f"lora_parameters.{key}: mlx-lm 0.32 has no such key")


def _schedule(given: dict[str, Any], taken: Converted, batches: int, where: str) -> None:
    schedule = given.pop("lr_schedule", None)
    if not schedule:
        return
    options = dict(schedule) if isinstance(schedule, dict) else {}
    name, values = options.pop("name", ""), options.pop("arguments", [])
    if name not in SCHEDULES or not isinstance(values, list) or not values:
        taken.notes.append(f"lr_schedule: {quoted(name)} has no place; the learning rate is constant")
        return
    taken.train["schedule"] = SCHEDULES[name]
    taken.train["learning_rate"] = _as_number(values[0], f"{where}: lr_schedule.arguments[0]")
    taken.train["warmup_steps"] = _whole(options, "warmup", 0, f"{where}: lr_schedule", low=0)
    taken.notes.append("lr_schedule.arguments: here a schedule ends at 0 with the last step")
    if options.pop("warmup_init", 0.0):
        taken.notes.append("lr_schedule.warmup_init: a warm-up begins at 0")
    for key in sorted(options):
        taken.notes.append(f"lr_schedule.{key}: has no place")


def _table(path: Path) -> dict[str, Any]:
    import yaml  # late: only this command reads YAML

    where, hint = str(path), "give a file that `mlx_lm.lora --config` reads"
    try:
        data = files.read_bytes(path, MOST_BYTES + 1)
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where, hint) from None
    if len(data) > MOST_BYTES:
        raise ThunderError("is larger than 1 MB, which no config is", where, hint)
    try:
        text = data.decode("utf-8-sig")
        _check_tokens(text, where)
        table = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ThunderError(f"is not YAML: {reason or 'nested too deeply'}", where, hint) from None
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise ThunderError("is no table of keys", where, hint)
    return table


def _check_tokens(text: str, where: str) -> None:
    """Refuse YAML that could take any amount of memory, or of time: reading takes the square of its depth."""
    import yaml

    starts = yaml.BlockMappingStartToken | yaml.BlockSequenceStartToken
    starts |= yaml.FlowMappingStartToken | yaml.FlowSequenceStartToken
    ends, depth = yaml.BlockEndToken | yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken, 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, starts) - isinstance(token, ends)
        if isinstance(token, yaml.AliasToken):
            raise ThunderError("has an alias (*name), which may stand for any amount of text", where, "write it out")
        if depth > DEEPEST:
            hint = "give a file that `mlx_lm.lora --config` reads"
            raise ThunderError(f"is nested more than {DEEPEST} levels deep, which no config is", where, hint)


def _whole(given: dict[str, Any], key: str, default: int, where: str, low: int = 0) -> int:
    value = given.pop(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ThunderError(f"must be a whole number, is {quoted(value)}", f"{where}: {key}", "correct it")
    return value


def _number(given: dict[str, Any], key: str, default: float, where: str) -> float:
    return _as_number(given.pop(key, default), f"{where}: {key}")


def _as_number(value: Any, where: str) -> float:
    if isinstance(value, str) and FLOAT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ThunderError(f"must be a number, is {quoted(value)}", where, "correct it")
    return float(value)


def _text(given: dict[str, Any], key: str, where: str) -> str:
    value = given.pop(key, "")
    if not isinstance(value, str):
        raise ThunderError(f"must be a text, is {quoted(value)}", f"{where}: {key}", "correct it")
    return value
