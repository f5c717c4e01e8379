"""The flags of launch.sh and evaluate.sh.

Input: a recipe.  Output: (flag, value) pairs, in the order in which the scripts show them.
"""

from dataclasses import fields
from typing import Any

from thunder_train.config.project import Recipe
from thunder_train.config.train import Train, flag_of
from thunder_train.core import paths


def launch_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The flags of launch.sh: those of the launcher, then the worker's, every key of [train] among them."""
    run, data = paths.run(recipe.name), paths.dataset(recipe.dataset.name)
    train = [(flag_of(key.name), _word(getattr(recipe.train, key.name))) for key in fields(Train)]
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


def _remote_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The folder of the project and its Python on remote hosts; empty for a cluster of local ranks."""
    cluster = recipe.cluster
    return [("--folder", cluster.folder), ("--python", cluster.python)] if cluster.is_remote else []


def _weight_flags(weights: tuple[float, ...]) -> list[tuple[str, Any]]:
    return [("--weights", ",".join(map(str, weights)))] if weights else []


def model_flags(recipe: Recipe) -> list[tuple[str, Any]]:
    """The folder or repository of the base model, and the lock that pins it."""
    model, home = recipe.model, paths.model(recipe.model.name)
    place = {"nano": f"{home}/files", "path": model.path, "hub": model.repo}[model.kind]
    return [("--model", place), ("--model-lock", f"{home}/model.lock.json")]
