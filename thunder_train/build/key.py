"""What decides a stage's outputs: its slice of the recipe, inputs, code and environment. Its key is a hash of them.

Inputs count by the part that they play and targets by their place in the stage's folder, never by a path: the same
training under another recipe name has the same key.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from thunder_train.build import environment
from thunder_train.core import code_hash, files, paths, revisions
from thunder_train.core.stat_cache import StatCache

STATS = StatCache(Path(paths.STATS))
Parts = dict[str, Any]
"""All that decides a stage's outputs: {"reads", "inputs", "views", "environment", "code", "optional"}."""


class Reads(dict[str, Any]):
    """The slice of a resolved recipe that a stage reads. It must not change: stages share one, and so its digest."""

    @cached_property
    def digest(self) -> str:
        """Hash of the slice, over hashes of its tables: recipes share a dataset's, which is most of the text."""
        return files.digest({name: _hashed(value) for name, value in self.items()})


_HASHED: dict[int, tuple[Any, str]] = {}
"""{identity of a table: itself, so that its number stays its own, and its hash}"""


def _hashed(value: Any) -> Any:
    """The hash of a table that slices share, any other value as it is."""
    if not isinstance(value, dict):
        return value
    if id(value) not in _HASHED:
        _HASHED[id(value)] = value, files.digest(value)
    return _HASHED[id(value)][1]


class View(NamedTuple):
    """A file that another stage renders, and of which only a part decides.

    part: its text -> that part. render: its text as it would be rendered now. reads and code: what `part` depends on
    besides the text.
    """

    part: Callable[[str], dict[str, Any]]
    render: Callable[[], str]
    reads: Reads
    code: tuple[str, ...]

    def text(self, path: str) -> str:
        """The part of a file that decides, as JSON, remembered while it stays as it is. Raises FileNotFoundError."""
        salt = self.reads.digest + code_hash.digest(self.code, STATS)
        return STATS.memo("part", path, lambda file: json.dumps(self.part(files.read_text(file))), salt)

    def of(self, path: str) -> dict[str, Any]:
        """The part of a file that decides. Raises FileNotFoundError."""
        part: dict[str, Any] = json.loads(self.text(path))
        return part


@dataclass(frozen=True, eq=False)
class Stage:
    """One node of the graph.

    make(root) writes every target below `root`, under its own relative path. after: called once the targets stand and
    are recorded, to remove what would have saved them from a failure. code: modules of the package that decide its
    output, as `worker.result`; what they import counts too. is_cached: whether its outputs depend on nothing else, are
    dear and are data, so that the run cache may restore them: nothing that a shell or a browser runs comes from there.
    render(root) writes the target `page` from the others, also when they were restored.
    """

    name: str
    make: Callable[[Path], None]
    targets: tuple[str, ...]
    inputs: Mapping[str, str]
    """{path: the part it plays}."""
    reads: Reads
    code: tuple[str, ...]
    is_cached: bool = False
    page: str = ""
    render: Callable[[Path], None] | None = None
    folder: str = ""
    """The folder of its targets, if that has the recipe's name."""
    views: Mapping[str, View] = field(default_factory=dict)
    """{path: which part of it decides}."""
    compared: tuple[str, ...] | None = None
    """Facts of the environment whose change makes it stale; None if no environment changes its outputs."""
    operational: Callable[[], dict[str, Any]] = dict
    """The part of the recipe that says how it runs, and decides nothing."""
    after: Callable[[], None] | None = None
    machines: tuple[str, ...] = ()
    """Machines on which it starts ranks."""
    optional: tuple[str, ...] = ()
    """Files that it reads if they are there."""
    open_ended: Reads | None = None
    """`reads` without the number of steps, if a run of more steps only goes on from one of fewer."""

    def local(self, path: str) -> str:
        """A path from the stage's folder, if it lies there."""
        return path.removeprefix(f"{self.folder}/") if self.folder else path

    @property
    def kept(self) -> dict[str, str]:
        """{name in the run cache: path} of its targets but the page."""
        return {self.local(path): path for path in self.targets if path != self.page}

    def parts(self) -> Parts:
        """All that decides the outputs, as it is now. A missing input counts as one; a missing view is an error."""
        return {**self.parts_without_views(), "views": self.viewed()}

    def parts_without_views(self) -> Parts:
        """`parts` that are there even if a file is not."""
        return {
            "reads": self.reads,
            "inputs": {part: sha256(path) for path, part in self.inputs.items()},
            "environment": {} if self.compared is None else environment.whole(),
            "code": code_hash.hashes_now(self.code, STATS),
            "optional": self.found(),
        }

    def found(self) -> dict[str, str]:
        """{path: sha256} of its optional files; "" for one that is not there."""
        return {self.local(path): sha256(path) for path in self.optional}

    def viewed(self) -> dict[str, Any]:
        """The parts of files that decide. Raises FileNotFoundError."""
        return {self.local(path): view.of(path) for path, view in self.views.items()}

    def views_digest(self) -> str:
        """The digest of `viewed`, which most recipes share."""
        return _digest_of(tuple((self.local(path), view.text(path)) for path, view in self.views.items()))

    def key(self, parts: Parts) -> str:
        """Hash of all that decides the outputs: where the run cache keeps them."""
        code = revisions.decisive(self.code, parts["code"], STATS)
        return files.digest({**parts, "code": code, "targets": [*self.kept]})

    def partial_key(self) -> str:
        """The key without the environment: for work in progress, which checks by itself where it may go on."""
        return self.key({**self.parts(), "environment": {}})

    def open_key(self) -> str:
        """The same for any number of steps: for the end of a run from which one of more steps goes on."""
        return self.key({**self.parts(), "environment": {}, "reads": self.open_ended})


@cache
def _digest_of(texts: tuple[tuple[str, str], ...]) -> str:
    return files.digest({path: json.loads(text) for path, text in texts})


def sha256(path: str) -> str:
    """sha256 of a file; "" when it is missing."""
    try:
        return STATS.sha256(path)
    except FileNotFoundError:
        return ""


def changes(stage: Stage, before: Parts, now: Parts) -> Iterator[str]:
    """Every difference between two moments of a stage, but not of its code."""
    for path, part in stage.inputs.items():
        if before["inputs"][part] != now["inputs"][part]:
            yield f"{path}: content changed" if os.path.exists(path) else f"{path}: is missing"
    for path in stage.views:
        yield from view_differences(path, before["views"][stage.local(path)], now["views"][stage.local(path)])


def view_differences(path: str, old: Any, new: Any) -> Iterator[str]:
    """What differs in the part of a file that decides."""
    yield from (f"{path}: {line}" for line in differences(old or {}, new))


def version_changes(
    then: Mapping[str, str], now: Mapping[str, str], before: Mapping[str, str], hashes: Mapping[str, str]
) -> Iterator[str]:
    """Every difference between two versions of a stage's code: of recorded code its revision, of edited code each file.

    then and now: of revisions.decisive; before and hashes: {path: hash} of all the code behind them.
    """
    old, new = then.get("code", ""), now["code"]
    if old != new and not revisions.is_revision(new):
        yield from [*code_changes(before, hashes)] or [f"code: {old} -> edited"]
        return
    if old != new:
        yield (
            f"code: {old} -> {new.removeprefix(revisions.WORD)}"
            if revisions.is_revision(old)
            else f"code: edited -> {new}"
        )
    yield from code_changes(*({path: sha for path, sha in each.items() if path != "code"} for each in (then, now)))


def code_changes(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Every module that does something else, or is new or no longer used."""
    yield from (f"{path}: code changed" for path in sorted(now) if now[path] != then.get(path))
    yield from (f"{path}: code is no longer used" for path in sorted(set(then) - set(now)))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Every key whose value differs, as `train.learning_rate: 1e-06 -> 1e-05`."""
    if name and None in (old, new):  # a table that is on one side only: name its keys
        old = {} if old is None and isinstance(new, dict) else old
        new = {} if new is None and isinstance(old, dict) else new
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and all(map(_is_table, old + new)):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{name}[{number}]")
    elif old != new:
        yield f"{name}: {old!r} -> {new!r}" if name else "its slice of the recipe changed"
