"""Pushes the outputs of a run's stages to a store, and pulls them into the run cache, from which doit restores them.

A store has blobs/ab/<sha256> and actions/<key>.json, as the run cache, and runs/<run_id>.json with the keys of a run's
stages. What is pulled is compared with the run's committed manifest, and each file with its own hash.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec

from thunder_train import ThunderError, raise_all
from thunder_train.build import cache_entry
from thunder_train.build.cache_entry import Entry
from thunder_train.build.key import STATS, Stage
from thunder_train.build.run_cache import ENTRY_BYTES, RunCache
from thunder_train.build.store import Store
from thunder_train.core import files

SCHEMA = "thunder.pushed/1"
DAMAGED = "push the run again from where it was made"


class Pushed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """runs/<run_id>.json. keys: of the actions whose outputs the run has."""

    schema: str
    run_id: str
    keys: Annotated[list[cache_entry.Sha256], msgspec.Meta(max_length=10)]


@dataclass(frozen=True)
class Moved:
    """What a store got or gave of a run. files, bytes: of those that were not there yet."""

    recipe: str
    run_id: str
    files: int
    bytes: int


def push(recipe: str, run_id: str, stages: Sequence[Stage], store: Store) -> Moved:
    """Send the outputs of a run's stages, which must be up to date, as far as the store lacks them."""
    keys = {stage.name: stage.key(stage.parts()) for stage in stages}
    paths = {STATS.sha256(path): Path(path) for stage in stages for path in stage.kept.values()}
    sizes = {sha: path.stat().st_size for sha, path in paths.items()}
    there = store.sizes([*map(_blob, paths)])
    missing = [sha for sha in sorted(paths) if there.get(_blob(sha)) != sizes[sha]]
    for sha in missing:
        store.put(_blob(sha), paths[sha])
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "draft"
        for stage in stages:
            shas = {name: STATS.sha256(path) for name, path in stage.kept.items()}
            draft.write_bytes(cache_entry.encode(keys[stage.name], {name: (s, sizes[s]) for name, s in shas.items()}))
            store.put(_action(keys[stage.name]), draft)
        pushed = {"schema": SCHEMA, "run_id": run_id, "keys": sorted(keys.values())}
        draft.write_text(files.json_line(pushed), encoding="utf-8")
        store.put(_run(run_id), draft)  # last: a run that the store names is whole
    return Moved(recipe, run_id, len(missing), sum(sizes[sha] for sha in missing))


def pull(recipe: str, run_id: str, outputs: Mapping[str, str], cache: RunCache, store: Store) -> Moved:
    """Bring the outputs of a run into the cache. outputs: {path in the project or in the run's folder: sha256}, as
    its manifest states them; an output of another content is refused, and nothing of the run is kept.
    """
    if not store.sizes([_run(run_id)]):
        hint = f"whoever made it pushes it: `./doit push {recipe}`"
        raise ThunderError(f"run {run_id} is not in the store", recipe, hint)
    pushed = _pushed(b"".join(_bounded(store, _run(run_id), ENTRY_BYTES)), run_id)
    texts = {key: b"".join(_bounded(store, _action(key), ENTRY_BYTES)) for key in pushed.keys}
    entries = {key: _entry(text, key, cache) for key, text in texts.items()}
    named = {name: each.sha256 for entry in entries.values() for name, each in entry.outputs.items()}
    raise_all(
        [
            ThunderError(f"is not the file that the manifest of run {run_id} names", name, DAMAGED)
            for name in sorted(outputs)
            if named.get(name, outputs[name]) != outputs[name]
        ]
    )
    taken = dict[str, int]()
    for key, entry in entries.items():
        taken |= cache.take(entry, texts[key], lambda sha, size: _bounded(store, _blob(sha), size))
    return Moved(recipe, run_id, len(taken), sum(taken.values()))


def _pushed(text: bytes, run_id: str) -> Pushed:
    try:
        pushed = msgspec.json.decode(text, type=Pushed)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ThunderError(f"is no list of outputs: {str(error)[:100]}", _run(run_id), DAMAGED) from None
    if (pushed.schema, pushed.run_id) != (SCHEMA, run_id):
        raise ThunderError(f"is of another run or version: {pushed.run_id[:12]!r}", _run(run_id), DAMAGED)
    return pushed


def _entry(text: bytes, key: str, cache: RunCache) -> Entry:
    try:
        return cache_entry.decode(text, key, cache.limit_bytes)
    except ValueError as error:
        raise ThunderError(f"is not as it was written: {error}", _action(key), DAMAGED) from None


def _bounded(store: Store, name: str, most: int) -> Iterator[bytes]:
    """The bytes of a file of the store, but not more than they may be: a host may send without end."""
    left = most
    for chunk in store.chunks(name):
        left -= len(chunk)
        if left < 0:
            raise ThunderError(f"has more than {most:,} bytes", name, DAMAGED)
        yield chunk


def _blob(sha: str) -> str:
    return f"blobs/{sha[:2]}/{sha}"


def _action(key: str) -> str:
    return f"actions/{key}.json"


def _run(run_id: str) -> str:
    return f"runs/{run_id}.json"
