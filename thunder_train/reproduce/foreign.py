"""What is taken from a manifest, which may come from anyone: an allow-list of keys, and what it may run and read.

Input: a manifest that `manifest.read` has checked, and the current project.  Output: the recipe's tables, and problems.
A key that is not listed here is refused, so that a new key is not taken from strangers before somebody decides so.
"""

import re
import shlex
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config import load, validate
from thunder_train.config.adapter import Adapter
from thunder_train.config.evaluate import Gate
from thunder_train.config.fields import is_operational
from thunder_train.config.project import Recipe, operational
from thunder_train.config.project_file import ProjectFile
from thunder_train.config.train import Train
from thunder_train.core import paths

TAKEN: dict[str, frozenset[str]] = {
    "": frozenset({"name", "cluster", "dataset", "model", "train", "adapter", "evaluate", "promotion"}),
    "cluster": frozenset({"name", "backend", "ranks", "local", "weights"}),
    "dataset": frozenset(
        {"name", "sources", "system", "templates", "orthography", "orthography_table", "split_seed", "valid", "test"}
        | {"group_keys", "max_dropped", "provenance", "train_on_silence"}
    ),
    "dataset.sources": frozenset(
        {"kind", "path", "references", "evidence_kind", "rows", "fields", "constants", "enums", "reference_side", "use"}
        | {"split", "telemetry", "repo", "revision"}
    ),
    "dataset.orthography_table": frozenset({"letters", "marks", "shared", "marks_per_letter", "ratios", "invisible"}),
    "dataset.orthography_table.ratios": frozenset({"of", "among", "low", "high"}),
    "model": frozenset(
        {"name", "kind", "path", "repo", "revision", "layers", "width", "heads", "kv_heads", "hidden", "seed"}
        | {"chat_template", "template", "end_answers"}
    ),
    "train": frozenset(
        {"strategy", "num_iters", "batch_size", "num_layers", "lora_rank", "learning_rate", "log_every", "eval_every"}
        | {"max_seq_len", "fine_tune_type", "lora_scale", "lora_dropout", "lora_keys", "train_on"}
        | {"global_batch_size", "grad_accumulation", "micro_tokens", "packing", "too_long", "schedule", "warmup_steps"}
        | {"keep_prefix", "optimizer", "start_from", "epochs", "lora_alpha", "warmup_ratio", "eval_rows"}
        | {"weight_decay", "max_grad_norm", "grad_checkpoint", "choose", "patience", "max_skipped", "seed"}
    ),
    "adapter": frozenset({"path", "max_seq_len"}),
    "evaluate": frozenset({"max_tokens", "batch_size", "profile", "profiles", "bootstrap", "seed", "gate", "probe"}),
    "evaluate.profiles.NAME": frozenset(
        {"unit", "spaces", "normalisation", "marks", "case", "punctuation", "average", "clamp", "limit"}
    ),
    "evaluate.gate": frozenset({"command", "preserved", "blocked", "floor", "relative"}),
    "evaluate.probe": frozenset(
        {"max_empty", "max_pad", "max_loop", "max_copied", "max_wrong_script", "max_over_long"}
    ),
    "promotion": frozenset({"min_rows", "max_worse", "max_near_duplicates", "needs_witness", "provenance"}),
}
"""{table of a manifest's recipe: keys that are taken}. A gate's command needs an answer of `gate_today` besides."""
IGNORED: dict[str, frozenset[str]] = {
    "cluster": frozenset({"hosts", "envs", "folder", "python"}),
    "train": frozenset(key.name for key in fields(Train) if is_operational(key)),
    "adapter": frozenset(key.name for key in fields(Adapter) if is_operational(key)),
    "evaluate.gate": frozenset(key.name for key in fields(Gate) if is_operational(key)),
}
"""Keys that the current project gives instead, but for report_to: a reproduction sends nothing to anybody."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def recipe_of(run: dict[str, Any], where: str) -> dict[str, Any]:
    """The manifest's recipe, its listed keys only. Raises ThunderError with every key that is unknown or wrong."""
    problems: list[ThunderError] = []
    taken = _taken_table(run["recipe"], "", where, problems)
    cluster = taken["cluster"]
    if len(cluster.get("weights", [])) not in (0, cluster["ranks"]):
        what = f"has {len(cluster['weights'])} weights for {cluster['ranks']} ranks"
        problems.append(ThunderError(what, f"{where}: cluster.weights", "give one per rank"))
    taken["build"] = {"tolerance": run["tolerance"]}
    project, recipe = as_files(taken, _checked_cluster(cluster), _without_name(taken["model"]))
    problems += [*validate.check(project, ProjectFile, where)[1], *validate.check(recipe, Recipe, where)[1]]
    if taken["model"]["kind"] == "hub" and not COMMIT.fullmatch(run["model"].get("commit", "")):
        problems.append(ThunderError("is not 40 hex digits", f"{where}: model.commit", "restore the manifest"))
    raise_all(sorted(problems, key=str))
    return taken


def as_files(recipe: dict[str, Any], cluster: dict[str, Any], model: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """thunder.toml and the recipe's file as tables, for a manifest's recipe and the tables of its cluster and model."""
    names = {kind: recipe[kind]["name"] for kind in ("cluster", "model", "dataset")}
    project = {
        "project": {"recipes": [recipe["name"]], "cache_limit_gb": 0.0},
        "clusters": {names["cluster"]: cluster},
        "models": {names["model"]: model},
        "datasets": {names["dataset"]: _without_name(recipe["dataset"])},
    }
    parts: dict[str, Any] = {
        part: recipe[part] for part in ("train", "adapter", "evaluate", "promotion", "build") if part in recipe
    }
    return project, {"name": recipe["name"], **names, **parts}


def gate_today(recipe: dict[str, Any], root: Path, confirmed: str) -> tuple[dict[str, Any], list[ThunderError]]:
    """How the gate runs, as keys of its table, and a problem if nobody here answers for its command.

    The current recipe of that name does if it has the same command; so does the user who writes the command out.
    confirmed: what the user wrote.
    """
    command = tuple(recipe["evaluate"].get("gate", {}).get("command", ()))
    if not command:
        return {}, []
    text, (today, reason) = shlex.join(command), _todays_recipe(recipe["name"], root)
    if today and today.evaluate.gate.command == command:
        return operational(today.evaluate.gate), []
    if text.isprintable() and confirmed == text:
        return {"env": []}, []
    if today:
        gate = today.evaluate.gate
        runs = f"runs `{shlex.join(gate.command)}`" if gate.command else "has no external gate"
        reason = f"the current recipe {recipe['name']!r} {runs}"
    if confirmed:
        reason += f"; --run-command confirms `{confirmed}`"
    hint = "read it: it can do whatever you can; "
    if text.isprintable():
        hint += f"if you want that, add --run-command {shlex.quote(text)} to `./doit reproduce -m PATH`"
    else:
        hint += "it has characters that cannot be shown, so only a recipe of this project can name it"
    return {}, [ThunderError(f"the manifest asks to run `{text}`, but {reason}", "evaluate.gate.command", hint)]


def training_today(name: str, root: Path) -> dict[str, Any]:
    """How a training runs, as keys of [train] of the current recipe of that name, if any; never whom it reports to."""
    recipe, _ = _todays_recipe(name, root)
    return {key: value for key, value in operational(recipe.train).items() if key != "report_to"} if recipe else {}


def _todays_recipe(name: str, root: Path) -> tuple[Recipe | None, str]:
    """The current recipe of that name, and why there is none."""
    try:
        return load.load(root).recipes.get(name), f"the current project has no recipe {name!r}"
    except ThunderError:
        return None, "the current project has problems, so it names no command (`./doit list` shows them)"


def unread(path: str, root: Path) -> list[ThunderError]:
    """A problem for a file that only the manifest names, if it is hidden or outside the project, also by a link."""
    home, real = root.resolve(), (root / path).resolve()
    hint = "name it in the current thunder.toml if it belongs to the run"
    if not real.is_relative_to(home):
        return [ThunderError("is a link out of the project, which only the manifest names", path, hint)]
    hidden = [part for part in (*PurePosixPath(path).parts, *real.relative_to(home).parts) if part.startswith(".")]
    return [ThunderError("is a hidden file, which only the manifest names", path, hint)] if hidden else []


def in_run(model_path: str, recipe: str) -> bool:
    """Whether a model's folder is one that the build writes into: through a link it would write into this project."""
    return PurePosixPath(model_path.casefold()).is_relative_to(paths.run(recipe).casefold())  # one folder on a Mac


def _taken_table(values: dict[str, Any], path: str, where: str, problems: list[ThunderError]) -> dict[str, Any]:
    """The listed keys of a table; a problem is added for each key that is neither listed nor ignored."""
    taken = {}
    for key, value in values.items():
        place = f"{path}.{key}" if path else key
        if key in TAKEN[path]:
            taken[key] = _taken(value, place, where, problems)
        elif key not in IGNORED.get(path, ()):
            hint = validate.did_you_mean(key, [*TAKEN[path]])
            problems.append(ThunderError(f"unknown key {key!r}", f"{where}: {place}", hint))
    return taken


def _taken(value: Any, path: str, where: str, problems: list[ThunderError]) -> Any:
    if path == "evaluate.profiles" and isinstance(value, dict):
        return {name: _taken(keys, f"{path}.NAME", where, problems) for name, keys in value.items()}
    if path not in TAKEN:
        return value
    if isinstance(value, list):
        return [_taken(item, path, where, problems) for item in value]
    return _taken_table(value, path, where, problems) if isinstance(value, dict) else value


def _checked_cluster(cluster: dict[str, Any]) -> dict[str, Any]:
    """A table that obeys the rules of thunder.toml if the manifest's cluster does; remote hosts are not in it."""
    return {"backend": cluster["backend"], "ranks": cluster["ranks"] if cluster["local"] else 1}


def _without_name(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "name"}
