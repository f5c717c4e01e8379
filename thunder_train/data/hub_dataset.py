"""Datasets of the Hugging Face hub: which commit of a repository, which of its files, and where they lie.

The first build pins the commit that the revision means then; data/NAME/manifest.json states it, and later builds use it
until repo or revision change. Files lie in the hub's own cache. Only files of rows are fetched, never code.
"""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core import console, files, hub_cache, paths
from thunder_train.core.text import printable
from thunder_train.data import dataset_folder
from thunder_train.data.sources import Place

SHOWN_FILES = 8
"""Most files of a repository that an error names."""


def places(dataset: Dataset, project: Path) -> dict[Source, Place]:
    """Where each source lies, fetched if need be. Raises ThunderError with every source that cannot be had."""
    located, problems = {source: Place(project) for source in dataset.sources}, []
    pins = pinned(project / paths.dataset_manifest(dataset.name)) if any(s.repo for s in dataset.sources) else {}
    for number, source in enumerate(dataset.sources):
        if not source.repo:
            continue
        where, revision = f"thunder.toml: datasets.{dataset.name}.sources[{number}]", (source.repo, source.revision)
        try:
            located[source] = _place(source, pins.get(revision, ""), where)
            pins[revision] = located[source].commit  # also for later sources, if the branch moves meanwhile
        except ThunderError as problem:
            problems.append(problem)
    raise_all(problems)
    return located


def pinned(manifest: Path) -> dict[tuple[str, str], str]:
    """{(repo, revision): commit} that a dataset's manifest states; empty if there is none."""
    if not manifest.is_file():
        return {}
    hint = "delete it, or git checkout it"
    table = files.read_json(manifest, hint)
    sources = table.get("sources") if isinstance(table, dict) else None
    if not isinstance(sources, list):
        raise ThunderError("is not the manifest of a dataset", str(manifest), hint)
    repos = [source for source in sources if isinstance(source, dict) and "commit" in source]
    if any(not hub_cache.is_commit(source["commit"]) for source in repos):
        raise ThunderError("states a commit that is not 40 hex digits", str(manifest), hint)
    return {(str(source.get("repo")), str(source.get("revision"))): source["commit"] for source in repos}


def _place(source: Source, commit: str, where: str) -> Place:
    """The snapshot with a source's files. commit: the pinned one, or "". Raises ThunderError."""
    from huggingface_hub import HfApi, snapshot_download  # late: it costs half a second, and few sources need it
    from huggingface_hub import errors as hub

    try:
        commit = commit or HfApi().resolve_revision(source.repo, repo_type="dataset", revision=source.revision).resolved
        names = _names(source.repo, commit)
        wanted = [*_wanted(source, names, where)]
        patterns = [glob.escape(name) for name in wanted]
        bars = console.download_bars()
        folder = snapshot_download(
            source.repo, repo_type="dataset", revision=commit, allow_patterns=patterns, tqdm_class=bars
        )
    except hub.GatedRepoError:
        hint = f"accept its terms on its page and set HF_TOKEN, as `hf auth login` does ({source.repo})"
        raise ThunderError("is gated", f"{where}.repo", hint) from None
    except hub.RevisionNotFoundError:
        what = f"{source.repo} has no revision {commit or source.revision!r}"
        raise ThunderError(what, f"{where}.revision", "look at the branches and tags on its page") from None
    except hub.RepositoryNotFoundError:
        hint = "check its owner and name; if it is private, set HF_TOKEN, as `hf auth login` does"
        raise ThunderError(f"no dataset is named {source.repo!r}", f"{where}.repo", hint) from None
    except ThunderError:
        raise
    except Exception as error:  # the hub's client raises a dozen kinds when there is no network
        reason = printable(str(error).strip().partition("\n")[0])
        at = f"{source.repo} at {commit or source.revision}"
        what = f"{at} is not whole in the local cache, and the hub cannot be reached ({reason})"
        hint = "connect once without HF_HUB_OFFLINE and build again"
        raise ThunderError(what, f"{where}.repo", hint) from error
    return Place(Path(folder), commit)


def _names(repo: str, commit: str) -> list[str]:
    """All files of a repository at a commit: those that the cache lists, else those that the hub lists.

    If the hub cannot be reached: those that lie in the cache, as another program fetched them.
    """
    from huggingface_hub import HfApi, errors, get_cached_repo_tree

    try:
        return [file.path for file in get_cached_repo_tree(repo, repo_type="dataset", revision=commit)]
    except errors.CachedRepoTreeNotFoundError:
        pass
    try:
        return HfApi().list_repo_files(repo, repo_type="dataset", revision=commit)
    except errors.RepositoryNotFoundError:
        raise
    except Exception:
        folder = hub_cache.snapshot_here(repo, commit, "datasets")
        names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
        if not names:
            raise
        return names


def _wanted(source: Source, names: list[str], where: str) -> Iterator[str]:
    """The files of a repository that a source reads. Raises ThunderError if a path selects none, or code."""
    for key in ("path", "references"):
        pattern = getattr(source, key)
        selected = dataset_folder.selected(names, pattern) if pattern else []
        others = [name for name in selected if not dataset_folder.has_rows(name)]
        if pattern and not selected:
            raise _no_match(source, pattern, names, f"{where}.{key}")
        if others:
            hint = "narrow the pattern to files of rows"
            what = f"selects {_listed(others)} of {source.repo}, which Thunder Train does not read as rows"
            raise ThunderError(what, f"{where}.{key}", hint)
        yield from selected


def _no_match(source: Source, pattern: str, names: list[str], where: str) -> ThunderError:
    rows = [name for name in names if dataset_folder.has_rows(name)]
    script = f"{source.repo.partition('/')[2]}.py"
    if not rows and script in names:
        what = f"{source.repo} has no rows but a program that makes them ({script}), which Thunder Train never runs"
        hint = 'read what the hub made of it: revision = "refs/convert/parquet" and path = "CONFIG/train/*.parquet"'
        return ThunderError(what, where, hint)
    hint = f"it has {_listed(rows)}" if rows else "it has no file of rows"
    return ThunderError(f"no file of {source.repo} at {source.revision} matches {pattern!r}", where, hint)


def _listed(names: Iterable[str]) -> str:
    first, count = [], 0
    for name in names:
        count += 1
        if count <= SHOWN_FILES:
            first.append(printable(name))
    return ", ".join(first) + (f" and {count - SHOWN_FILES} more" if count > SHOWN_FILES else "")
