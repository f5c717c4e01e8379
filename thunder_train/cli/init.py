"""`thunder init FOLDER`: a project of one's own, from one's data and model, or the demonstration.

Writes only files that are not there yet, and nothing if one of them is.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from doit.cmd_base import Command

from thunder_train import PROGRAM, ThunderError
from thunder_train.cli import first_project, mlx_lm_config
from thunder_train.cli.ending import USER_ERROR
from thunder_train.cli.first_project import Base, Data, keys_as_toml, toml
from thunder_train.config import load
from thunder_train.config.train import ALL
from thunder_train.core import caller, files, shipped
from thunder_train.core.text import printable_lines

RECIPE = "first"
DODO = '''"""The tasks of this project; `thunder list` shows them. Tasks of your own go below."""

from thunder_train.dodo import *
'''
ATTRIBUTES = "# Two histories of looks at test rows are joined line by line.\nruns/looks.jsonl merge=union\n"
IGNORED = """# What thunder makes again, and what only this machine has; manifests and locks are committed.
.thunder/
__pycache__/
.doit.db*
models/

data/*/*
!data/sources/*
!data/sources/*/**
!data/*/manifest.json
!data/*/accepted.json

runs/index.html
runs/*/*
!runs/*/manifest.json
!runs/*/accepted.json
!runs/models/*/
runs/models/*/*
!runs/models/*/model.lock.json
!runs/models/*/accepted.json
"""
TEMPLATES = """Templates of the package are used unless a file of the same name lies here: prompts/correct.j2,
chat/plain.jinja, launch.sh.j2, report.html.j2 and others.
"""
SCHEMAS = ("docs/recipe.schema.json", "docs/thunder.schema.json")
LARGE_BYTES = 1 << 30
"""Data of more bytes is not copied."""


class Init(Command):  # type: ignore[misc]  # doit ships no types
    """doit init: a new project."""

    name = "init"
    doc_purpose = "begin a project, with your data and model or with a demonstration"
    doc_usage = "FOLDER [--data FOLDER|FILE [--references FILE]] [--model FOLDER|OWNER/NAME|nano] [--from-mlx-lm YAML]"
    doc_description = "Writes dodo.py, thunder.toml, recipes/first.toml and what belongs to them; overwrites nothing."
    cmd_options = ()

    def parse_execute(self, in_args: list[str]) -> int:
        """Take the words in any order, unlike doit, which wants options first."""
        try:
            print(printable_lines(begin(_parser().parse_args(in_args))), end="")
        except ThunderError as error:
            print(printable_lines(f"ERROR: {error}"), file=sys.stderr)
            return USER_ERROR
        return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ThunderError(message, "init", f"{os.environ.get(PROGRAM, 'doit')} {self.usage}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="init", usage=f"init {Init.doc_usage}", add_help=False, allow_abbrev=False)
    parser.add_argument("folder")
    for name in ("--data", "--references", "--model", "--from-mlx-lm"):
        parser.add_argument(name, default="")
    return parser


def begin(given: argparse.Namespace) -> str:
    """Write the project and say what to do next. Raises ThunderError, having written nothing."""
    project = Path(caller.path(given.folder))
    config = mlx_lm_config.Converted()
    if given.from_mlx_lm:
        config = mlx_lm_config.read(Path(caller.path(given.from_mlx_lm)))
    data = _data(given, config)
    base = first_project.base_of(_model(given, config, data), project)
    train = _train(config, data, base) if given.data or config.train else first_project.demo_train()
    texts = _texts(data, base, train)
    _check(project, texts, data)
    _write(project, texts, data, base)
    load.load(project)  # what was written is a project
    return _report(project, data, base, config)


def _data(given: argparse.Namespace, config: mlx_lm_config.Converted) -> Data:
    if given.references and not given.data:
        raise ThunderError("goes with --data, the predictions", "--references", "give both")
    if given.data:
        references = Path(caller.path(given.references)) if given.references else None
        return first_project.data_of(Path(caller.path(given.data)), references)
    if not config.data:
        if config.train:
            raise ThunderError("names no data", given.from_mlx_lm, "add --data FOLDER")
        return first_project.demo()
    place = Path(caller.path(given.from_mlx_lm)).parent / config.data  # beside the config, or from the caller's folder
    here = next((each for each in (Path(caller.path(config.data)), place) if each.exists()), None)
    if here is None:
        hint = "add --data FOLDER; a dataset of the hub is named in thunder.toml (docs/data.md)"
        raise ThunderError(f"data is {config.data!r}, which is not here", given.from_mlx_lm, hint)
    return first_project.data_of(here, None)


def _model(given: argparse.Namespace, config: mlx_lm_config.Converted, data: Data) -> str:
    name = given.model or config.model
    if not name and data.name != "nko-nano":
        hint = (
            "add --model FOLDER or --model OWNER/NAME of the hub; --model nano is a random one that only shows the way"
        )
        raise ThunderError("your data needs a model", "init", hint)
    if not name or name == "nano":
        return str(name)
    here = caller.path(os.path.expanduser(name))
    return here if os.path.isdir(here) else str(name)


def _train(config: mlx_lm_config.Converted, data: Data, base: Base) -> dict[str, Any]:
    if not config.train:
        return first_project.train_of(data, base)
    train = dict(config.train)
    if train["num_layers"] != ALL:
        train["num_layers"] = max(1, min(train["num_layers"], base.layers or train["num_layers"]))
    return train


def _texts(data: Data, base: Base, train: dict[str, Any]) -> dict[str, str]:
    """{path in the project: text} of all that is written, without the data."""
    start = "#:schema ./docs/thunder.schema.json\n"
    project = f"{start}\n[project]\nrecipes = {toml([RECIPE])}\n\n[models.{base.name}]\n{keys_as_toml(base.table)}"
    project += f"\n[datasets.{data.name}]\n{keys_as_toml(data.keys)}"
    for source in data.sources:
        project += f"\n[[datasets.{data.name}.sources]]\n{keys_as_toml(source)}"
    recipe = "#:schema ../docs/recipe.schema.json\n"
    recipe += f"model = {toml(base.name)}\ndataset = {toml(data.name)}\n\n[train]\n{keys_as_toml(train)}"
    is_chat = any(
        source["kind"] in ("chatml", "folder", "completions", "sharegpt", "alpaca") for source in data.sources
    )
    if is_chat:
        recipe += "\n[evaluate]\nmax_tokens = 128 # of an answer; longer ones are cut\n"
    if is_chat or base.table["kind"] == "nano":
        recipe += "\n[evaluate.probe] # shares of answers that may be wrong in such ways\n"
        recipe += keys_as_toml(first_project.probe_of(base))
    return {
        "dodo.py": DODO,
        "thunder.toml": project,
        f"recipes/{RECIPE}.toml": recipe,
        "templates/README.md": TEMPLATES,
        ".gitignore": IGNORED,
        ".gitattributes": ATTRIBUTES,
        "README.md": _readme(data, base),
        **{path: files.read_text(shipped.FOLDER / path) for path in SCHEMAS},
    }


def _readme(data: Data, base: Base) -> str:
    rows = ", ".join(source["path"] for source in data.sources)
    return f"""# A project of Thunder Train

```
thunder                    # builds what is stale: rows, adapter, evaluation, runs/{RECIPE}/report.html
thunder tokens:{RECIPE}       # the rows as the training sees them
thunder why                # what would run now, and why
```

Recipes are in `recipes/`, models and datasets in `thunder.toml`; the rows are in {rows}, and are committed unless
`.gitignore` says otherwise. The base model is {base.table.get("path") or base.table.get("repo") or base.name}.
"""


def _check(project: Path, texts: dict[str, str], data: Data) -> None:
    """Refuse to overwrite anything, and to copy much."""
    hint = "choose another folder, or edit the project that is there"
    paths = [*texts, *data.copies]
    here = [path for path in paths if os.path.lexists(project / path) and not _is_itself(project / path, data, path)]
    if project.exists() and not project.is_dir():
        raise ThunderError("is no folder", str(project), "choose another name")
    if (project / "README.md").exists():  # of the user's own data
        here = [path for path in here if path != "README.md"]
        texts.pop("README.md", None)
    for name in (".gitignore", ".gitattributes"):
        if (project / name).exists():
            here = [path for path in here if path != name]
            texts.pop(name, None)
    if here:
        raise ThunderError(f"{', '.join(sorted(here))}: there already", str(project), hint)
    size = sum(path.stat().st_size for path in data.copies.values())
    if size > LARGE_BYTES:
        what = f"{size / 1e9:.1f} GB would be copied into the project"
        hint = f"put them, or a link to them, into {project}/data/sources yourself, and name a small file of them here"
        raise ThunderError(what, "--data", hint)


def _is_itself(path: Path, data: Data, name: str) -> bool:
    """Whether a file of the data lies where it would be copied to."""
    return name in data.copies and path.exists() and path.samefile(data.copies[name])


def _write(project: Path, texts: dict[str, str], data: Data, base: Base) -> None:
    for name, file in data.copies.items():
        target = project / name
        if _is_itself(target, data, name):
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f"{target.name}{files.DRAFT}{os.getpid()}")
            shutil.copyfile(file, draft)
            files.move(draft, target)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise ThunderError(f"cannot be written: {error.strerror}", str(target), "free or unlock it") from None
    if base.link:
        place = project / base.table["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(place):
            place.symlink_to(base.link)
    for name, text in sorted(texts.items(), reverse=True):  # thunder.toml after what it names
        files.write_text(project / name, text)


def _report(project: Path, data: Data, base: Base, config: mlx_lm_config.Converted) -> str:
    program = os.environ.get(PROGRAM, "doit")
    rows = f"about {data.rows:,} rows" if data.rows else "your rows"
    place = sorted(data.copies)[0] if len(data.copies) == 1 else os.path.commonpath([*data.copies])
    lines = [f"{project}: a project with the recipe {RECIPE}"]
    lines.append(f"  data   {rows}, copied to {place}")
    lines.append(f"  model  {base.table.get('repo') or base.table.get('path') or 'nano, random'}")
    if base.link:
        lines.append(f"         a link to {base.link}, which is not committed")
    lines += [f"         {note}" for note in base.notes]
    if config.notes:
        lines += ["not taken from the config of mlx-lm:", *(f"  {note}" for note in config.notes)]
    go = "" if project.resolve() == Path(caller.folder()).resolve() else f"cd {project} && "
    lines.append(f"next: {go}{program}")
    return "\n".join(lines) + "\n"
