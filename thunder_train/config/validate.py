"""What is wrong with thunder.toml and recipes: one key at a time, then several keys together.

`check` compares the tables of a file with their declared keys and fills in defaults.  `table_problems` and
`recipe_problems` take the dataclasses that load.py makes of them, and may look at files of the project.  All give
problems as `file: key: what; hint`.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.config import adapter, fields, other_names
from thunder_train.config.dataset import ORTHOGRAPHIES, PROMPTED, Dataset
from thunder_train.config.fields import Table
from thunder_train.config.project import SECRETS, Cluster, Model, Recipe
from thunder_train.config.train import contradictions
from thunder_train.core import files, paths, shipped, template_arguments
from thunder_train.core.stat_cache import StatCache

TYPES = {
    "string": "text in quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list in [ ]",
    "dict": "a table",
}

SECRET_WORD = re.compile(
    "(.*(CREDENTIAL|PASSPHRASE|PASSWD|PASSWORD|SECRET|TOKEN)|(ACCESS|API|AUTH|PRIVATE|SSH)?KEY|AUTH|BEARER|COOKIE|JWT"
    "|PASS|PAT)S?[0-9]*"
)
"""A variable whose name has such a word between underscores holds a secret, whatever program it is for."""


def check(values: dict[str, Any], kind: type, where: str) -> tuple[dict[str, Any], list[ThunderError]]:
    """The values with defaults filled in, and every problem, in order of the keys.

    kind: the dataclass that declares the keys.  where: the file as users know it.
    """
    table = fields.table(kind)
    checker = _checker()(table)
    checker.validate(values)
    errors = sorted(_leaves(checker.errors), key=lambda error: [str(part) for part in error.document_path])
    problems = [_problem(error, table, where) for error in errors]
    # An infinite number breaks two rules and is one problem.
    return checker.document, list({str(problem): problem for problem in problems}.values())


@cache
def _checker() -> Any:
    """A Cerberus validator whose errors stay objects, for `_problem` to word."""
    from cerberus import TypeDefinition, Validator  # late: Cerberus takes longer to import than a no-op build
    from cerberus.errors import REGEX_MISMATCH, BaseErrorHandler

    class Errors(BaseErrorHandler):  # type: ignore[misc]  # Cerberus ships no types
        def __call__(self, errors: Any) -> list[Any]:
            return list(errors)

        def add(self, error: Any) -> None:
            """Required by Cerberus; the errors arrive through __call__."""

    class Checker(Validator):  # type: ignore[misc]  # Cerberus ships no types
        types_mapping = {**Validator.types_mapping, "integer": TypeDefinition("integer", (int,), (bool,))}  # noqa: RUF012

        def _check_with_number(self, field: str, value: Any) -> None:
            if fields.problem(value, self.schema[field]):
                self._error(field, "breaks its bounds")

        def _validate_regex(self, pattern: str, field: str, value: Any) -> None:
            """{'type': 'string'}"""
            if isinstance(value, str) and not re.fullmatch(pattern, value):  # Cerberus lets a final line feed pass
                self._error(field, REGEX_MISMATCH)

    def checker(table: Table) -> Any:
        return Checker(table, error_handler=Errors)

    return checker


def dotted(path: tuple[str | int, ...]) -> str:
    """("hosts", 1, "ssh") as hosts[1].ssh."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, choices: list[str]) -> str:
    """The hint for a word that is none of the choices: the most similar one, else all of them."""
    import difflib  # late: only errors need it

    near = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(choices))}"


def _leaves(errors: list[Any]) -> list[Any]:
    return [leaf for error in errors for leaf in (_leaves(error.child_errors) if error.child_errors else [error])]


def _problem(error: Any, table: Table, where: str) -> ThunderError:
    path, value, limit = error.document_path, error.value, error.constraint
    rules = _rules(table, path)
    if error.rule is None and not error.info:
        key = str(path[-1])
        what, hint = f"unknown key {key!r}", other_names.hint(key) or did_you_mean(key, list(_keys(table, path[:-1])))
    elif error.rule == "required":
        what, hint = "is missing", _how_to_add(path, rules)
    elif error.rule == "type":
        kinds = [TYPES[kind] for kind in (limit if isinstance(limit, list) else [limit])]
        what, hint = f"must be {' or '.join(kinds)}, is {value!r}", "change its type"
    elif error.rule == "allowed":
        what, hint = f"is {value!r}", did_you_mean(str(value), [str(one) for one in limit])
    elif error.rule == "forbidden":
        what, hint = f"{value!r} is a folder of the project", "choose another name"
    elif error.rule == "minlength" and not value:
        what, hint = "is empty", "give at least one"
    elif error.rule in ("minlength", "maxlength"):
        bound = "at least" if error.rule == "minlength" else "at most"
        what, hint = f"has {len(value)} items", f"give {bound} {limit}"
    else:
        broken = fields.problem(
            value, {**rules, error.rule: limit}
        )  # a table's name has rules beside those of its keys
        what, hint = broken or (f"breaks the rule {error.rule}", "change it")
    return ThunderError(what, where=f"{where}: {dotted(path)}", hint=hint)


def _how_to_add(path: tuple[str | int, ...], rules: dict[str, Any]) -> str:
    if rules.get("type") == "dict":
        return f"add a table [{dotted(path)}]" + ("" if "schema" in rules else " with a name, as shown in the README")
    return f"add `{path[-1]} = ...` ({rules.get('meta', {}).get('help', '')})"


def _rules(table: Table, path: tuple[str | int, ...]) -> dict[str, Any]:
    """The rules of the key at a path; empty if the table has no such key."""
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


def table_problems(part: Cluster | Model | Dataset, where: str) -> list[ThunderError]:
    """Contradictions inside one named table of thunder.toml."""
    if isinstance(part, Cluster):
        return _cluster_problems(part, where)
    return _model_problems(part, where) if isinstance(part, Model) else _dataset_problems(part, where)


def recipe_problems(recipe: Recipe, root: Path, stats: StatCache | None = None) -> list[ThunderError]:
    """Contradictions inside a recipe, and with its model and dataset as far as their files are there."""
    problems = []
    try:
        layers = model_layers(recipe.model, root, stats)
    except (ThunderError, OSError) as error:
        hint = f"see models.{recipe.model.name} in thunder.toml"
        return [error if isinstance(error, ThunderError) else ThunderError(str(error), f"{recipe.file}: model", hint)]
    if recipe.is_imported:
        own = adapter.problems(recipe.adapter, paths.run(recipe.name), recipe.file, root)
        return own + _gate_problems(recipe) + _template_problems(recipe, root)
    if layers is not None and isinstance(recipe.train.num_layers, int) and recipe.train.num_layers > layers:
        what = f"is {recipe.train.num_layers}, and model {recipe.model.name!r} has {layers} layers"
        problems.append(ThunderError(what, f"{recipe.file}: train.num_layers", f"give at most {layers}"))
    problems += [
        ThunderError(what, f"{recipe.file}: train.{key}", hint)
        for key, what, hint in contradictions(recipe.train, _as_toml)
    ]
    problems += _gate_problems(recipe) + _dora_problems(recipe, root, stats)
    problems += _template_problems(recipe, root)
    rows = _known_rows(recipe.dataset, root)
    too_few = split_problems(recipe, rows) if rows is not None else []
    return problems + (too_few if too_few and _is_current(recipe.dataset, root) else [])


def _template_problems(recipe: Recipe, root: Path) -> list[ThunderError]:
    template = recipe.model.chat_template
    if not files.is_inside(template) or shipped.place(template, root).is_file():
        return []
    return [ThunderError("is missing", template, f"correct models.{recipe.model.name}.chat_template in thunder.toml")]


def _dora_problems(recipe: Recipe, root: Path, stats: StatCache | None) -> list[ThunderError]:
    """A problem if DoRA is set for all layers and cannot compute some of them, as the base's config.json says.

    With lora_keys the layers' names decide, which a worker knows; the stage asks it before any rank starts.
    """
    config = shipped.place(recipe.model.path, root) / "config.json"
    if recipe.train.fine_tune_type != "dora" or recipe.train.lora_keys or recipe.model.kind != "path":
        return []
    if not config.is_file():
        return []
    reason = stats.memo("without_dora", str(config), _without_dora) if stats else _without_dora(config)
    if not reason:
        return []
    what = f"DoRA is not supported on {reason}, which model {recipe.model.name!r} has"
    hint = 'set it to "lora"'
    hint += ', or lora_keys to other layers, as ["self_attn.q_proj"]' if "experts" in reason else ""
    return [ThunderError(what, f"{recipe.file}: train.fine_tune_type", hint)]


def _without_dora(config: Path) -> str:
    from thunder_train.core import model_files  # late, as in `_layers`

    return model_files.without_dora(config)


def _gate_problems(recipe: Recipe) -> list[ThunderError]:
    """A problem for each item of evaluate.gate.env that is no name of a variable, or the name of a secret."""
    problems = []
    for number, name in enumerate(recipe.evaluate.gate.env):
        where = f"{recipe.file}: evaluate.gate.env[{number}]"
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            hint = "give the name alone; the value comes from the environment of doit"
            problems.append(ThunderError(f"{name!r} is not the name of a variable", where, hint))
        elif name in SECRETS or any(map(SECRET_WORD.fullmatch, name.upper().split("_"))):
            hint = "let the gate read it from a file of its own"
            problems.append(ThunderError(f"{name!r} names a secret, and gates get none", where, hint))
    return problems


def split_problems(recipe: Recipe, rows: dict[str, int]) -> list[ThunderError]:
    """A problem for each setting that needs more rows than a split has. rows: {split: its rows}."""
    problems = batch_problems(recipe, rows["train"])
    if recipe.train.patience and not rows["valid"]:
        what = f"counts validations, and dataset {recipe.dataset.name!r} has no validation row"
        hint = "set it to 0, or give the dataset validation rows"
        problems.append(ThunderError(what, f"{recipe.file}: train.patience", hint))
    return problems


def batch_problems(recipe: Recipe, rows: int) -> list[ThunderError]:
    """A step must not need more rows than the training split has. rows: rows of train.jsonl."""
    ranks, train = len(recipe.cluster.hosts), recipe.train
    needed = train.rows_per_step(ranks if train.strategy == "data" else 1)
    if needed <= rows:
        return []
    where = f"{recipe.file}: train.{'global_batch_size' if train.global_batch_size else 'batch_size'}"
    what = f"needs {needed} rows in a step of {ranks} ranks, and dataset {recipe.dataset.name!r} has {rows} train rows"
    most = rows if train.global_batch_size else rows * train.batch_size // needed
    fewer = "use fewer ranks" if train.grad_accumulation == 1 else "use fewer ranks or a smaller grad_accumulation"
    hint = f"give at most {most}" if most else fewer
    return [ThunderError(what, where, f"{hint}, or add rows" if rows else "add rows")]


def model_layers(model: Model, root: Path, stats: StatCache | None = None) -> int | None:
    """Transformer layers of a base model; None if they are not known without a download.

    stats: remembers what a config.json says.  Raises ThunderError for a config.json that is not one.
    """
    if model.kind == "nano":
        return model.layers
    if model.kind == "path":
        config = shipped.place(model.path, root) / "config.json"
        if not config.exists():
            return None
        text = stats.memo("layers", str(config), _layers) if stats and config.is_file() else _layers(config)
        return int(text) if text else None
    try:
        table = json.loads(files.read_text(root / paths.model_lock(model.name)))
        layers = table["layers"] if table["repo"] == model.repo else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return layers if isinstance(layers, int) else None


def _layers(config: Path) -> str:
    from thunder_train.core import model_files  # late: it needs msgspec, and a build with nothing to do reads no model

    return str(model_files.layers(config) or "")


def _as_toml(key: str, value: str = "") -> str:
    return f'{key} = "{value}"' if value else key


def _cluster_problems(cluster: Cluster, where: str) -> list[ThunderError]:
    if not cluster.hosts:
        return [ThunderError("needs either ranks or hosts", where, "ranks = 2 for this machine, hosts for several")]
    problems = []
    for name in sorted({each.partition("=")[0] for each in cluster.envs} & {*SECRETS}):
        what = f"contains the secret {name}, which would be written to hostfile.json"
        problems.append(ThunderError(what, f"{where}.envs", f"export {name}: every rank gets it from this process"))
    for number, host in enumerate(cluster.hosts):
        if cluster.backend.startswith("jaccl") and len(host.rdma) != len(cluster.hosts):
            what = f"has {len(host.rdma)} slots for {len(cluster.hosts)} hosts"
            hint = 'give one device per host, "" for the host itself'
            problems.append(ThunderError(what, f"{where}.hosts[{number}].rdma", hint))
    return problems


def _model_problems(model: Model, where: str) -> list[ThunderError]:
    problems = _chat_problems(model, where)
    if model.kind == "path" and not model.path:
        problems.append(ThunderError("is missing", f"{where}.path", "give the mlx-lm folder of the model"))
    if model.kind == "hub" and not model.repo:
        problems.append(ThunderError("is missing", f"{where}.repo", 'give it as "owner/name"'))
    if model.kind == "nano" and (model.width % model.heads or model.heads % model.kv_heads):
        what = f"width {model.width}, heads {model.heads} and kv_heads {model.kv_heads} do not divide"
        problems.append(ThunderError(what, where, "make width a multiple of heads, and heads a multiple of kv_heads"))
    return problems


def _chat_problems(model: Model, where: str) -> list[ThunderError]:
    """Every host reads the chat template, so it lies in the project, where sync finds it."""
    problems = []
    if model.chat_template and not (files.is_inside(model.chat_template) and model.chat_template.isprintable()):
        what, hint = f"{model.chat_template!r} is no path inside the project", "copy the file into templates/chat/"
        problems.append(ThunderError(what, f"{where}.chat_template", hint))
    for name, what, hint in template_arguments.problems(model.template):
        problems.append(ThunderError(what, f"{where}.template{f'.{name}' if name else ''}", hint))
    return problems


def _dataset_problems(dataset: Dataset, where: str) -> list[ThunderError]:
    problems = _orthography_problems(dataset, where)
    if not dataset.templates and any(source.kind in PROMPTED for source in dataset.sources):
        problems.insert(0, ThunderError("is missing", f"{where}.template", "name the Jinja2 file of the user message"))
    if dataset.valid + dataset.test >= 1:
        hint = "make their sum smaller than 1, as 0.1 and 0.1"
        problems.append(ThunderError("valid and test leave no train rows", where, hint))
    for number, source in enumerate(dataset.sources):
        shown = sorted({"asr_text", "partition"} & {*source.reference_side})
        if shown:
            what, hint = f"names {', '.join(shown)}, which prompts show", "name telemetry, as telemetry.cer_edits"
            problems.append(ThunderError(what, f"{where}.sources[{number}].reference_side", hint))
        for key, kinds in (("references", ("rows",)), ("telemetry", PROMPTED)):
            if getattr(source, key) and source.kind not in kinds:
                what, hint = f"means nothing for kind {source.kind}", f"take it out; it is for {', '.join(kinds)}"
                problems.append(ThunderError(what, f"{where}.sources[{number}].{key}", hint))
    return problems


def _orthography_problems(dataset: Dataset, where: str) -> list[ThunderError]:
    is_built_in = dataset.orthography in ("", *ORTHOGRAPHIES)
    if not dataset.orthography_table and not is_built_in:
        hint = f"use one of: {', '.join(ORTHOGRAPHIES)}; or describe it in an orthography_table of its own"
        return [ThunderError(f"is {dataset.orthography!r}", f"{where}.orthography", hint)]
    if dataset.orthography_table and is_built_in:
        what = f"describes {dataset.orthography!r}, which is built in" if dataset.orthography else "has no name"
        return [ThunderError(what, f"{where}.orthography_table", "give orthography a name of its own")]
    return []


@cache
def _known_rows(dataset: Dataset, root: Path) -> dict[str, int] | None:
    """{split: rows} according to the dataset's manifest; None if there is none."""
    try:
        splits = json.loads(files.read_text(_manifest(dataset, root)))["splits"]
        rows = {name: splits[name]["rows"] for name in ("train", "valid")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return rows if all(isinstance(count, int) for count in rows.values()) else None


def _is_current(dataset: Dataset, root: Path) -> bool:
    """Whether the manifest was made from these sources with this split. It hashes them, so ask only before an error."""
    try:
        manifest = json.loads(files.read_text(_manifest(dataset, root)))
        made_from = [(source.get("repo", ""), source.get("revision", "")) for source in manifest["sources"]]
        local = [source for source in manifest["sources"] if "repo" not in source]
        hashes = {file["path"]: file["sha256"] for source in local for file in source["files"]}
        patterns = [path for source in dataset.sources if not source.repo for path in (source.path, source.references)]
        read = {files.portable_below(path, name): name for path in patterns for name in files.expand_all(path, root)}
        new = {name for path in patterns if files.is_pattern(path) for name in files.expand(path, root)} - set(hashes)
        split = {"seed": dataset.split_seed, "valid": dataset.valid, "test": dataset.test}
        return (
            made_from == [(source.repo, source.revision if source.repo else "") for source in dataset.sources]
            and not any(files.is_inside(name) for name in new)
            and all(manifest["split"][key] == value for key, value in split.items())
            and all(files.sha256(root / read[name]) == sha256 for name, sha256 in hashes.items())
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _manifest(dataset: Dataset, root: Path) -> Path:
    return root / paths.dataset_manifest(dataset.name)
