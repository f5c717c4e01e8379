"""A TOML file against its table in schema.py: values with defaults filled in, and every problem in a person's words.

Keys that are each fine and cannot be true together: checks that need more than one key, or a look at the project.
"""

import difflib
import json
import math
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from cerberus import TypeDefinition, Validator
from cerberus.errors import BaseErrorHandler

from thunder_train import ThunderError
from thunder_train.config.dataset import ORTHOGRAPHIES, Dataset
from thunder_train.config.fields import FORMS, Table
from thunder_train.config.project import SECRETS, Cluster, Model, Recipe
from thunder_train.core import files

TYPES = {
    "string": "text in quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list in [ ]",
    "dict": "a table",
}


class _Keep(BaseErrorHandler):  # type: ignore[misc]  # Cerberus ships no types
    """Cerberus' own extension point for messages: hands the error objects on, for `_problem` to word."""

    def __call__(self, errors: Any) -> list[Any]:
        return list(errors)

    def add(self, error: Any) -> None:
        """Required by the interface; the errors arrive through __call__."""


class _Checker(Validator):  # type: ignore[misc]  # Cerberus ships no types
    types_mapping = {**Validator.types_mapping, "integer": TypeDefinition("integer", (int,), (bool,))}  # noqa: RUF012

    def _check_with_finite(self, field: str, value: Any) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self._error(field, "must be finite")


def read_toml(path: Path, where: str, hint: str) -> dict[str, Any]:
    """The tables of a TOML 1.0 file. where: the name users know it by; mend: what to do when it is missing or empty."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ThunderError("is missing", where=where, hint=hint) from None
    except UnicodeDecodeError as error:
        raise ThunderError(f"is not UTF-8 at byte {error.start}", where=where, hint="save it as UTF-8") from None
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where=where) from None
    if not text.strip():
        raise ThunderError("is empty", where=where, hint=hint)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ThunderError(f"is not TOML: {error}", where=where, hint="mend that line") from None


def check(values: dict[str, Any], table: Table, where: str) -> tuple[dict[str, Any], list[ThunderError]]:
    """The values with defaults filled in, and every problem as `file: key: what; mend`, in order of the keys."""
    checker = _Checker(table, error_handler=_Keep)
    checker.validate(values)
    leaves = _leaves(checker.errors)
    order = sorted(leaves, key=lambda error: [str(part) for part in error.document_path])
    return checker.document, [_problem(error, table, where) for error in order]


def dotted(path: tuple[str | int, ...]) -> str:
    """("hosts", 1, "ssh") as hosts[1].ssh."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: list[str]) -> str:
    """The mend for a word that is not known: the nearest one, else all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(known))}"


def _leaves(errors: list[Any]) -> list[Any]:
    return [leaf for error in errors for leaf in (_leaves(error.child_errors) if error.child_errors else [error])]


def _problem(error: Any, table: Table, where: str) -> ThunderError:
    path, value, limit = error.document_path, error.value, error.constraint
    unit = _rules(table, path).get("meta", {}).get("unit", "")
    unit = f" {unit}" if unit else ""
    if error.rule is None and not error.info:
        what, hint = f"unknown key {path[-1]!r}", did_you_mean(str(path[-1]), list(_keys(table, path[:-1])))
    elif error.rule == "required":
        what, hint = "is missing", _how_to_add(path, _rules(table, path))
    elif error.rule == "type":
        what, hint = f"must be {TYPES[limit]}, is {value!r}", "change its type"
    elif error.rule == "min":
        what, hint = f"is {value!r}", f"give at least {limit!r}{unit}"
    elif error.rule == "max":
        what, hint = f"is {value!r}", f"give at most {limit!r}{unit}"
    elif error.rule == "allowed":
        what, hint = f"is {value!r}", did_you_mean(str(value), [str(one) for one in limit])
    elif error.rule == "forbidden":
        what, hint = f"{value!r} is taken by a folder of the project", "choose another name"
    elif error.rule == "regex":
        what, hint = f"{value!r} holds characters that do not belong there", FORMS[limit]
    elif error.rule == "minlength":
        what, hint = "is empty", "give at least one"
    else:
        what, hint = str(error.info[0]) if error.info else f"breaks the rule {error.rule}", "change it"
    return ThunderError(what, where=f"{where}: {dotted(path)}", hint=hint)


def _how_to_add(path: tuple[str | int, ...], rules: dict[str, Any]) -> str:
    if rules.get("type") == "dict":
        return f"add a table [{dotted(path)}]" + ("" if "schema" in rules else " with a name, as shown in the README")
    return f"add `{path[-1]} = ...` ({rules.get('meta', {}).get('help', '')})"


def _rules(table: Table, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The rules of the key at a path; empty when the table does not know it."""
    rules: dict[str, Any] = {"type": "dict", "schema": table}
    for part in path:
        if isinstance(part, int):
            rules = rules.get("schema", {})
        elif "valuesrules" in rules:
            rules = rules["valuesrules"]
        else:
            rules = rules.get("schema", {}).get(part, {})
    return rules


def _keys(table: Table, path: tuple[str | int, ...]) -> list[str]:
    return sorted(_rules(table, path).get("schema", {}))


def of(part: Cluster | Model | Dataset, where: str) -> list[ThunderError]:
    """Contradictions inside one named table of thunder.toml."""
    if isinstance(part, Cluster):
        return _of_cluster(part, where)
    return _of_model(part, where) if isinstance(part, Model) else _of_dataset(part, where)


def of_recipe(recipe: Recipe, root: Path) -> list[ThunderError]:
    """Contradictions between a recipe, its model and its dataset, as far as they are known before anything ran."""
    problems = []
    layers = model_layers(recipe.model, root)
    if layers is not None and recipe.train.num_layers > layers:
        problems.append(
            ThunderError(
                f"is {recipe.train.num_layers}, and model {recipe.model.name!r} has {layers} layers",
                where=f"{recipe.file}: train.num_layers",
                hint=f"give at most {layers}",
            )
        )
    train = recipe.train
    if train.global_batch_size and (train.batch_size > 1 or train.grad_accumulation > 1):
        what = "says how many rows a step takes, and so do batch_size and grad_accumulation"
        problems.append(ThunderError(what, f"{recipe.file}: train.global_batch_size", "leave the other two out"))
    if train.fine_tune_type == "dora" and train.strategy == "tensor":
        hint = 'use fine_tune_type = "lora", or strategy = "data"'
        problems.append(ThunderError("a layer in parts has no DoRA", f"{recipe.file}: train.fine_tune_type", hint))
    if train.warmup_steps >= train.num_iters:
        what = f"is {train.warmup_steps} of {train.num_iters} steps"
        problems.append(ThunderError(what, f"{recipe.file}: train.warmup_steps", "warm up for fewer steps"))
    rows = _known_rows(recipe.dataset, root)
    too_few = batch_problems(recipe, rows) if rows is not None else []
    return problems + (too_few if too_few and _is_current(recipe.dataset, root) else [])


def batch_problems(recipe: Recipe, rows: int) -> list[ThunderError]:
    """A step may not need more rows than the training split has. rows: rows of train.jsonl."""
    ranks, train = len(recipe.cluster.hosts), recipe.train
    needed = train.rows_per_step(ranks)
    if needed <= rows:
        return []
    where = f"{recipe.file}: train.{'global_batch_size' if train.global_batch_size else 'batch_size'}"
    what = (
        f"asks for {needed} rows in a step of {ranks} ranks, and dataset {recipe.dataset.name!r} has {rows} train rows"
    )
    return [ThunderError(what, where, f"give at most {rows * max(1, train.batch_size) // needed}, or add rows")]


def model_layers(model: Model, root: Path) -> int | None:
    """Transformer layers of a base model, where that is known without a download; else None."""
    if model.kind == "nano":
        return model.layers
    lock = root / "runs" / "models" / model.name / "model.lock.json"
    source = root / model.path / "config.json" if model.kind == "path" else lock
    try:
        table = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if model.kind == "hub":
        return table.get("layers") if table.get("repo") == model.repo else None
    layers = (table.get("text_config") or table).get("num_hidden_layers")
    return layers if isinstance(layers, int) else None


def _of_cluster(cluster: Cluster, where: str) -> list[ThunderError]:
    if not cluster.hosts:
        return [ThunderError("needs either ranks or hosts", where, "ranks = 2 for this machine, hosts for several")]
    problems = []
    for name in sorted({each.partition("=")[0] for each in cluster.envs} & {*SECRETS}):
        what, hint = f"holds the secret {name}, and hostfile.json would too", f"export {name}: it reaches every rank"
        problems.append(ThunderError(what, f"{where}.envs", hint))
    for number, host in enumerate(cluster.hosts):
        if cluster.backend.startswith("jaccl") and len(host.rdma) != len(cluster.hosts):
            problems.append(
                ThunderError(
                    f"has {len(host.rdma)} slots for {len(cluster.hosts)} hosts",
                    where=f"{where}.hosts[{number}].rdma",
                    hint='give one device per host, "" for its own slot',
                )
            )
    return problems


def _of_model(model: Model, where: str) -> list[ThunderError]:
    if model.kind == "path" and not model.path:
        return [ThunderError("is missing", f"{where}.path", "give the mlx-lm folder of the model")]
    if model.kind == "hub" and not model.repo:
        return [ThunderError("is missing", f"{where}.repo", 'give it as "owner/name"')]
    if model.kind == "nano" and (model.width % model.heads or model.heads % model.kv_heads):
        return [
            ThunderError(
                f"width {model.width}, heads {model.heads} and kv_heads {model.kv_heads} do not divide",
                where=where,
                hint="make width a multiple of heads, and heads a multiple of kv_heads",
            )
        ]
    return []


def _of_dataset(dataset: Dataset, where: str) -> list[ThunderError]:
    problems = []
    if not dataset.templates:
        problems.append(ThunderError("is missing", f"{where}.template", "name the Jinja2 file of the user message"))
    if not dataset.orthography_table and dataset.orthography not in ("", *ORTHOGRAPHIES):
        hint = f"use one of: {', '.join(ORTHOGRAPHIES)}; or describe it in an orthography_table of its own"
        problems.append(ThunderError(f"is {dataset.orthography!r}", f"{where}.orthography", hint))
    if dataset.orthography_table and dataset.orthography in ("", *ORTHOGRAPHIES):
        what = f"describes {dataset.orthography!r}, which is built in" if dataset.orthography else "has no name"
        problems.append(ThunderError(what, f"{where}.orthography_table", "give orthography a name of its own"))
    if dataset.valid + dataset.test >= 1:
        problems.append(
            ThunderError("valid and test leave no train rows", where, "make their sum smaller than 1, as 0.1 and 0.1")
        )
    for number, source in enumerate(dataset.sources):
        shown = sorted({"asr_text", "partition"} & {*source.reference_side})
        if shown:
            what, hint = f"names {', '.join(shown)}, which prompts show", "name telemetry, as telemetry.cer_edits"
            problems.append(ThunderError(what, f"{where}.sources[{number}].reference_side", hint))
        if source.kind == "rows" and not source.references:
            problems.append(
                ThunderError("is missing", f"{where}.sources[{number}].references", "name the references file")
            )
    return problems


@cache
def _known_rows(dataset: Dataset, root: Path) -> int | None:
    """Train rows as the dataset's manifest tells; None when there is none."""
    try:
        rows = json.loads(_manifest(dataset, root).read_text(encoding="utf-8"))["splits"]["train"]["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows if isinstance(rows, int) else None


def _is_current(dataset: Dataset, root: Path) -> bool:
    """Whether the manifest was made from these sources with this split. Hashes them: asked only before an error."""
    try:
        manifest = json.loads(_manifest(dataset, root).read_text(encoding="utf-8"))
        told = {file["path"]: file["sha256"] for source in manifest["sources"] for file in source["files"]}
        wanted = {
            name
            for source in dataset.sources
            for path in (source.path, source.references)
            for name in files.expand(path, root)
        }
        split = {"seed": dataset.split_seed, "valid": dataset.valid, "test": dataset.test}
        return (
            wanted == set(told)
            and all(manifest["split"][key] == value for key, value in split.items())
            and all(files.sha256(root / name) == told[name] for name in wanted)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _manifest(dataset: Dataset, root: Path) -> Path:
    return root / "data" / dataset.name / "manifest.json"
