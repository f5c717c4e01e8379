"""doit prune: what lies in the project and no recipe, dataset or model of today needs.

It lists, and removes with --remove. It follows no link, keeps what git tracks and every manifest and lock unless it is
asked for them, and leaves a folder alone that a stage reads or that no stage can have made.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doit.cmd_base import DoitCmdBase

from thunder_train import ThunderError
from thunder_train.build import staging
from thunder_train.cli.commands import JSON
from thunder_train.cli.doit_commands import tracked_files
from thunder_train.core import console, files, paths

REMOVE = {"name": "remove", "long": "remove", "type": bool, "default": False, "help": "remove what is listed"}
RECORDS = {
    "name": "records",
    "long": "records",
    "type": bool,
    "default": False,
    "help": "also manifests, locks and files that git tracks",
}
UNUSED_DAYS = 30
"""Days after which tokenized rows that nobody read are listed; they are made again in minutes."""
OF_A_RUN = {"manifest.json", "recipe.toml", "hostfile.json", "logs", *paths.SCRIPTS, *paths.EVALUATED, *paths.REPORTS}
OF_A_DATASET = {"dropped.jsonl", paths.AUDIT, "manifest.json"}
OF_A_MODEL = {"model.lock.json"}


@dataclass(frozen=True)
class Item:
    """Something that nobody needs."""

    path: Path
    why: str
    bytes: int
    kept: tuple[str, ...] = ()
    """Files in it that stay: records, and what git tracks."""


class Prune(DoitCmdBase):  # type: ignore[misc]  # doit ships no types
    """doit prune."""

    name = "prune"
    doc_purpose = "list what no recipe, dataset or model needs; --remove removes it"
    doc_usage = ""
    doc_description = "Runs, datasets and models of removed names, unfinished work of other keys, what builds left."
    cmd_options = (REMOVE, RECORDS, JSON)

    def _execute(self, remove: bool, records: bool, as_json: bool) -> int:
        if remove:
            self.dep_manager.backend.keep_others_out()
        tracked = tracked_files()
        items = [item if records else without_kept(item, tracked) for item in unneeded(self.task_list)]
        if remove:
            for item in items:
                remove_item(item)
        self.dep_manager.close()
        if as_json:
            rows = [{"path": str(i.path), "why": i.why, "bytes": i.bytes, "kept": list(i.kept)} for i in items]
            console.print_json({"schema": "thunder.prune/1", "removed": remove, "items": rows})
        else:
            _show(items, remove)
        return 0


def unneeded(tasks: list[Any]) -> Iterator[Item]:
    """All that no task makes or reads."""
    names: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for task in tasks:
        kind, _, name = task.name.partition(":")
        names.setdefault(kind, set()).add(name)
    read = {path for task in tasks for path in task.file_dep}
    for kind, (folder, noun, signs) in KINDS.items():
        for path in _children(Path(folder)):
            is_made = path.is_symlink() or any(os.path.lexists(path / sign) for sign in signs)
            is_read = any(name.startswith(f"{path}/") for name in read)
            if path.name not in names[kind] and is_made and not is_read:
                yield _item(path, f"no {noun} is named {path.name}")
    yield from _unfinished(tasks, names["manifest"])
    yield from (_item(path, "its process has ended") for path in staging.abandoned())
    yield from (_item(path, "a run made again, kept to be looked at") for path in _reproduced())
    limit_s = time.time() - UNUSED_DAYS * 86400
    tokens = [path for path in _children(Path(paths.TOKENS)) if _used(path) < limit_s]
    yield from (_item(path, f"tokens that nobody read for {UNUSED_DAYS} days") for path in tokens)
    damaged = [path for path in _children(Path(paths.STATE)) if path.name.endswith(files.DAMAGED)]
    yield from (_item(path, "was set aside because it was damaged") for path in damaged)
    caches = {task.meta["cache"] for task in tasks if "cache" in (task.meta or {})}
    yield from (_item(path, "no entry of the run cache names it") for cache in caches for path in cache.remains())


KINDS = {
    "manifest": ("runs", "recipe", OF_A_RUN),
    "data": ("data", "dataset", OF_A_DATASET),
    "model": ("runs/models", "model", OF_A_MODEL),
}
"""{kind of task: where its folders lie, what its name is of, files of which one is in each}"""


def _unfinished(tasks: list[Any], recipes: set[str]) -> Iterator[Item]:
    """Checkpoints that no training of today goes on from, and answers of evaluations of no recipe."""
    checkpoints = _children(Path(paths.LAST))
    for path in _children(Path(paths.PARTIAL)):
        kind, _, name = path.name.partition("-")
        if kind not in ("answers", "correct"):
            checkpoints.append(path)
        elif name not in recipes:
            yield _item(path, "answers of an evaluation or a correction of no recipe")
    stages = [task.meta["stage"] for task in tasks if task.name.startswith("train:") and "stage" in (task.meta or {})]
    try:
        needed = {paths.checkpoints(stage.partial_key()) for stage in stages}
        needed |= {paths.last_checkpoint(stage.open_key()) for stage in stages if stage.open_ended}
    except OSError:  # an input is not made yet, so what its training goes on from is not known
        return
    unneeded = [path for path in checkpoints if str(path) not in needed]
    yield from (_item(path, "checkpoints that no training goes on from") for path in unneeded)


def _reproduced() -> Iterator[Path]:
    """Folders of `doit reproduce` in which no process works."""
    for path in _children(Path(paths.REPRODUCE)):
        lock = path if path.suffix == ".lock" else path.with_name(f"{path.name}.lock")
        try:
            with open(lock, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass
        except OSError:
            continue
        yield path


def _children(folder: Path) -> list[Path]:
    """What lies in a folder that is none of a link's."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _item(path: Path, why: str) -> Item:
    return Item(path, why, sum(file.lstat().st_size for file in _files(path)))


def _files(path: Path) -> list[Path]:
    """A file or link itself; all files and links below a folder."""
    if path.is_symlink() or not path.is_dir():
        return [path]
    return [
        Path(folder, name) for folder, folders, names in os.walk(path) for name in (*names, *_links(folder, folders))
    ]


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


def _used(path: Path) -> float:
    stat = path.lstat()
    return max(stat.st_mtime, stat.st_atime)


def without_kept(item: Item, tracked: set[str]) -> Item:
    """The item with what stays of it: records, and files that git tracks."""
    kept = [file for file in _files(item.path) if file.name in paths.RECORDS or str(file) in tracked]
    if str(item.path).startswith(f"{paths.STATE}/"):
        return item
    size = sum(file.lstat().st_size for file in kept)
    return replace(item, bytes=item.bytes - size, kept=tuple(map(str, kept)))


def remove_item(item: Item) -> None:
    """Remove an item but for what stays, and the folders that are empty then."""
    try:
        if not item.kept:
            files.remove(item.path)
            return
        for file in _files(item.path):
            if str(file) not in item.kept:
                file.unlink(missing_ok=True)
        for folder, _, _ in os.walk(item.path, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)
    except OSError as error:
        what = f"cannot be removed: {error.strerror}"
        raise ThunderError(what, str(error.filename or item.path), "make its folder writable") from None


def _show(items: list[Item], is_removed: bool) -> None:
    for item in items:
        if item.bytes or not item.kept:
            print(f"{_size(item.bytes):>9}  {item.path}  {item.why}")
    for path in (path for item in items for path in item.kept):
        print(f"     kept  {path}  a record, or in git; --records removes it too")
    total = _size(sum(item.bytes for item in items))
    if is_removed:
        print(f"removed: {total}")
    elif items:
        print(f"nothing is removed yet; `doit prune --remove` frees {total}")
    else:
        print("nothing lies here that nobody needs")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
