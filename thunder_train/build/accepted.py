"""Outputs that a person accepted as they stand, under other code or in another environment than the one that made them.

One small file beside a stage's targets, to be committed: {stage: what made the outputs, and under what they stand}.
`doit accept` writes it, a real run of the stage removes its entry, and the run's manifest and report show it.
"""

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files, paths, revisions

Entry = dict[str, Any]
"""{"code": change, "environment": {fact: change}}; a change is {"recorded": text, "accepted": text}."""


@cache
def file_of(stage: str) -> Path:
    """The file for a stage by its name, as `train:smoke`."""
    kind, _, name = stage.partition(":")
    folder = {"data": paths.dataset, "model": paths.model}.get(kind, paths.run)
    return Path(folder(name), paths.ACCEPTED)


def entry_of(stage: str) -> Entry:
    """What was accepted of a stage; empty if it stands as it was made. Raises ThunderError for a damaged file."""
    path = file_of(stage)
    if not path.exists():
        return {}
    hint = "restore it with git, or delete it"
    table = files.read_json(path, hint)
    entry: Any = table.get(stage.partition(":")[0], {}) if isinstance(table, dict) else None
    if not _is_entry(entry):
        raise ThunderError("says in no known way what was accepted", str(path), hint)
    return {**entry}


def of_run(stages: list[str]) -> dict[str, Entry]:
    """{kind of stage: what was accepted} of the stages behind a run."""
    return {stage.partition(":")[0]: entry for stage in stages if (entry := entry_of(stage))}


def change(before: Entry, recorded: Entry, now: Entry) -> Entry:
    """The entry for outputs that are accepted now.

    before: the entry so far, whose outputs are older than the record says; recorded and now: {"code": text,
    "environment": {fact: text}} of the stage's record and of today.
    """
    code = _change(before.get("code"), recorded["code"], now["code"])
    facts = sorted({*recorded["environment"], *now["environment"]})
    earlier = before.get("environment", {})
    environment = {
        fact: pair
        for fact in facts
        if (pair := _change(earlier.get(fact), recorded["environment"].get(fact, ""), now["environment"].get(fact, "")))
    }
    return {**({"code": code} if code else {}), **({"environment": environment} if environment else {})}


def note(stage: str, entry: Entry) -> None:
    """Write a stage's entry; an empty one removes it, and the file with its last one."""
    path, kind = file_of(stage), stage.partition(":")[0]
    table = {key: value for key, value in _table(path).items() if key != kind} | ({kind: entry} if entry else {})
    if table:
        files.write_json(path, table)
    else:
        path.unlink(missing_ok=True)


def withdraw(stage: str) -> None:
    """Remove a stage's entry, because its outputs were made under today's code."""
    if file_of(stage).exists():
        note(stage, {})


def sentences(entry: Entry) -> Iterator[str]:
    """An entry in words."""
    if code := entry.get("code"):
        yield f"made by {_code(code['recorded'])}, accepted under {_code(code['accepted'])}"
    for fact, pair in entry.get("environment", {}).items():
        yield f"made with {fact} {pair['recorded'] or '-'}, accepted under {fact} {pair['accepted'] or '-'}"


def of_run_in_words(entries: dict[str, Entry]) -> Iterator[str]:
    """The entries of a run in words."""
    for stage, entry in entries.items():
        yield from (f"{stage}: {sentence}" for sentence in sentences(entry))


def _change(before: dict[str, str] | None, recorded: str, now: str) -> dict[str, str]:
    made = before["recorded"] if before else recorded
    return {} if made == now else {"recorded": made, "accepted": now}


def _code(text: str) -> str:
    return text if revisions.is_revision(text) else f"code {text[:12]}"


def _table(path: Path) -> dict[str, Any]:
    """The file's content; nothing of a damaged one, because a training that has just ended must not fail of it."""
    try:
        table = json.loads(files.read_text(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        print(f"warning: {path}: is not JSON; it is replaced", file=sys.stderr)
        return {}
    return table if isinstance(table, dict) else {}


def _is_entry(entry: Any) -> bool:
    """Whether a value of a file that came with git has the form of an entry."""
    if not isinstance(entry, dict) or not {"code", "environment"} >= {*entry}:
        return False
    facts = entry.get("environment", {})
    pairs = [*facts.values()] if isinstance(facts, dict) else [facts]
    return all(map(_is_change, [*pairs, *([entry["code"]] if "code" in entry else [])]))


def _is_change(pair: Any) -> bool:
    return (
        isinstance(pair, dict)
        and {"recorded", "accepted"} == {*pair}
        and all(isinstance(text, str) for text in pair.values())
    )
