"""Template + values -> text. An undefined name is an error; each value is quoted for where it lands.

Templates run in Jinja2's sandbox: recipes and rows are untrusted text.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from thunder_train import ThunderError
from thunder_train.config.project import Recipe
from thunder_train.config.schema_train import TRAIN


def shell(template: Path, values: dict[str, Any]) -> str:
    """A shell script; every value becomes exactly one word."""
    return _render(template, values, lambda value: shlex.quote(str(value)))


def markdown(template: Path, values: dict[str, Any]) -> str:
    """A Markdown page; no value can add markup of its own."""
    return _render(template, values, escape_markdown)


def escape_markdown(value: Any) -> str:
    """Text that Markdown and HTML show as it is, on one line, also inside a table."""
    text = " ".join(str(value).splitlines())
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`")):
        text = text.replace(mark, shown)
    return text


def launch_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The seed's flags in the seed's order, then ours; launch.sh shows them all."""
    run, data = f"runs/{recipe.name}", f"data/{recipe.dataset.name}"
    train = [(_flag(name), _word(getattr(recipe.train, name))) for name in TRAIN]
    seeds = [flag for flag, _ in train].index("--log-every")
    return [
        ("--hostfile", f"{run}/hostfile.json"),
        ("--log-dir", f"{run}/logs"),
        *remote_flags(recipe),
        *_weight_flags(recipe.weights),
        *model_flags(recipe),
        ("--train-data", f"{data}/train.jsonl"),
        ("--valid-data", f"{data}/valid.jsonl"),
        *train[:seeds],
        ("--adapter-path", f"{run}/adapter"),
        *train[seeds:],
        ("--checkpoint-path", f"{run}/checkpoints"),
        ("--token-cache", ".thunder/tokens"),
    ]


def _flag(key: str) -> str:
    return f"--{key.removesuffix('_s').replace('_', '-')}"


def _word(value: Any) -> Any:
    """A value as a flag takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else value


def evaluate_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """What evaluate.sh asks of the launcher and of the worker."""
    run, data, train = f"runs/{recipe.name}", f"data/{recipe.dataset.name}", recipe.train
    return [
        ("--hostfile", f"{run}/hostfile.json"),
        ("--log-dir", f"{run}/logs/evaluate"),
        ("--module", "thunder_train.worker.generate"),
        *remote_flags(recipe),
        *_weight_flags(recipe.cluster.weights),
        *model_flags(recipe),
        ("--adapter-path", f"{run}/adapter"),
        *((f"--{split}-data", f"{data}/{split}.jsonl") for split in ("train", "valid", "test")),
        ("--token-cache", ".thunder/tokens"),
        ("--max-seq-len", train.max_seq_len),
        ("--max-tokens", recipe.evaluate.max_tokens),
        ("--batch-size", recipe.evaluate.batch_size),
        *((_flag(name), getattr(train, name)) for name in ("stall_timeout_s", "start_timeout_s", "max_restarts")),
        ("--partial", f".thunder/partial/answers-{recipe.name}"),
        ("--predictions", f"{run}/predictions.jsonl"),
        ("--losses", f"{run}/losses.json"),
    ]


def remote_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """Where the project lies on remote hosts; nothing for a cluster of local ranks."""
    cluster = recipe.cluster
    return [("--folder", cluster.folder), ("--python", cluster.python)] if cluster.is_remote else []


def _weight_flags(weights: tuple[float, ...]) -> list[tuple[str, Any]]:
    return [("--weights", ",".join(map(str, weights)))] if weights else []


def model_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """How a worker finds the base model: its folder or repository, and the lock that pins it."""
    model, home = recipe.model, f"runs/models/{recipe.model.name}"
    place = {"nano": f"{home}/files", "path": model.path, "hub": model.repo}[model.kind]
    return [("--model", place), ("--model-lock", f"{home}/model.lock.json")]


def _render(template: Path, values: dict[str, Any], finalize: Callable[[Any], str]) -> str:
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, finalize=finalize, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    try:
        return environment.from_string(template.read_text(encoding="utf-8")).render(values)
    except FileNotFoundError:
        raise ThunderError("is missing", where=str(template), hint="git checkout it") from None
    except TemplateSyntaxError as error:
        raise ThunderError(str(error.message), where=f"{template}:{error.lineno}", hint="mend that line") from error
    except TemplateError as error:
        raise ThunderError(str(error.message), where=str(template), hint="use only the names it is given") from error
