"""Revisions: what is stated of a stage's code, so that an upgrade which changes no number makes nothing again.

revisions.json holds, of each stage whose outputs a run's manifest lists, a number and the hash of the code that gives
the outputs of that number. `python -m proof` renews a hash after it proved that no output bit changed, or raises the
number; a test refuses any other change of the code.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train.core import code_hash, files

if TYPE_CHECKING:
    from thunder_train.core.stat_cache import StatCache

FILE = Path(__file__).with_suffix(".json")
WORD = "revision "
CODE = {
    "data": ("data.builder",),
    "model": ("models", "worker.nano"),
    "train": ("worker.train.result",),
    "evaluate": ("worker.evaluation", "evaluate.conditions"),
}
"""{stage that has a revision: start modules of the code that decides what it makes}."""


@cache
def recorded() -> dict[str, Any]:
    """{stage: {"revision": number, "code": hash}}; nothing where the file is missing: every code counts as edited."""
    try:
        table: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return table


def stated(stage: str, code: str) -> str:
    """`revision 1` if the hash is that of the stage's recorded code, else the hash: the code was edited here."""
    entry = recorded().get(stage)
    return f"{WORD}{entry['revision']}" if entry and entry["code"] == code else code


def decisive(starts: tuple[str, ...], code: Mapping[str, str], stats: "StatCache") -> dict[str, str]:
    """What a stage's key and record hold of its code: {"code": revision or hash}, and modules that decide a page only.

    starts: its start modules; one of `CODE` is meant if they begin with its own. code: {path: hash} of all of them.
    """
    stage = next((stage for stage, own in CODE.items() if starts[: len(own)] == own), "")
    if not stage:
        return {"code": files.digest(dict(code))}
    own = {path: code[path] for path in code_hash.hashes(CODE[stage], stats) if path in code}
    return {"code": stated(stage, files.digest(own)), **{path: sha for path, sha in code.items() if path not in own}}


def is_revision(text: str) -> bool:
    """Whether a text of `stated` is a revision, and no hash."""
    return text.startswith(WORD)


def hashes(stats: "StatCache") -> dict[str, str]:
    """{stage: hash of its code} of each stage that has a revision."""
    return {stage: code_hash.digest(starts, stats) for stage, starts in CODE.items()}


def unrecorded(stats: "StatCache") -> list[str]:
    """Stages whose code is not the one that revisions.json records."""
    return [stage for stage, code in hashes(stats).items() if not is_revision(stated(stage, code))]
