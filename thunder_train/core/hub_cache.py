"""Where the files of a Hugging Face repository lie: in this machine's hub cache, and in the project on a remote host.

A snapshot is one commit of a repository. huggingface_hub is imported late, because it takes half a second.
"""

import re
from pathlib import Path
from typing import Any

IN_PROJECT = ".thunder/hub"
"""The project's own hub cache on a remote host: sync fills it, and it is deleted with the project's folder."""
COMMIT = re.compile("[0-9a-f]{40}")


def is_commit(value: Any) -> bool:
    """Whether a value of an untrusted file is a commit in hex."""
    return isinstance(value, str) and bool(COMMIT.fullmatch(value))


def snapshot(repo: str, commit: str, kind: str = "models") -> str:
    """Path of a repository's files at a commit, below any hub cache, as huggingface_hub lays them out.

    kind: models or datasets.
    """
    return f"{kind}--{repo.replace('/', '--')}/snapshots/{commit}"


def snapshot_in_project(repo: str, commit: str) -> str:
    """A repository's files at a commit in the project's own hub cache, relative to the project folder."""
    return f"{IN_PROJECT}/{snapshot(repo, commit)}"


def snapshot_here(repo: str, commit: str, kind: str = "models") -> Path:
    """A repository's files at a commit in this machine's hub cache, which HF_HOME and HF_HUB_CACHE place."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / snapshot(repo, commit, kind)


def dataset_file(repo: str, commit: str, path: str) -> str:
    """How a run's manifest names a file of a dataset of the hub."""
    return f"{repo}@{commit}/{path}"


def file_here(repo: str, name: str, revision: str, kind: str = "model") -> Path | None:
    """A repository's file at a commit or branch in this machine's hub cache; None when it is not there.

    kind: model or dataset.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        path = try_to_load_from_cache(repo, name, revision=revision, repo_type=kind)
    except ValueError:  # no repository can have that name
        return None
    return Path(path) if isinstance(path, str) else None
