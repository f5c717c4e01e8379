"""What the audit pages tell of a dataset, as plain JSON-like values: counts, histograms, and rows worth looking at."""

from typing import TYPE_CHECKING, Any

import msgspec
from rapidfuzz.distance import Levenshtein

from thunder_train.core import files
from thunder_train.data import orthography
from thunder_train.data.near_duplicates import Neighbours
from thunder_train.data.splits import SPLITS, Parted

if TYPE_CHECKING:
    from thunder_train.data.collect import Gathered

SHOWN = 5
"""Dropped rows of each reason that are named."""


def of(made: "Gathered", parted: Parted, near: Neighbours, manifest: dict[str, Any]) -> dict[str, Any]:
    """All facts. near: of different splits; manifest: that of the dataset, whose figures are told again."""
    return {
        "dataset": made.dataset.name,
        "orthography": made.dataset.orthography,
        "splits": manifest["splits"],
        "counts": made.tally.counts(parted),
        "histograms": made.tally.histograms(parted),
        "cer": {name: split["cer"] for name, split in manifest["splits"].items()},
        "dropped": manifest["dropped"],
        "dropped_examples": _dropped(made),
        "orthography_findings": _findings(made),
        "near_duplicates": _near(made, parted, near),
        "examples": [_example(made, parted, row) for row in made.tally.shown(parted)],
    }


def _dropped(made: "Gathered") -> dict[str, list[dict[str, Any]]]:
    """The first few dropped rows of each reason."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in sorted(made.ledger.dropped):
        told = found.setdefault(each.reason, [])
        if len(told) < SHOWN:
            told.append({"file": files.portable(each.file), "line": each.line, "id": each.row_id})
    return found


def _findings(made: "Gathered") -> list[dict[str, Any]]:
    """What the spelling checks saw and let pass, over all sources."""
    counts: dict[str, int] = {}
    for census in made.composer.census.values():
        for found in orthography.findings(census):
            counts[str(found["what"])] = counts.get(str(found["what"]), 0) + int(found["count"])
    return [{"what": what, "count": count} for what, count in sorted(counts.items())]


def _near(made: "Gathered", parted: Parted, near: Neighbours) -> dict[str, Any]:
    """Rows of different splits whose texts are nearly the same."""

    def told(row: int) -> dict[str, str]:
        return {"id": made.ids[row], "split": SPLITS[parted.splits[row]], "text": made.text(row)}

    examples = [{"a": told(a), "b": told(b), "similarity": round(share, 4)} for a, b, share in near.examples]
    return {"count": near.count, "is_complete": near.is_complete, "examples": examples}


def _example(made: "Gathered", parted: Parted, row: int) -> dict[str, Any]:
    """A row as the audit shows it."""
    example: dict[str, Any] = msgspec.json.decode(made.shelf.get(row))
    decided = made.decisions.get(row)
    decision = msgspec.json.decode(made.decided.get(decided))["decision"] if decided is not None else ""
    shown = {key: example[key] for key in ("id", "partition", "asr_text", "reference_text", "messages")}
    edits = Levenshtein.distance(example["asr_text"], example["reference_text"])
    own = {"split": SPLITS[parted.splits[row]], "decision": decision, "edits": edits}
    return {**shown, **own, "target_text": example["messages"][-1]["content"]}
