"""The files of a new project, from data and a model that a person names: text of thunder.toml, recipe and the rest.

Reads the first row of the data to tell its kind, and the model's config.json. Writes nothing; init.py does.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models, raise_all
from thunder_train.config import fields
from thunder_train.config.dataset import PROMPTED, Source
from thunder_train.core import files, model_files, shipped
from thunder_train.core.text import printable
from thunder_train.data import dataset_folder, folder, kinds, readers

DEMO = {"heard": "data/sources/nko_nano_predictions.jsonl", "said": "data/sources/nko_nano_references.jsonl"}
DEMO_BASE = "models/nko-nano-base"
SYSTEM = "Correct this speech recognition text with the fewest edits. If unsure, repeat it unchanged."
COUNTED_BYTES = 256 << 20
"""Size of the largest file whose lines are counted."""
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")


@dataclass
class Data:
    """The rows of a project. sources: tables of thunder.toml; copies: {path in the project: file}; rows: 0 if many."""

    name: str
    sources: list[dict[str, Any]]
    copies: dict[str, Path]
    rows: int
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def has_prompts(self) -> bool:
        """Whether a row becomes a chat, for which a model needs a chat template."""
        return any(source["kind"] != "text" for source in self.sources)


@dataclass
class Base:
    """The base model. table: of thunder.toml; link: the folder that models/NAME leads to; layers: 0 if not known."""

    name: str
    table: dict[str, Any]
    link: Path | None = None
    layers: int = 0
    notes: list[str] = field(default_factory=list)


def name_of(path: str) -> str:
    """A name for thunder.toml from the name of a file or folder."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).name.partition(".")[0] or "own").strip("-._") or "own"
    return f"{stem}-rows" if stem in ("sources", "models") else stem[:40]


def demo() -> Data:
    """The demonstration's rows: synthetic N'Ko recogniser output, and what was said."""
    copies = {path: shipped.FOLDER / path for path in DEMO.values()}
    table = {"kind": "rows", "path": DEMO["heard"], "references": DEMO["said"], "evidence_kind": "synthetic"}
    keys = {"system": "Correct it.", "template": "templates/prompts/correct.j2", "orthography": "bridge-toneless"}
    return Data("nko-nano", [table], copies, 1000, {**keys, "valid": 0.1, "test": 0.25})


def data_of(given: Path, references: Path | None) -> Data:
    """The data in a file or a folder. Raises ThunderError if its rows are of no kind."""
    if not given.exists():
        raise ThunderError("is missing", str(given), "give the folder or the file of your rows")
    name = name_of(given.name)
    home = f"data/sources/{name}"
    if given.is_dir():
        return _folder(given, name, home)
    copies = {f"{home}{_ends(given)}": given}
    table = {"kind": "rows"} if references else _kind_of(given.name, given.parent)
    if references:
        copies |= {f"{home}-references{_ends(references)}": references}
    table |= {"path": f"{home}{_ends(given)}"}
    if references:
        table["references"] = f"{home}-references{_ends(references)}"
    return Data(name, [table], copies, _rows([given]), _prompt(table["kind"]))


def _folder(given: Path, name: str, home: str) -> Data:
    """Train, valid and test files as mlx-lm has them; else every file with rows, all of one kind."""
    try:
        by_split = folder.files_by_split(Source(kind="folder", path=given.name), given.parent)
    except ThunderError:
        by_split = {}
    if by_split:
        paths = [path for listed in by_split.values() for path in listed]
        copies = {f"data/sources/{name}/{path.partition('/')[2]}": given.parent / path for path in paths}
        table = {"kind": "folder", "path": home}
        _kind_of(by_split["train"][0], given.parent)
        keys = {split: 0.0 for split in ("valid", "test") if split not in by_split and len(by_split) > 1}
        rows = _rows([given.parent / path for path in by_split["train"]])
        return Data(name, [table], copies, rows, keys)
    names = sorted(path.name for path in given.iterdir() if path.is_file() and dataset_folder.has_rows(path.name))
    if not names:
        what = "has no file with rows"
        raise ThunderError(what, str(given), "name train.jsonl, valid.jsonl and test.jsonl, or give one file")
    tables = [{**_kind_of(each, given), "path": f"{home}/{each}"} for each in names]
    copies = {f"{home}/{each}": given / each for each in names}
    prompts = {key: value for table in tables for key, value in _prompt(table["kind"]).items()}
    return Data(name, tables, copies, _rows([*copies.values()]), prompts)


def _kind_of(path: str, root: Path) -> dict[str, Any]:
    """{"kind": ..., "fields": ...} of the rows in a file, by its first row. Raises ThunderError if none fits."""
    row = readers.first_row(path, root, Source(kind="chatml", path=path))
    if not row:
        raise ThunderError("has no row", str(root / path), "give a file with rows")
    kind, _ = kinds.fitting(row)
    if kind:
        return {"kind": kind}
    for kind, needed in (("completions", ("prompt", "completion")), ("rows", ("asr_text", "reference_text"))):
        meant = kinds.near(needed, [*row])
        if len(meant) == len(needed):
            return {"kind": kind, "fields": meant}
    names = printable(", ".join(map(str, [*row][: kinds.SHOWN_FIELDS])))
    hint = "write messages, prompt and completion, or asr_text and reference_text; docs/data.md lists every kind"
    raise ThunderError(f"a row has {names}, which is no kind of rows", str(root / path), hint)


def _prompt(kind: str) -> dict[str, Any]:
    return {"system": SYSTEM, "template": "templates/prompts/correct.j2"} if kind in PROMPTED else {}


def _ends(path: Path) -> str:
    """.jsonl, or .jsonl.gz"""
    return "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".zst", ".bz2", ".xz") else path.suffix


def _rows(paths: list[Path]) -> int:
    """About how many rows: lines of texts; 0 if that is not known quickly."""
    if any(path.stat().st_size > COUNTED_BYTES or path.suffix not in (".jsonl", ".csv", ".tsv") for path in paths):
        return 0
    return sum(path.read_bytes().count(b"\n") for path in paths)


def base_of(given: str, project: Path) -> Base:
    """The model that a person names: "nano", a folder, or a repository of the hub."""
    if given in ("", "demo"):
        return Base("nko-nano-base", {"kind": "path", "path": DEMO_BASE}, layers=3)
    if given == "nano":
        return Base("nano", {"kind": "nano"}, layers=6)
    home = Path(given).expanduser()
    if home.is_dir():
        return _local(home, project)
    if re.fullmatch(fields.REPO, given) and given:
        note = "the first build downloads it, and runs/models/NAME/model.lock.json pins its commit"
        return Base(name_of(given.partition("/")[2]), {"kind": "hub", "repo": given}, notes=[note])
    hint = "give the folder of an mlx-lm model, a repository as owner/name, or nano"
    raise ThunderError("is neither a folder nor a repository", f"--model {printable(given)}", hint)


def _local(home: Path, project: Path) -> Base:
    name = name_of(home.resolve().name)
    raise_all(models.problems(home, str(home)))
    inside = os.path.relpath(home.resolve(), project.resolve())
    path = f"models/{name}" if inside.startswith("..") else inside
    base = Base(name, {"kind": "path", "path": path}, None if path == inside else home.resolve())
    base.layers = model_files.layers(home / "config.json") or 0
    if not _has_chat_template(home):
        base.table["chat_template"] = "templates/chat/plain.jinja"
        base.notes.append("its tokenizer has no chat template; templates/chat/plain.jinja writes prompts and answers")
    return base


def _has_chat_template(home: Path) -> bool:
    if any((home / name).is_file() for name in CHAT_TEMPLATES):
        return True
    try:
        return "chat_template" in json.loads(files.read_text(home / "tokenizer_config.json"))
    except (OSError, ValueError, RecursionError):
        return False


def train_of(data: Data, base: Base) -> dict[str, Any]:
    """Keys of [train] that suit so many rows: three times each, in 50 to 1000 steps of four."""
    steps = min(1000, max(50, 3 * data.rows // 4)) if data.rows else 300
    layers = min(16, base.layers) if base.layers else 16
    every = max(10, steps // 5)
    keys = {"num_iters": steps, "batch_size": 4, "num_layers": layers, "learning_rate": 1e-4, "schedule": "cosine"}
    return {**keys, "max_seq_len": 2048, "too_long": "drop", "eval_every": every, "save_every": every}


def probe_of(base: Base) -> dict[str, float]:
    """Keys of [evaluate.probe]: cut answers are no failure, and a random model may answer anything."""
    if base.table["kind"] != "nano":
        return {"max_over_long": 1.0}
    return {f"max_{name}": 1.0 for name in ("empty", "loop", "over_long", "pad", "wrong_script")}


def demo_train() -> dict[str, Any]:
    """Keys of [train] with which the demonstration learns in a minute."""
    keys = {"num_iters": 300, "batch_size": 8, "num_layers": 3, "lora_scale": 10.0, "learning_rate": 1e-3}
    return {**keys, "schedule": "cosine", "warmup_steps": 20, "log_every": 20, "eval_every": 50}


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return repr(value)


def keys_as_toml(table: Mapping[str, Any]) -> str:
    """A line for each key."""
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
