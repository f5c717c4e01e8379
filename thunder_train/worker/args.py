"""The worker's flags, as launch.sh passes them: one frozen record, checked before anything is loaded."""

import argparse
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from thunder_train import ThunderError, raise_all

AT_LEAST_ONE = (
    "num_iters", "batch_size", "grad_accumulation", "num_layers", "lora_rank", "log_every", "eval_every", "save_every",
    "max_skipped", "keep_checkpoints",
)  # fmt: skip
NOT_NEGATIVE = (
    "weight_decay",
    "max_grad_norm",
    "seed",
    "warmup_steps",
    "patience",
    "global_batch_size",
    "stall_timeout_s",
    "start_timeout_s",
)
ABOVE_ZERO = ("learning_rate", "lora_scale")
WHERE_ONLY = (
    "model", "model_lock", "train_data", "valid_data", "hostfile", "adapter_path", "checkpoint_path", "token_cache",
    "log_every", "eval_every", "save_every", "keep_checkpoints", "stall_timeout_s", "start_timeout_s", "report_to",
    "max_skipped",
)  # fmt: skip
"""Flags that say where things lie or what is told, not what is computed; validation is free of random state."""


class Parser(argparse.ArgumentParser):
    """argparse that raises its errors as ThunderError, so that they are printed as every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        raise ThunderError(message, where=self.prog, hint=f"see `python -m {self.prog} --help`")


@dataclass(frozen=True)
class Settings:
    """One field per flag; `--help` says what each means."""

    model: str
    model_lock: str
    train_data: Path
    valid_data: Path
    max_seq_len: int
    too_long: str
    train_on: str
    token_cache: Path | None
    strategy: str
    hostfile: Path | None
    weights: tuple[float, ...]
    batch_size: int
    grad_accumulation: int
    global_batch_size: int
    micro_tokens: int
    packing: str
    fine_tune_type: str
    num_layers: int
    lora_rank: int
    lora_scale: float
    lora_dropout: float
    lora_keys: tuple[str, ...]
    num_iters: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    max_skipped: int
    grad_checkpoint: bool
    seed: int
    adapter_path: Path
    checkpoint_path: Path
    keep_checkpoints: int
    choose: str
    patience: int
    log_every: int
    eval_every: int
    save_every: int
    stall_timeout_s: float
    start_timeout_s: float
    report_to: tuple[str, ...]

    def rows_per_step(self, ranks: int) -> int:
        """Rows that all ranks together take in one optimizer step."""
        return self.global_batch_size or self.batch_size * ranks * self.grad_accumulation

    def numeric(self) -> dict[str, Any]:
        """The flags that decide numbers, by name; what lies elsewhere or only tells is left out."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in WHERE_ONLY}


@dataclass(frozen=True)
class Task:
    """The flags of an evaluation; one field per flag, and `generate --help` says what each means."""

    model: str
    model_lock: str
    adapter_path: Path
    train_data: Path | None
    valid_data: Path
    test_data: Path
    token_cache: Path | None
    max_seq_len: int
    max_tokens: int
    batch_size: int
    hostfile: Path | None
    weights: tuple[float, ...]
    stall_timeout_s: float
    start_timeout_s: float
    partial: Path | None
    predictions: Path
    losses: Path


def parse(argv: list[str]) -> Settings:
    """The settings of a command line. Raises ThunderError with every bad value."""
    values = vars(_parser().parse_args(argv))
    values["checkpoint_path"] = values["checkpoint_path"] or values["adapter_path"].parent / "checkpoints"
    settings = Settings(**values)
    raise_all(problems(settings))
    return settings


def problems(settings: Settings) -> list[ThunderError]:
    """Every value that cannot be trained with."""
    bounds = [(name, "1 or more", 1) for name in AT_LEAST_ONE] + [(name, "0 or more", 0) for name in NOT_NEGATIVE]
    bounds += [("max_seq_len", "2 or more", 2), ("micro_tokens", "2 or more", 2)]
    found = [
        ThunderError(f"must be {words}, not {getattr(settings, name)}", where=_flag(name))
        for name, words, low in bounds
        if not (math.isfinite(getattr(settings, name)) and getattr(settings, name) >= low)
    ]
    found += [
        ThunderError(f"must be above 0, not {getattr(settings, name)}", where=_flag(name))
        for name in ABOVE_ZERO
        if not (math.isfinite(getattr(settings, name)) and getattr(settings, name) > 0)
    ]
    if settings.seed >= 2**32:
        found.append(ThunderError(f"must be below 2^32, not {settings.seed}", where="--seed"))
    if not 0 <= settings.lora_dropout < 1:
        found.append(ThunderError(f"must be from 0 to below 1, not {settings.lora_dropout}", where="--lora-dropout"))
    return found + _contradictions(settings)


def _contradictions(settings: Settings) -> list[ThunderError]:
    found = []
    if settings.weights and settings.strategy == "tensor":
        what = "share out rows, and with `--strategy tensor` every rank takes all of them"
        found.append(ThunderError(what, where="--weights", hint="leave it out, or use `--strategy data`"))
    if settings.global_batch_size and (settings.batch_size > 1 or settings.grad_accumulation > 1):
        what = "says how many rows a step takes, and so do --batch-size and --grad-accumulation"
        found.append(ThunderError(what, where="--global-batch-size", hint="leave the other two at 1"))
    if settings.fine_tune_type == "dora" and settings.strategy == "tensor":
        hint = "use `--fine-tune-type lora`, or `--strategy data`"
        found.append(ThunderError("a layer in parts has no DoRA", where="--fine-tune-type", hint=hint))
    if settings.warmup_steps >= settings.num_iters > 0:
        what = f"is {settings.warmup_steps} of {settings.num_iters} steps"
        found.append(ThunderError(what, where="--warmup-steps", hint="warm up for fewer steps than there are"))
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def weights(text: str) -> tuple[float, ...]:
    """The speed of each rank, as --weights gives it."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(math.isfinite(weight) and weight > 0 for weight in found):
        raise argparse.ArgumentTypeError(f"must be a number above 0 for each rank, as 2.0,1.0, not {text!r}")
    return found


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="thunder_train.worker", description="train a LoRA adapter; one such process per rank", allow_abbrev=False
    )
    for title, flags in _GROUPS.items():
        group = parser.add_argument_group(title)
        for flag, options in flags.items():
            group.add_argument(flag, **options)
    return parser


def _one_of(*choices: str, default: str, help: str) -> dict[str, Any]:  # noqa: A002  (argparse's own word)
    return {"choices": choices, "default": default, "help": help}


_GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "model and data": {
        "--model": {"required": True, "help": "mlx-lm folder, or hub id that is already in the cache"},
        "--model-lock": {"default": "", "help": "model.lock.json, which pins the commit of a hub id"},
        "--train-data": {"type": Path, "required": True, "help": "ChatML rows, JSONL"},
        "--valid-data": {"type": Path, "required": True, "help": "ChatML rows, JSONL; all of them are scored"},
        "--max-seq-len": {"type": int, "default": 512, "help": "tokens a row may have, prompt and answer together"},
        "--too-long": _one_of("refuse", "drop", "split", default="refuse", help="what to do with longer rows"),
        "--train-on": _one_of("last", "all", default="last", help="answers of a row that teach"),
        "--token-cache": {"type": Path, "default": None, "help": "folder of tokenised rows, kept by content"},
    },
    "ranks": {
        "--strategy": _one_of("data", "tensor", default="data", help="split the rows, or each layer, over the ranks"),
        "--hostfile": {"type": Path, "default": None, "help": "backend and hosts; without it one process trains"},
        "--weights": {"type": weights, "default": (), "help": "speed of each rank, as 2.0,1.0; without it all alike"},
        "--stall-timeout": {
            "dest": "stall_timeout_s", "type": float, "default": 600.0, "help": "seconds without a step, the most",
        },
        "--start-timeout": {
            "dest": "start_timeout_s", "type": float, "default": 0.0, "help": "seconds until the first step; 0: any",
        },
    },
    "rows of a step": {
        "--batch-size": {"type": int, "default": 1, "help": "rows per rank and batch"},
        "--grad-accumulation": {"type": int, "default": 1, "help": "batches that one step adds up"},
        "--global-batch-size": {"type": int, "default": 0, "help": "rows of all ranks and batches together; 0: derive"},
        "--micro-tokens": {"type": int, "default": 8192, "help": "tokens that go through the model at once"},
        "--packing": _one_of("auto", "never", default="auto", help="rows share a width where the model allows it"),
    },
    "LoRA": {
        "--fine-tune-type": _one_of("lora", "dora", default="lora", help="kind of adapter"),
        "--num-layers": {"type": int, "default": 4, "help": "last blocks of the model that get an adapter"},
        "--lora-rank": {"type": int, "default": 8, "help": "inner width of each adapter"},
        "--lora-scale": {"type": float, "default": 20.0, "help": "factor of the adapter's output"},
        "--lora-dropout": {"type": float, "default": 0.0, "help": "share of the adapter's inputs zeroed in training"},
        "--lora-keys": {"type": _list, "default": (), "help": "layers in a block, a,b; empty: every linear layer"},
    },
    "optimizer": {
        "--num-iters": {"type": int, "required": True, "help": "optimizer steps"},
        "--learning-rate": {"type": float, "required": True, "help": "step size of AdamW"},
        "--schedule": _one_of("constant", "linear", "cosine", default="constant", help="of the learning rate"),
        "--warmup-steps": {"type": int, "default": 0, "help": "steps over which the learning rate rises"},
        "--weight-decay": {"type": float, "default": 0.01, "help": "AdamW's decoupled decay"},
        "--max-grad-norm": {"type": float, "default": 1.0, "help": "longest gradient; longer ones are scaled; 0: off"},
        "--max-skipped": {"type": int, "default": 10, "help": "steps in a row that are not finite before giving up"},
        "--grad-checkpoint": {"type": _truth, "default": False, "help": "true: compute activations twice, hold fewer"},
        "--seed": {"type": int, "default": 0, "help": "seed of adapter, row order and dropout"},
    },
    "output": {
        "--adapter-path": {"type": Path, "required": True, "help": "folder of the adapter; metrics.jsonl goes beside"},
        "--checkpoint-path": {"type": Path, "default": None, "help": "a run goes on from here; default: beside"},
        "--keep-checkpoints": {"type": int, "default": 2, "help": "last checkpoints that are kept"},
        "--choose": _one_of("best", "last", default="best", help="adapter that is the result"),
        "--patience": {"type": int, "default": 0, "help": "validations without gain that end the run; 0: none"},
        "--log-every": {"type": int, "default": 10, "help": "steps between training losses"},
        "--eval-every": {"type": int, "default": 100, "help": "steps between validations; the last step has one"},
        "--save-every": {"type": int, "default": 100, "help": "steps between checkpoints; the last step has one"},
        "--report-to": {"type": _list, "default": (), "help": "wandb, swanlab"},
    },
}  # fmt: skip
