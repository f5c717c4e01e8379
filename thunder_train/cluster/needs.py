"""What every host of a cluster must hold before it can train or evaluate a recipe: files by their hashes.

Reads thunder.toml's cluster, data/<dataset>/, runs/<recipe>/ and the model by its lock. sync.py brings them there.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from thunder_train import ThunderError, models, raise_all
from thunder_train.config.project import Recipe
from thunder_train.core import files
from thunder_train.core import paths as layout
from thunder_train.core.stat_cache import StatCache

PROJECT = ("dodo.py", "doit", "pyproject.toml", "requirements.lock", "thunder.toml")
FOLDERS = {"recipes": "*.toml", "templates": "**/*", "thunder_train": "**/*.py"}
"""Folders of the project, and which of their files are its own."""
ROWS = ("manifest.json", "test.jsonl", "train.jsonl", "valid.jsonl")
TOKENS = ".thunder/tokens"
NEWEST_TOKENS = 8
"""A training reads two files of tokens, an evaluation three; whose they are only a worker could tell."""


@dataclass(frozen=True)
class Needs:
    """Hex sha256 of every file that a host must hold, by its path in the project.

    snapshot: the folder of a hub's model on hosts, "" for any other model; snapshot_here: the same on this machine.
    elsewhere: files of a model outside of the project; looked at, never sent. environment: of requirements.lock.
    """

    files: dict[str, str]
    environment: str
    elsewhere: dict[str, str] = field(default_factory=dict)
    snapshot: str = ""
    snapshot_here: Path = Path()

    def is_of_hub(self, path: str) -> bool:
        """Whether a file is one of a hub's model, which lies outside of the project on this machine."""
        return bool(self.snapshot) and path.startswith(f"{self.snapshot}/")

    def here(self, root: Path, path: str) -> Path:
        """Where a file lies on this machine."""
        return self.snapshot_here / Path(path).name if self.is_of_hub(path) else root / path


def needs(recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """What each host must hold. Raises ThunderError with everything that is not there yet, or not as it was locked."""
    paths = [name for name in PROJECT if (root / name).is_file()]
    for folder, pattern in FOLDERS.items():
        found = (path for path in (root / folder).glob(pattern) if path.is_file())
        paths += [str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts]
    paths += [path for path in (f"runs/{recipe.name}/{name}" for name in layout.SENT) if (root / path).is_file()]
    paths += _newest_tokens(root)
    lock = f"{models.home(recipe.model)}/model.lock.json"
    required = [*(f"data/{recipe.dataset.name}/{name}" for name in ROWS), lock]
    missing = [path for path in required if not (root / path).is_file()]
    task = {lock: f"model:{recipe.model.name}"}
    mend = f"data:{recipe.dataset.name}"
    raise_all([ThunderError("is missing", path, f"run `./doit {task.get(path, mend)}`") for path in missing])
    wanted = {path: stats.sha256(str(root / path)) for path in sorted({*paths, *required})}
    return _with_model(Needs(wanted, wanted.get("requirements.lock", "")), recipe, root, stats)


def with_adapter(known: Needs, recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The needs of the first rank: only that one looks for an adapter, and gives it to the others."""
    paths = [f"runs/{recipe.name}/{name}" for name in layout.ADAPTER]
    return _with(known, {path: stats.sha256(str(root / path)) for path in paths if (root / path).is_file()})


def _with(known: Needs, more: dict[str, str]) -> Needs:
    return replace(known, files={**known.files, **more})


def _with_model(known: Needs, recipe: Recipe, root: Path, stats: StatCache) -> Needs:
    """The needs with the model's files, as its lock names them."""
    model = recipe.model
    lock = files.read_json(root / models.home(model) / "model.lock.json")
    hashes = {each["path"]: each["sha256"] for each in lock["files"]}
    place = models.on_hosts(model, lock)
    folder = _hub_cache() / files.snapshot(model.repo, lock["commit"]) if model.kind == "hub" else root / place
    mend = f"run `./doit model:{model.name}`"
    raise_all(
        [
            ThunderError("is not the file that model.lock.json names", str(folder / name), mend)
            for name, sha in sorted(hashes.items())
            if not (files.is_inside(name) and (folder / name).is_file() and stats.sha256(str(folder / name)) == sha)
        ]
    )
    named = {f"{place}/{name}": sha for name, sha in hashes.items()}
    if model.kind == "hub":
        return replace(_with(known, named), snapshot=place, snapshot_here=folder)
    return _with(known, named) if files.is_inside(place) else replace(known, elsewhere=named)


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE  # late: it costs half a second

    return Path(HF_HUB_CACHE)


def _newest_tokens(root: Path) -> list[str]:
    found = sorted((root / TOKENS).glob("*.tokens"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path.relative_to(root)) for path in found[:NEWEST_TOKENS]]
