"""What every host of a cluster must hold to train or evaluate a recipe: files by their hashes. The only such list.

Reads the project's own files, data/<dataset>/, runs/<recipe>/ and the model by its lock. sync.py brings the files to
the hosts, preflight.py compares hosts with the list.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from thunder_train import ThunderError, models, raise_all
from thunder_train.config import start
from thunder_train.config.project import Recipe
from thunder_train.core import files, hub_cache, paths, shipped
from thunder_train.core.stat_cache import StatCache
from thunder_train.core.text import escaped, printable

PROJECT = ("dodo.py", "doit", "pyproject.toml", "requirements.lock", "thunder.toml")
CODE = "thunder_train"
FOLDERS = {"recipes": "*.toml", "templates": "**/*", CODE: "**/*.py"}
"""Folders of the project, and the files in them that belong to it."""
ROWS = ("manifest.json", "test.jsonl", "train.jsonl", "valid.jsonl")
NEWEST_TOKENS = 8
"""A training reads two token files, an evaluation three; only a worker can tell which, so the newest ones are sent."""
ELSEWHERE_HINT = "copy it there yourself: it is outside of the project, where sync writes nothing"


@dataclass(frozen=True)
class HostFile:
    """A file that a host must hold: hex sha256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Needs:
    """What a host must hold, by path in the project.

    elsewhere: a model's files outside of the project; compared, never sent. snapshot: the folder of a Hugging Face
    model on hosts, "" for any other model; snapshot_here: the same folder on this machine.
    """

    files: dict[str, HostFile]
    elsewhere: dict[str, HostFile] = field(default_factory=dict)
    snapshot: str = ""
    snapshot_here: Path = Path()

    def is_of_hub(self, path: str) -> bool:
        """Whether a file is one of a Hugging Face model, which is outside of the project on this machine."""
        return bool(self.snapshot) and path.startswith(f"{self.snapshot}/")

    def here(self, root: Path, path: str) -> Path:
        """Where a file is on this machine."""
        return self.snapshot_here / Path(path).name if self.is_of_hub(path) else home(path, root) / path


def home(path: str, root: Path) -> Path:
    """The folder on this machine from which a host's file is taken: the project's, or the one of the package."""
    is_code = path.startswith(f"{CODE}/") and not (root / CODE).is_dir()
    return shipped.PACKAGE.parent if is_code else shipped.root_of(path, root)


def needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """What each host must hold. Raises ThunderError for each file that is missing here or differs from its lock."""
    lock, data = _lock(recipe), f"data:{recipe.dataset.name}"
    required = {**dict.fromkeys(_row_files(recipe), data), lock: f"model:{recipe.model.name}"}
    missing = [path for path in required if not (root / path).is_file()]
    raise_all([ThunderError("is missing", path, f"run `./doit {required[path]}`") for path in missing])
    existing = existing_needs(recipe, root, stats)
    raise_all(_model_problems(recipe, existing, root, stats))
    return existing


def existing_needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The same without the files that are not made yet: a preflight may come before the dataset and the model."""
    names = list(PROJECT)
    for folder, pattern in FOLDERS.items():
        for top in dict.fromkeys((root, shipped.PACKAGE.parent if folder == CODE else shipped.FOLDER)):
            below = [path.relative_to(top) for path in (top / folder).glob(pattern)]
            names += [str(path) for path in below if not any(_is_own(part) for part in path.parts)]
    lock = _lock(recipe)
    names += [*(f"{paths.run(recipe.name)}/{name}" for name in paths.SENT), *_row_files(recipe), lock]
    names += [recipe.model.chat_template] if recipe.model.chat_template else []
    names += start.files_of(recipe.train)
    existing = Needs(_hashed(sorted(set(names)), root, stats))
    return _with_model(existing, recipe, root) if (root / lock).is_file() else existing


def of_hosts(
    recipe: Recipe, hosts: Iterable[str], root: Path, stats: StatCache, more: Iterable[str] = ()
) -> dict[str, Needs]:
    """{host: what it must hold}: needs(), `more` and the newest token files; the adapter too on the first rank's host.

    Only the first rank reads an adapter; it sends it to the others.
    """
    common = _with(needs(recipe, root, stats), _hashed([*_newest_tokens(root), *more], root, stats))
    adapter = _hashed([f"{paths.run(recipe.name)}/{name}" for name in paths.ADAPTER], root, stats)
    first = recipe.cluster.hosts[0].machine
    return {host: _with(common, adapter) if host == first else common for host in hosts}


def _lock(recipe: Recipe) -> str:
    return paths.model_lock(recipe.model.name)


def _row_files(recipe: Recipe) -> list[str]:
    return [f"{paths.dataset(recipe.dataset.name)}/{name}" for name in ROWS]


def _newest_tokens(root: Path) -> list[str]:
    newest = sorted((root / paths.TOKENS).glob("*.tokens"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path.relative_to(root)) for path in newest[:NEWEST_TOKENS]]


def _is_own(part: str) -> bool:
    """Whether a name is of a file that a machine keeps for itself: hidden, or compiled."""
    return part.startswith(".") or part == "__pycache__"


def _hashed(names: Iterable[str], root: Path, stats: StatCache) -> dict[str, HostFile]:
    """The files among paths below root. Raises ThunderError for each one that is not safe to send."""
    existing = {name: path for name in names if (path := home(name, root) / name).is_file()}
    problems = [
        problem
        for name in existing
        for problem in (*_name_problems(name), *_link_problems(name, home(name, root), existing))
    ]
    raise_all(problems)
    return {name: HostFile(stats.sha256(str(path)), path.stat().st_size) for name, path in existing.items()}


def _name_problems(name: str) -> list[ThunderError]:
    if printable(name) == name:
        return []
    return [
        ThunderError("has a name that cannot be printed", escaped(name), "rename it, or move it out of that folder")
    ]


def _link_problems(name: str, root: Path, listed: Container[str]) -> list[ThunderError]:
    """A problem for a file that a link leads to, unless that file is sent by its own name too.

    A link would send what no list names: the clone of a stranger's project may hold links to .env or ~/.ssh.
    """
    here, real = root.resolve(), (root / name).resolve()
    if real == here / name or (real.is_relative_to(here) and str(real.relative_to(here)) in listed):
        return []
    return [ThunderError("is reached through a link, and no link is followed to a host", name, "put the file there")]


def _model_link_problems(name: str, path: Path) -> list[ThunderError]:
    """A problem for a file of a model that lies neither in the model's folder nor among the blobs of its repository.

    The folder is the one that thunder.toml names, wherever it leads. In Hugging Face's cache each of its files is a
    link into blobs/ beside snapshots/.
    """
    folder, real = path.parent.resolve(), path.resolve()
    allowed = [folder, *([folder.parent.parent / "blobs"] if folder.parent.name == "snapshots" else [])]
    if real.parent in allowed:
        return []
    return [ThunderError("is a link out of the model's folder", name, "put the file itself there")]


def _with(before: Needs, more: dict[str, HostFile]) -> Needs:
    return replace(before, files={**before.files, **more})


def _with_model(before: Needs, recipe: Recipe, root: Path) -> Needs:
    """The needs with the model's files, by their hashes in its lock."""
    model, lock = recipe.model, files.read_json(root / _lock(recipe))
    folder = models.on_hosts(model, lock)
    locked = {f"{folder}/{each['path']}": HostFile(each["sha256"], each["bytes"]) for each in lock["files"]}
    if model.kind == "hub":
        here = hub_cache.snapshot_here(model.repo, lock["commit"])
        return replace(_with(before, locked), snapshot=folder, snapshot_here=here)
    return _with(before, locked) if files.is_inside(folder) else replace(before, elsewhere=locked)


def _model_problems(recipe: Recipe, wanted: Needs, root: Path, stats: StatCache) -> list[ThunderError]:
    """The model's files on this machine that are missing or not those of its lock."""
    lock = files.read_json(root / _lock(recipe))
    folder, problems = models.on_hosts(recipe.model, lock), []
    for name, sha256 in sorted((each["path"], each["sha256"]) for each in lock["files"]):
        path = wanted.here(root, f"{folder}/{name}")
        is_sent = f"{folder}/{name}" in wanted.files
        if is_sent and files.is_inside(name) and path.is_file() and (found := _model_link_problems(str(path), path)):
            problems += found
        elif not (files.is_inside(name) and path.is_file() and stats.sha256(str(path)) == sha256):
            hint = f"run `./doit model:{recipe.model.name}`"
            problems.append(ThunderError("is not the file that model.lock.json names", str(path), hint))
    return problems
