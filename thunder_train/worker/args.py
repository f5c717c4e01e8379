"""The worker's flags, as launch.sh passes them: one frozen record, checked before anything is loaded.

A flag that is a key of [train] has the type, bounds, choices, default and help of config/train.py. The other flags are
declared here.
"""
# ruff: noqa: RUF009  (a call per flag is how flags are declared)

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from thunder_train import ThunderError, raise_all
from thunder_train.config.fields import is_implied, is_operational, problem
from thunder_train.config.train import Train, contradictions, flag_of
from thunder_train.core import shipped, template_arguments
from thunder_train.core.paths import MLX_LM

LAUNCHER_ONLY = ("max_restarts",)
"""Keys of [train] that are no flags of the worker."""
WHERE_ONLY = (
    "model", "model_lock", "train_data", "valid_data", "hostfile", "adapter_path", "checkpoint_path", "token_cache",
    "log_every", "eval_every", "max_skipped", "chat_template", "start_from", "extend_from",
)  # fmt: skip
"""Flags that say where files are or how to report, besides the operational ones. They change no step: validation has no
random state, and the content of model and data is compared by hash.
"""
CHAT = ("template_args", "end_answers")


class Parser(argparse.ArgumentParser):
    """argparse that raises its errors as ThunderError, so that they are printed like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        raise ThunderError(message, where=self.prog, hint=f"see `python -m {self.prog} --help`")


def flag(*, help: str, default: Any = MISSING, type: Callable[[str], Any] = str) -> Any:  # noqa: A002  (argparse's names)
    """A flag that is no key of a recipe, as the field of a dataclass."""
    return field(default=default, metadata={"type": type, "meta": {"help": help}})


def key_of(kind: type, name: str) -> Any:
    """A flag that is a key of a recipe, declared by the field of that name in kind."""
    key = next(each for each in fields(kind) if each.name == name)
    return field(default=key.default, metadata=key.metadata)


def weights(text: str) -> tuple[float, ...]:
    """The speed of each rank, as --weights gives it."""
    try:
        speeds = tuple(float(part) for part in text.split(","))
    except ValueError:
        speeds = (math.nan,)
    if not all(math.isfinite(speed) and speed > 0 for speed in speeds):
        raise argparse.ArgumentTypeError(f"must be a number above 0 for each rank, as 2.0,1.0, not {text!r}")
    return speeds


def truth(text: str) -> bool:
    """A flag that is true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def template_json(text: str) -> str:
    """The arguments of --template-args as canonical JSON; "" for none."""
    try:
        arguments = template_arguments.parse(text) if text else {}
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return template_arguments.text_of(arguments) if arguments else ""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a training and an evaluation read, and the ranks that share the work."""

    model: str = flag(help="mlx-lm folder, or hub id that is already in the cache")
    model_lock: str = flag(help="model.lock.json, which pins the commit of a hub id", default="")
    valid_data: Path = flag(help="Validation rows, ChatML as JSONL", type=Path)
    token_cache: Path | None = flag(help="Folder that caches tokenised rows by content", type=Path, default=None)
    hostfile: Path | None = flag(help="Backend and hosts; without it one process does all", type=Path, default=None)
    weights: tuple[float, ...] = flag(
        help="Speed of each rank, as 2.0,1.0; without it all are equal", type=weights, default=()
    )
    chat_template: Path | None = flag(
        help="Jinja file that turns messages into text; default: the tokenizer's own template", type=Path, default=None
    )
    template_args: str = flag(help="Arguments of the chat template, as a JSON object", type=template_json, default="")
    end_answers: bool = flag(
        help="Whether an answer that the chat template does not end gets the end-of-sequence token",
        type=truth,
        default=True,
    )

    def template_arguments(self) -> dict[str, Any]:
        """The arguments of --template-args."""
        return dict(template_arguments.parse(self.template_args)) if self.template_args else {}

    def chat_flags(self) -> dict[str, Any]:
        """Those of --template-args and --end-answers that are given: without one a run is what it always was."""
        given = {"template_args": self.template_args, "end_answers": self.end_answers}
        return {name: value for name, value in given.items() if value not in ("", True)}

    def chat_files(self) -> dict[str, Path]:
        """{flag: the file that decides how messages become text}, if one is given."""
        return {"--chat-template": shipped.place(str(self.chat_template))} if self.chat_template else {}


@dataclass(frozen=True, kw_only=True)
class Settings(Inputs, Train):
    """The flags of a training, one field per flag."""

    train_data: Path = flag(help="Training rows, ChatML as JSONL", type=Path)
    adapter_path: Path = flag(help="Folder for the adapter; metrics.jsonl is written beside it", type=Path)
    checkpoint_path: Path = flag(
        help="Folder of checkpoints, from which a stopped run continues; default: checkpoints beside the adapter",
        type=Path,
        default=None,
    )
    extend_from: Path = flag(
        help="Folder of the last checkpoint of a training of fewer steps, from which this one goes on if it can",
        type=Path,
        default=None,
    )

    def start_files(self) -> dict[str, Path]:
        """{flag: the weights of the adapter that the training begins with}, if it begins with one."""
        return {"--start-from": Path(self.start_from) / MLX_LM[0]} if self.start_from else {}

    def numeric(self) -> dict[str, Any]:
        """The flags that decide numbers, by name."""
        left_out = {*WHERE_ONLY, *CHAT}
        numeric = [key for key in fields(self) if key.name not in left_out and not is_operational(key)]
        values = [(key, getattr(self, key.name)) for key in numeric]
        return {key.name: value for key, value in values if not is_implied(key, value)} | self.chat_flags()


def parse(argv: list[str]) -> Settings:
    """The settings of a command line. Raises ThunderError with every bad value."""
    parser = parser_of(Settings, "thunder_train.worker", "train a LoRA adapter; one such process per rank")
    values = vars(parser.parse_args(argv))
    values["checkpoint_path"] = values["checkpoint_path"] or checkpoints_beside(values["adapter_path"])
    settings = Settings(**values)
    raise_all(problems(settings) + _contradictions(settings))
    return settings


def checkpoints_beside(adapter: Path) -> Path:
    """Where a training keeps its checkpoints if nobody says where. Adapters in one folder do not share them."""
    folder = adapter.parent / "checkpoints"
    return folder if adapter.name == "adapter" else folder / adapter.name


def parser_of(kind: type, prog: str, description: str) -> Parser:
    """A parser with one flag per field of a dataclass of `flag`s and config keys."""
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    for key in fields(kind):
        if key.name not in LAUNCHER_ONLY:
            parser.add_argument(flag_of(key.name), dest=key.name, **_options(key))
    return parser


def problems(values: Any) -> list[ThunderError]:
    """Every value of a dataclass of flags that is out of bounds or not among the choices."""
    broken = []
    for key in fields(values):
        value, rules = getattr(values, key.name), key.metadata
        items, rules = (value, rules["schema"]) if rules["type"] == "list" else ((value,), rules)
        for item in items:
            is_fraction = rules["type"] == "integer" and isinstance(item, float)
            trouble = (f"is {item}", "give a whole number") if is_fraction else problem(item, rules)
            if trouble:
                broken.append(ThunderError(trouble[0], where=flag_of(key.name), hint=trouble[1]))
    return broken


def _contradictions(settings: Settings) -> list[ThunderError]:
    broken = []
    if settings.weights and settings.strategy == "tensor":
        what = "divides rows between ranks, and with `--strategy tensor` every rank takes all rows"
        broken.append(ThunderError(what, where="--weights", hint="leave it out, or use `--strategy data`"))
    return broken + [ThunderError(what, flag_of(key), hint) for key, what, hint in contradictions(settings, _as_flag)]


def _as_flag(key: str, value: str = "") -> str:
    return f"`{flag_of(key)} {value}`" if value else flag_of(key)


def _options(key: "Field[Any]") -> dict[str, Any]:
    """How argparse reads a flag."""
    rules = key.metadata
    kind = "integer" if "word" in rules["meta"] else rules["type"]
    options = {"help": rules["meta"]["help"], "type": CONVERTERS.get(kind, kind)}
    if word := rules["meta"].get("word"):
        options["type"] = lambda text: text if text == word else _number(text)
    options |= {"choices": rules["allowed"]} if "allowed" in rules else {}
    if key.default is MISSING:
        return options | {"required": True}
    shown = "" if key.default in (None, "", ()) else f" (default: {key.default})"
    return options | {"help": options["help"] + shown, "default": key.default}


def _number(text: str) -> float:
    """A whole number where it is one; else a fraction, which `problems` reports with all other problems."""
    for convert in (int, float):
        with suppress(ValueError):
            return convert(text)
    raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


CONVERTERS: dict[Any, Callable[[str], Any]] = {
    "string": str,
    "integer": _number,
    "number": float,
    "boolean": truth,
    "list": _list,
}
"""Type of a config key -> what argparse makes of a flag's text."""
