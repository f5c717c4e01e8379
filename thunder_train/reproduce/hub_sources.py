"""Sources of a run in dataset repositories of the Hugging Face hub, of which its manifest states the commits.

Input: a run's manifest, checked.  Output: their files in this machine's hub cache, and the pins of the clean folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thunder_train.core import files, hub_cache, paths

NAME = re.compile(r"(?P<repo>[^/@]+/[^/@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)")
"""hub_cache.dataset_file, taken apart."""


def files_here(run: dict[str, Any]) -> dict[str, Path]:
    """{name in the manifest: the file in the hub's cache}; a path that does not exist if it is not there.

    A name counts only if the recipe has a source in that repository.
    """
    return {
        name: hub_cache.file_here(part["repo"], part["path"], part["commit"], kind="dataset") or Path(name)
        for name, part in _parts(run)
    }


def declared(source: dict[str, Any]) -> list[str]:
    """A source's paths as patterns for names in the manifest."""
    given = [source[key] for key in ("path", "references") if source.get(key)]
    return [hub_cache.dataset_file(source["repo"], "*", path) for path in given] if source.get("repo") else given


def pin(run: dict[str, Any], folder: Path) -> None:
    """Write the commits of the run where the dataset's build in a clean folder will look for them."""
    dataset, pins = run["recipe"]["dataset"], []
    used = dict.fromkeys((source["repo"], source["revision"]) for source in dataset["sources"] if source.get("repo"))
    for repo in dict.fromkeys(repo for repo, _ in used):
        # files are listed in the order of their sources, and so are commits; two revisions may mean one
        commits = list(dict.fromkeys(part["commit"] for _, part in _parts(run) if part["repo"] == repo))
        revisions = [revision for each, revision in used if each == repo]
        last = len(commits) - 1
        pins += [
            {"repo": repo, "revision": revision, "commit": commits[min(number, last)]}
            for number, revision in enumerate(revisions)
            if commits
        ]
    if pins:
        files.write_json(folder / paths.dataset_manifest(dataset["name"]), {"sources": pins})


def _parts(run: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The names of files of the hub, and their parts."""
    repos = {source["repo"] for source in run["recipe"]["dataset"]["sources"] if source.get("repo")}
    for entry in run["inputs"]["sources"]:
        match = NAME.fullmatch(entry["path"])
        if match and match["repo"] in repos:
            yield entry["path"], match.groupdict()
