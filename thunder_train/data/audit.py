"""audit.html, the page on which people read what is in a dataset, from templates/audit.html.j2.

Input: the collected rows, their splits, near-duplicates and the manifest.  Output: `facts`, JSON-like values; `page`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rapidfuzz.distance import Levenshtein

from thunder_train.core import files, html
from thunder_train.data import orthography
from thunder_train.data.near_duplicates import Neighbours
from thunder_train.data.splits import SPLITS, Parted

if TYPE_CHECKING:
    from thunder_train.data.collect import Gathered

EXAMPLES = 5
"""Dropped rows that the page names for each reason."""


def facts(made: "Gathered", parted: Parted, near: Neighbours, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the page says. near: pairs of different splits; manifest: that of the dataset, whose figures it repeats."""
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


def page(facts: dict[str, Any], template: Path = Path("templates/audit.html.j2")) -> str:
    """The page, the same text for the same facts. Raises ThunderError for a template that does not render."""
    return html.page(template, _values(facts))


def _dropped(made: "Gathered") -> dict[str, list[dict[str, Any]]]:
    """The first few dropped rows of each reason."""
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(made.ledger.dropped):
        listed = examples.setdefault(row.reason, [])
        if len(listed) < EXAMPLES:
            listed.append({"file": files.portable(row.file), "line": row.line, "id": row.row_id})
    return examples


def _findings(made: "Gathered") -> list[dict[str, Any]]:
    """What the spelling checks counted without refusing it, over all sources."""
    counts: dict[str, int] = {}
    for census in made.composer.census.values():
        for finding in orthography.findings(census):
            counts[str(finding["what"])] = counts.get(str(finding["what"]), 0) + int(finding["count"])
    return [{"what": what, "count": count} for what, count in sorted(counts.items())]


def _near(made: "Gathered", parted: Parted, near: Neighbours) -> dict[str, Any]:
    """Rows of different splits whose texts are nearly the same."""

    def side(row: int) -> dict[str, str]:
        return {"id": made.ids[row], "split": SPLITS[parted.splits[row]], "text": made.text(row)}

    examples = [{"a": side(a), "b": side(b), "similarity": round(share, 4)} for a, b, share in near.examples]
    return {"count": near.count, "is_complete": near.is_complete, "examples": examples}


def _example(made: "Gathered", parted: Parted, row: int) -> dict[str, Any]:
    """A row as the page shows it."""
    example: dict[str, Any] = msgspec.json.decode(made.shelf.get(row))
    decided = made.decisions.get(row)
    return {
        **{key: example[key] for key in ("id", "partition", "asr_text", "reference_text", "messages")},
        "split": SPLITS[parted.splits[row]],
        "decision": msgspec.json.decode(made.decided.get(decided))["decision"] if decided is not None else "",
        "edits": Levenshtein.distance(example["asr_text"], example["reference_text"]),
        "target_text": example["messages"][-1]["content"],
    }


def _values(facts: dict[str, Any]) -> dict[str, Any]:
    """What the template reads: every table sorted and summed."""
    splits = _in_order(facts["splits"])
    rows = {name: facts["splits"][name]["rows"] for name in splits}
    total = sum(rows.values())
    return {
        "dataset": facts["dataset"],
        "orthography": facts["orthography"],
        "total": total,
        "split_names": splits,
        "splits": [
            (name, rows[name], _share(rows[name], total), facts["splits"][name]["characters"], facts["cer"].get(name))
            for name in splits
        ],
        "counts": [(title.replace("_", " "), _table(table, splits)) for title, table in facts["counts"].items()],
        "histograms": [(title, _bars(bins)) for title, bins in facts["histograms"].items()],
        "dropped": [
            (reason, count, facts["dropped_examples"].get(reason, []))
            for reason, count in sorted(facts["dropped"].items(), key=lambda item: (-item[1], item[0]))
        ],
        "dropped_total": sum(facts["dropped"].values()),
        "findings": facts["orthography_findings"],
        "near": facts["near_duplicates"],
        "examples": facts["examples"],
        "longest": html.LONGEST,
    }


def _in_order(names: Iterable[str]) -> list[str]:
    """train, valid, test, then any other by name."""
    unordered = set(names)
    return [name for name in SPLITS if name in unordered] + sorted(unordered - set(SPLITS))


def _table(table: dict[str, dict[str, int]], splits: list[str]) -> list[tuple[str, list[int], int]]:
    """name, rows in each split, rows in all."""
    counts = [(name, [table[name].get(split, 0) for split in splits]) for name in sorted(table)]
    return [(name, each, sum(each)) for name, each in counts]


def _bars(bins: list[list[float]]) -> list[tuple[str, int, float]]:
    """label, count, and width in percent of the longest bar."""
    most = max((int(count) for _, _, count in bins), default=0) or 1
    bars = []
    for low, high, count in bins:
        label = html.number(low) if low == high else f"{html.number(low)} to {html.number(high)}"
        bars.append((label, int(count), round(100 * count / most, 2)))
    return bars


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""
