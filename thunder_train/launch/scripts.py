"""launch.sh and evaluate.sh: their flags, their text, and what a template of the user adds to them.

Input: a recipe.  Output: (flag, value) pairs, in the order in which the scripts show them.
"""

import contextlib
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from thunder_train.config import start
from thunder_train.config.fields import is_implied, is_operational
from thunder_train.config.project import Model, Recipe
from thunder_train.config.train import Train, flag_of
from thunder_train.core import paths, template_arguments

LAUNCHER = "thunder_train.launch"
SHIPPED = (
    "set -euo pipefail",
    'cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."',
    '[ -n "${THUNDER_PYTHON:-}" ] || export PYTHONSAFEPATH=1',
    'python="${THUNDER_PYTHON:-.venv/bin/python}"',
    'command -v "$python" >/dev/null || { echo "NAME: no interpreter at $python; run ./doit once, '
    'or set THUNDER_PYTHON to the Python of thunder" >&2; exit 2; }',
    '[ "$python" != .venv/bin/python ] || python="$(readlink .venv || echo .venv)/bin/python"',
)
"""Lines of the shipped templates besides the command; NAME: the script's."""
COMMAND = f'exec "$python" -m {LAUNCHER}'
OPERATIONAL = frozenset(flag_of(key.name) for key in fields(Train) if is_operational(key)) | {
    *("--host-timeout", "--log-dir", "--folder", "--python", "--token-cache"),
    *("--adapter-path", "--checkpoint-path", "--extend-from", "--partial", "--predictions", "--losses"),
}
"""Flags that decide nothing: how it runs, and where its files lie. The stage gives the places of its outputs itself."""


def launch_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The flags of launch.sh: those of the launcher, then the worker's, every key of [train] among them."""
    run, data = paths.run(recipe.name), paths.dataset(recipe.dataset.name)
    values = {key.name: getattr(recipe.train, key.name) for key in fields(Train)}
    values["start_from"] = start.folder_of(recipe.train)
    train = [(flag_of(name), _word(value)) for name, value in values.items()]
    before = [flag for flag, _ in train].index("--log-every")  # the place that --adapter-path has always had
    return [
        ("--hostfile", f"{run}/hostfile.json"),
        ("--log-dir", f"{run}/logs"),
        *_remote_flags(recipe),
        *_weight_flags(recipe.weights),
        *model_flags(recipe),
        ("--train-data", f"{data}/train.jsonl"),
        ("--valid-data", f"{data}/valid.jsonl"),
        *train[:before],
        ("--adapter-path", f"{run}/adapter"),
        *train[before:],
        ("--token-cache", paths.TOKENS),
    ]


def _word(value: Any) -> Any:
    """A value as the text of a flag."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else value


def evaluate_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The flags of evaluate.sh: those of the launcher, then those of worker/generate.py."""
    run, data, train = paths.run(recipe.name), paths.dataset(recipe.dataset.name), recipe.train
    return [
        ("--hostfile", f"{run}/hostfile.json"),
        ("--log-dir", f"{run}/logs/evaluate"),
        ("--module", "thunder_train.worker.generate"),
        *_remote_flags(recipe),
        *_weight_flags(recipe.cluster.weights),
        *model_flags(recipe),
        ("--adapter-path", f"{run}/adapter"),
        *((f"--{split}-data", f"{data}/{split}.jsonl") for split in ("train", "valid", "test")),
        ("--token-cache", paths.TOKENS),
        ("--max-seq-len", train.max_seq_len),
        ("--max-tokens", recipe.evaluate.max_tokens),
        ("--batch-size", recipe.evaluate.batch_size),
        *((flag_of(name), getattr(train, name)) for name in ("stall_timeout_s", "start_timeout_s", "max_restarts")),
        ("--partial", paths.answers(recipe.name)),
        ("--predictions", f"{run}/predictions.jsonl"),
        ("--losses", f"{run}/losses.json"),
    ]


def flags_of(recipe: Recipe, script: str) -> list[tuple[str, Any]]:
    """The flags of launch.sh or of evaluate.sh."""
    return launch_flags(recipe) if script == "launch.sh" else evaluate_flags(recipe)


def recorded_flags(recipe: Recipe, script: str) -> dict[str, Any]:
    """The flags that a manifest states: those that decide something, without defaults that older runs do not know."""
    implied = {flag_of(key.name) for key in fields(Train) if is_implied(key, getattr(recipe.train, key.name))}
    return {flag: value for flag, value in flags_of(recipe, script) if flag not in OPERATIONAL | implied}


def rendered(recipe: Recipe, script: str) -> str:
    """The text of a script, from its template."""
    from thunder_train.core import templates  # late: it needs jinja2, and a build with nothing to do reads flags only

    values = {"recipe": recipe.name, "flags": flags_of(recipe, script)}
    return templates.shell(Path("templates") / f"{script}.j2", values)


def additions(recipe: Recipe, script: str, text: str) -> dict[str, str]:
    """What a rendered script computes with that is not the recipe's: {flag: value}, and {line: ""} of other commands.

    Comments, layout and flags that decide nothing are none of it. Empty for a script of the shipped template.
    """
    lines = _commands(text)
    known = {line.replace("NAME", script) for line in SHIPPED} | {COMMAND}
    command = next((line for line in lines if LAUNCHER in line), "")
    before, _, after = command.partition(LAUNCHER)
    try:
        given, rest = _pairs(shlex.split(after))
    except ValueError:
        return {text: ""}  # bash would not read it either
    own = {flag: str(value) for flag, value in flags_of(recipe, script)}
    differing = {flag: given.get(flag, "left out") for flag in own | given if own.get(flag) != given.get(flag)}
    others = [line for line in lines if line != command] + [before + LAUNCHER, rest]
    return {line: "" for line in others if line and line not in known} | {
        flag: value for flag, value in sorted(differing.items()) if flag not in OPERATIONAL
    }


def _commands(text: str) -> list[str]:
    """The lines of a script that do something, without comments, spaces as one; a continued line as one."""
    lines = (" ".join(line.split()) for line in text.replace("\\\n", " ").split("\n"))
    return [line for line in map(_without_comment, lines) if line]


def _without_comment(line: str) -> str:
    if line.startswith("#"):
        return ""
    for at in (at for at in range(len(line)) if line.startswith(" #", at)):
        with contextlib.suppress(ValueError):  # inside quotes
            shlex.split(line[:at])
            return line[:at]
    return line


def _pairs(words: list[str]) -> tuple[dict[str, str], str]:
    """{flag: value} of a command line, of a flag that is given twice the last, as argparse takes it; what follows."""
    end = words.index("$@") if "$@" in words else len(words)
    pairs: dict[str, str] = {}
    flag = ""
    for word in words[:end]:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            pairs[flag] = value
        else:
            pairs[flag] = f"{pairs.get(flag, '')} {word}".strip()
    return pairs, " ".join(words[end + 1 :])


def _remote_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The folder of the project and its Python on remote hosts; empty for a cluster of local ranks."""
    cluster = recipe.cluster
    return [("--folder", cluster.folder), ("--python", cluster.python)] if cluster.is_remote else []


def _weight_flags(weights: tuple[float, ...]) -> list[tuple[str, Any]]:
    return [("--weights", ",".join(map(str, weights)))] if weights else []


def model_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The folder or repository of the base model, the lock that pins it, and how messages become its text."""
    model, home = recipe.model, paths.model(recipe.model.name)
    place = {"nano": f"{home}/files", "path": model.path, "hub": model.repo}[model.kind]
    return [("--model", place), ("--model-lock", f"{home}/model.lock.json"), *_chat_flags(model)]


def _chat_flags(model: Model) -> list[tuple[str, Any]]:
    """How messages become text, where thunder.toml says it; else the tokenizer's own template does."""
    flags: list[tuple[str, Any]] = [("--chat-template", model.chat_template)] if model.chat_template else []
    if model.template:
        flags.append(("--template-args", template_arguments.text_of(model.template)))
    return flags if model.end_answers else [*flags, ("--end-answers", "false")]
