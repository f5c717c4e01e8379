"""A base model -> model.lock.json: what it is and the sha256 of every file, or why it cannot be trained.

nano: made here by a worker.  path: an mlx-lm folder, which stays where it is.  hub: a snapshot in Hugging Face's own
cache, at the commit in the lock; the first lock pins the commit that the revision means at that time.
"""

import json
import sys
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.project import Model, section
from thunder_train.core import console, files, hub_cache, paths, shipped
from thunder_train.core.process import command
from thunder_train.core.text import printable

NANO_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = "model*.safetensors"
WANTED = (WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt")
"""Files of a repository that mlx-lm reads; none is code or a pickle."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SETTINGS = ("layers", "width", "heads", "kv_heads", "hidden", "seed")


def on_hosts(model: Model, lock: dict[str, Any]) -> str:
    """The folder of the model's files on the hosts of a cluster, from the project folder. lock: model.lock.json."""
    if model.kind == "hub":
        return hub_cache.snapshot_in_project(model.repo, lock["commit"])
    return model.path if model.kind == "path" else files_folder(model)


def files_folder(model: Model) -> str:
    """The folder of a nano model's files."""
    return f"{paths.model(model.name)}/files"


def targets(model: Model) -> tuple[str, ...]:
    """Files that `build` writes."""
    names = NANO_FILES if model.kind == "nano" else ()
    return (paths.model_lock(model.name), *(f"{files_folder(model)}/{name}" for name in names))


def inputs(model: Model, project: Path) -> dict[str, str]:
    """{file: its path in the project} of what the lock describes and exists before it: the files of a `path` model."""
    if model.kind != "path":
        return {}
    names = [str(Path(model.path) / path.name) for path in _files(shipped.place(model.path, project))]
    return {shipped.file(name): name for name in names}


def build(model: Model, project: Path, root: Path) -> None:
    """Write a model's targets below root. Raises ThunderError if it is not available or cannot be trained."""
    lock: dict[str, Any] = {"schema": "thunder.model/1", "name": model.name, "kind": model.kind}
    if model.kind == "nano":
        folder = root / files_folder(model)
        _make_nano(model, folder)
        lock["nano"] = {name: value for name, value in section(model).items() if name in SETTINGS}
    elif model.kind == "path":
        folder = shipped.place(model.path, project)
    else:
        folder, commit = _download(model, project / paths.model_lock(model.name))
        lock |= {"repo": model.repo, "revision": model.revision, "commit": commit}
    raise_all(problems(folder, model.path or model.repo or model.name))
    lock["layers"] = _layers(folder)
    lock["files"] = [
        {"path": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)} for path in _files(folder)
    ]
    files.write_json(root / paths.model_lock(model.name), lock)


def _layers(folder: Path) -> int | None:
    from thunder_train.core import model_files  # late, as in `problems`

    return model_files.layers(folder / "config.json")


def config_file(model: Model, project: Path) -> Path:
    """The model's config.json: made, in the user's folder, or in the hub cache, where it may lie without any weight.

    Raises ThunderError when it is not there.
    """
    if model.kind == "hub":
        return _cached_config(model, project)
    path = Path(model.path) if model.kind == "path" else Path(files_folder(model))
    hint = "give the folder of an mlx-lm model in thunder.toml" if model.kind == "path" else "run `./doit model`"
    return files.require(shipped.place(str(path), project) / "config.json", hint=hint)


def _cached_config(model: Model, project: Path) -> Path:
    revision = pinned(model, project / paths.model_lock(model.name))
    path = hub_cache.file_here(model.repo, "config.json", revision)
    if path is None:
        what = f"the config.json of {model.repo} at {revision} is not in the local cache"
        hint = f"fetch it alone: `.venv/bin/hf download {model.repo} config.json --revision {revision}`"
        raise ThunderError(what, where=f"thunder.toml: models.{model.name}", hint=hint)
    return path


def problems(folder: Path, name: str) -> list[ThunderError]:
    """Why the model in a folder cannot be trained here; empty if it can. name: the user's name for it."""
    from thunder_train.core import model_files, supported_models  # late: it needs msgspec, and a no-op build reads none

    if not folder.is_dir():
        return [ThunderError("is not a folder", where=name, hint="give the folder of an mlx-lm model in thunder.toml")]
    unreadable = model_files.problems(folder, name)
    if unreadable:
        return unreadable
    present = _files(folder, every=True)
    weights = [path.name for path in present if path.suffix == ".safetensors"]
    pickled = [path.name for path in present if path.suffix in PICKLES]
    has_config = folder / "config.json" in present
    if weights and not pickled and not has_config:
        return [ThunderError("holds no config.json", where=name, hint="give the whole folder of the model")]
    config = model_files.config(folder / "config.json") if has_config else {}
    if "whisper" in json.dumps([config.get("model_type"), config.get("architectures")]).lower():
        what = "is a Whisper speech model; Thunder Train trains language models that mlx-lm loads"
        hint = "keep it as the recogniser, and train a corrector of its text, or port it to MLX first"
        return [ThunderError(what, where=name, hint=hint)]
    convert = "convert it with `mlx_lm.convert --hf-path MODEL --mlx-path FOLDER` and name that folder"
    if not weights and pickled:
        names = printable(", ".join(pickled))
        what = f"holds PyTorch weights ({names}): a pickle can run any code, and MLX does not read it"
        return [ThunderError(what, where=name, hint=convert)]
    if not weights:
        return [ThunderError("holds no *.safetensors weights", where=name, hint=convert)]
    return [*supported_models.problems(config, name), *_weights_problems(folder, weights, name)]


def _weights_problems(folder: Path, weights: list[str], name: str) -> list[ThunderError]:
    """A problem for weights under names that mlx-lm does not read, and for a download that stopped half way."""
    read = [each for each in weights if Path(each).match(WEIGHTS)]
    if not read:
        what = f"holds {printable(', '.join(weights))}, and mlx-lm reads only files named {WEIGHTS}"
        return [ThunderError(what, name, "give the folder of the whole model; rename its only file model.safetensors")]
    index = folder / "model.safetensors.index.json"
    named = set(files.read_json(index)["weight_map"].values()) if index.is_file() else set()
    missing = sorted(named - set(read)) if named & set(read) else []  # an index of other files is not read
    if not missing:
        return []
    what = f"lacks {len(missing)} of the {len(named)} files that its index names, first {missing[0]}"
    return [ThunderError(what, name, "download the model again")]


def _files(folder: Path, every: bool = False) -> list[Path]:
    """The files of a model that mlx-lm reads (or all of them), sorted by name; none if they cannot be listed."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
    # A name that cannot be printed is refused by `problems`.
    return [path for path in paths if every or (path.name.isprintable() and any(path.match(one) for one in WANTED))]


def _make_nano(model: Model, folder: Path) -> None:
    values = section(model)
    flags = [part for name in SETTINGS for part in (f"--{name.replace('_', '-')}", str(values[name]))]
    argv = [sys.executable, "-m", "thunder_train.worker.nano", "--output", str(folder), *flags]
    command(argv, where=f"model {model.name!r}", hint="read the lines above")


def _download(model: Model, lock: Path) -> tuple[Path, str]:
    """The snapshot's folder and its commit; the cache alone when HF_HUB_OFFLINE is set."""
    from huggingface_hub import snapshot_download  # late: it costs half a second, and few commands need it
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"thunder.toml: models.{model.name}"
    try:
        revision = pinned(model, lock)
        bars = console.download_bars()
        _refuse_by_config(model, snapshot_download(model.repo, revision=revision, allow_patterns=["config.json"]))
        folder = Path(snapshot_download(model.repo, revision=revision, allow_patterns=list(WANTED), tqdm_class=bars))
    except GatedRepoError:
        hint = f"accept its licence on its page and set HF_TOKEN, as `hf auth login` does ({model.repo})"
        raise ThunderError("is gated", where=where, hint=hint) from None
    except RevisionNotFoundError:
        raise ThunderError(f"{model.repo} has no revision {model.revision!r}", where, "look at its page") from None
    except RepositoryNotFoundError:
        raise ThunderError(f"no repository is named {model.repo!r}", where, "check its owner and name") from None
    except ThunderError:
        raise
    except Exception as error:  # the hub's client raises a dozen kinds when there is no network
        what = f"{model.repo} is not in the local cache and cannot be fetched ({str(error).splitlines()[0]})"
        raise ThunderError(what, where, f"connect once and run `./doit model:{model.name}`") from error
    return folder, folder.name


def _refuse_by_config(model: Model, folder: str) -> None:
    """Raise every reason against a model that its config.json tells, before gigabytes of weights are fetched."""
    from thunder_train.core import model_files, supported_models  # late, as in `problems`

    path = Path(folder) / "config.json"
    if path.is_file():
        raise_all(supported_models.problems(model_files.config(path), model.repo))


def pinned(model: Model, lock: Path) -> str:
    """The commit of an existing lock made for the same repository and revision, else the revision itself."""
    if not lock.is_file():
        return model.revision
    table = files.read_json(lock, hint="delete it, or git checkout it")
    if not isinstance(table, dict):
        raise ThunderError("is no table", str(lock), "delete it, or git checkout it")
    same = table.get("repo") == model.repo and table.get("revision") == model.revision
    return str(table["commit"]) if same and table.get("commit") else model.revision
