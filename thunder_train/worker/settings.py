"""The worker's flags, as launch.sh passes them: one frozen record, checked before anything is loaded."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from thunder_train import ThunderError, raise_all
from thunder_train.worker.entry import Parser

AT_LEAST_ONE = ("num_iters", "batch_size", "num_layers", "lora_rank", "log_every", "eval_every", "save_every")


@dataclass(frozen=True)
class Settings:
    """One field per flag; `--help` says what each means."""

    model: str
    model_lock: str
    train_data: Path
    valid_data: Path
    max_seq_len: int
    too_long: str
    strategy: str
    batch_size: int
    hostfile: Path | None
    num_layers: int
    lora_rank: int
    lora_scale: float
    lora_dropout: float
    lora_keys: tuple[str, ...]
    num_iters: int
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    adapter_path: Path
    log_every: int
    eval_every: int
    save_every: int


def parse(argv: list[str]) -> Settings:
    """The settings of a command line. Raises ThunderError with every bad value."""
    settings = Settings(**vars(_parser().parse_args(argv)))
    raise_all(problems(settings))
    return settings


def problems(settings: Settings) -> list[ThunderError]:
    """Every value that cannot be trained with."""
    found = [
        ThunderError(f"must be 1 or more, not {getattr(settings, name)}", where=_flag(name))
        for name in AT_LEAST_ONE
        if getattr(settings, name) < 1
    ]
    if settings.max_seq_len < 2:
        found.append(ThunderError(f"must be 2 or more, not {settings.max_seq_len}", where="--max-seq-len"))
    if not (math.isfinite(settings.learning_rate) and settings.learning_rate > 0):
        found.append(ThunderError(f"must be above 0, not {settings.learning_rate}", where="--learning-rate"))
    if not (math.isfinite(settings.lora_scale) and settings.lora_scale > 0):
        found.append(ThunderError(f"must be above 0, not {settings.lora_scale}", where="--lora-scale"))
    for name in ("weight_decay", "max_grad_norm", "seed"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value >= 0):
            found.append(ThunderError(f"must be 0 or more, not {value}", where=_flag(name)))
    if settings.seed >= 2**32:
        found.append(ThunderError(f"must be below 2^32, not {settings.seed}", where="--seed"))
    if not 0 <= settings.lora_dropout < 1:
        found.append(ThunderError(f"must be from 0 to below 1, not {settings.lora_dropout}", where="--lora-dropout"))
    if settings.strategy != "data":
        found.append(
            ThunderError(
                f"strategy {settings.strategy!r} is not offered", where="--strategy", mend="use `--strategy data`"
            )
        )
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _keys(text: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in text.split(",") if key.strip())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="thunder_train.worker", description="train a LoRA adapter; one such process per rank", allow_abbrev=False
    )
    for add in (_add_inputs, _add_ranks, _add_lora, _add_optimizer, _add_output):
        add(parser)
    return parser


def _add_inputs(parser: Parser) -> None:
    group = parser.add_argument_group("model and data")
    group.add_argument("--model", required=True, help="mlx-lm folder, or hub id that is already in the cache")
    group.add_argument("--model-lock", default="", help="model.lock.json, which pins the commit of a hub id")
    group.add_argument("--train-data", type=Path, required=True, help="ChatML rows, JSONL")
    group.add_argument("--valid-data", type=Path, required=True, help="ChatML rows, JSONL; all of them are scored")
    group.add_argument("--max-seq-len", type=int, default=512, help="tokens a row may have, prompt and answer together")
    group.add_argument("--too-long", choices=("refuse", "drop"), default="refuse", help="what to do with longer rows")


def _add_ranks(parser: Parser) -> None:
    group = parser.add_argument_group("ranks")
    group.add_argument("--strategy", default="data", help="data: every rank holds the model and takes its rows")
    group.add_argument("--batch-size", type=int, default=1, help="rows per rank and step")
    group.add_argument("--hostfile", type=Path, default=None, help="backend and hosts; without it one process trains")


def _add_lora(parser: Parser) -> None:
    group = parser.add_argument_group("LoRA")
    group.add_argument("--num-layers", type=int, default=4, help="last blocks of the model that get an adapter")
    group.add_argument("--lora-rank", type=int, default=8, help="inner width of each adapter")
    group.add_argument("--lora-scale", type=float, default=20.0, help="factor of the adapter's output")
    group.add_argument(
        "--lora-dropout", type=float, default=0.0, help="share of the adapter's inputs zeroed in training"
    )
    group.add_argument("--lora-keys", type=_keys, default=(), help="layers in a block, a,b; empty: every linear layer")


def _add_optimizer(parser: Parser) -> None:
    group = parser.add_argument_group("optimizer")
    group.add_argument("--num-iters", type=int, required=True, help="optimizer steps")
    group.add_argument("--learning-rate", type=float, required=True, help="step size of AdamW")
    group.add_argument("--weight-decay", type=float, default=0.01, help="AdamW's decoupled decay")
    group.add_argument(
        "--max-grad-norm", type=float, default=1.0, help="longest gradient; longer ones are scaled; 0: off"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of adapter, row order and dropout")


def _add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--adapter-path", type=Path, required=True, help="folder of the adapter; metrics.jsonl goes beside"
    )
    group.add_argument("--log-every", type=int, default=10, help="steps between training losses")
    group.add_argument("--eval-every", type=int, default=100, help="steps between validations; the last step has one")
    group.add_argument(
        "--save-every", type=int, default=100, help="steps between saved adapters; the last step has one"
    )
