"""audit.html, the page on which people read what is in a dataset, from templates/audit.html.j2.

Input: the collected rows, their splits, near-duplicates and the manifest of a dataset.  Output: the page.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from rapidfuzz.distance import Levenshtein

from thunder_train import ThunderError
from thunder_train.core import files, html, paths
from thunder_train.data import spelling
from thunder_train.data.collect import Collected
from thunder_train.data.near_duplicates import NearDuplicates
from thunder_train.data.splits import SPLITS, Assignment

EXAMPLES = 5
"""Dropped rows that the page names for each reason."""
MESSAGES, TOOLS = 40, 20
"""Most messages and tools of one row that the page shows; it says how many it leaves out."""
WORDS = 100
"""Most lines of a table; of more, the most frequent, and the sum of the others."""
STRAYS = 100
"""Most stray letters that the page lists."""
LINED = (".jsonl", ".csv", ".tsv", ".txt")
"""Files whose rows are lines, so that a link can name one."""


def build(collected: Collected, assigned: Assignment, near: NearDuplicates, manifest: dict[str, Any]) -> str:
    """What the page of a dataset shows, as JSON: rows and figures, and no markup."""
    shown = facts(collected, assigned, near, manifest)
    return json.dumps(shown, ensure_ascii=False, allow_nan=False) + "\n"  # in the order of the page


def render(folder: Path) -> None:
    """audit.json of a dataset's folder -> audit.html. Raises ThunderError for a template that does not render."""
    try:
        text = page(files.read_json(folder / paths.AUDITED))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "remove the run cache, or give thunder.toml another, and run doit again"
        raise ThunderError(f"is no audit ({error!r})", str(folder / paths.AUDITED), hint) from None
    files.write_text(folder / paths.AUDIT, text)


def facts(collected: Collected, assigned: Assignment, near: NearDuplicates, manifest: dict[str, Any]) -> dict[str, Any]:
    """Figures and example rows, as JSON-like values. manifest: that of the dataset, whose figures the page repeats."""
    return {
        "dataset": collected.dataset.name,
        "orthography": collected.dataset.orthography,
        "notes": manifest.get("notes", []),
        "splits": manifest["splits"],
        "given": manifest["split"].get("given", {}),
        "unused_fields": manifest.get("unused_fields", {}),
        "invisible_characters": manifest.get("invisible_characters", {}),
        "stray_letters": _stray_letters(collected),
        "counts": collected.statistics.counts(assigned),
        "histograms": collected.statistics.histograms(assigned),
        "cer": {name: split["cer"] for name, split in manifest["splits"].items()},
        "dropped": manifest["dropped"],
        "dropped_examples": _dropped(collected),
        "orthography_findings": _findings(collected),
        "near_duplicates": _near(collected, assigned, near),
        "examples": [_example(collected, assigned, row) for row in collected.statistics.typical_rows(assigned)],
    }


def page(facts: dict[str, Any], template: Path = Path("templates/audit.html.j2")) -> str:
    """The page, the same text for the same facts."""
    return html.page(template, _values(facts))


def _dropped(collected: Collected) -> dict[str, list[dict[str, Any]]]:
    """The first few dropped rows of each reason. href: from the folder of the page to the row's file, "" for none."""
    examples: dict[str, list[dict[str, Any]]] = {}
    up = "../" * len(Path(paths.dataset(collected.dataset.name)).parts)
    for row in sorted(collected.ledger.dropped):
        listed = examples.setdefault(row.reason, [])
        if len(listed) < EXAMPLES:
            line = f"#L{row.line}" if row.file.endswith(LINED) else ""
            href = f"{up}{quote(row.file)}{line}" if files.is_inside(row.file) else ""
            place = {"file": files.portable(row.file), "line": row.line, "id": row.row_id}
            listed.append(place | {"also_at": row.also_at, "href": href})
    return examples


def _stray_letters(collected: Collected) -> list[dict[str, Any]]:
    """Letters that the orthography does not list, by source, the most frequent first."""
    listed = [
        {"source": source, "letter": letter, "name": spelling.described(letter)} | asdict(stray)
        for source, texts in sorted(collected.composer.spelling.items())
        for letter, stray in texts.stray_letters.items()
    ]
    return sorted(listed, key=lambda row: (-row["dropped"], -row["used"], row["source"], row["letter"]))[:STRAYS]


def _findings(collected: Collected) -> list[dict[str, Any]]:
    """What the spelling checks counted without refusing it, over all sources."""
    counts: dict[str, int] = {}
    for each in collected.composer.spelling.values():
        for finding in spelling.findings(each):
            counts[str(finding["what"])] = counts.get(str(finding["what"]), 0) + int(finding["count"])
    return [{"what": what, "count": count} for what, count in sorted(counts.items())]


def _near(collected: Collected, assigned: Assignment, near: NearDuplicates) -> dict[str, Any]:
    """Rows of different splits whose texts are nearly the same."""

    def side(row: int) -> dict[str, str]:
        return {"id": collected.ids[row], "split": SPLITS[assigned.splits[row]], "text": collected.text(row)}

    examples = [{"a": side(a), "b": side(b), "similarity": round(share, 4)} for a, b, share in near.examples]
    return {"count": near.count, "is_complete": near.is_complete, "examples": examples}


def _example(collected: Collected, assigned: Assignment, row: int) -> dict[str, Any]:
    """A row as the page shows it."""
    example: dict[str, Any] = msgspec.json.decode(collected.line(row))
    decision = collected.decision(row, is_test=True) or {"decision": ""}
    messages, tools = example["messages"], example.get("tools", [])
    answer = example.get("text", messages[-1]["content"] if messages else "")
    return {
        **{key: example[key] for key in ("id", "partition", "asr_text", "reference_text")},
        "messages": [_message(each) for each in messages[:MESSAGES]],
        "more_messages": max(0, len(messages) - MESSAGES),
        "tools": tools[:TOOLS],
        "more_tools": max(0, len(tools) - TOOLS),
        "is_text": "text" in example,
        "is_silent": example.get("silent", False),
        "split": SPLITS[assigned.splits[row]],
        "decision": decision["decision"],
        "edits": Levenshtein.distance(example["asr_text"], example["reference_text"]),
        "target_text": answer,
    }


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message with all members that the page asks for."""
    calls = [
        {"name": call["function"]["name"], "arguments": call["function"]["arguments"], "id": call.get("id", "")}
        for call in message.get("tool_calls", ())
    ]
    names = {name: message.get(name, "") for name in ("role", "content", "name", "tool_call_id")}
    return names | {"calls": calls, "is_trained": message.get("weight", 1) != 0}


def _values(facts: dict[str, Any]) -> dict[str, Any]:
    """What the template reads: every table sorted and summed."""
    splits = _in_order(facts["splits"])
    rows = {name: facts["splits"][name]["rows"] for name in splits}
    total = sum(rows.values())
    return {
        "dataset": facts["dataset"],
        "orthography": facts["orthography"],
        "notes": facts["notes"],
        "given": facts["given"],
        "unused_fields": _table({name: {"": count} for name, count in facts["unused_fields"].items()}, [""]),
        "invisible_characters": _by_source(facts["invisible_characters"]),
        "stray_letters": facts["stray_letters"],
        "total": total,
        "split_names": splits,
        "splits": [
            (name, rows[name], _share(rows[name], total), facts["splits"][name]["characters"], facts["cer"].get(name))
            for name in splits
        ],
        "has_cer": any(rate is not None for rate in facts["cer"].values()),
        "counts": [
            (title.replace("_", " "), _table(table, splits))
            for title, table in facts["counts"].items()
            if set(table) != {""}  # no row says anything
        ],
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


def _by_source(counts: dict[str, dict[str, int]]) -> list[tuple[str, str, int]]:
    """source, name, count."""
    return [(source, name, each[name]) for source, each in sorted(counts.items()) for name in sorted(each)]


def _in_order(names: Iterable[str]) -> list[str]:
    """train, valid, test, then any other by name."""
    unordered = set(names)
    return [name for name in SPLITS if name in unordered] + sorted(unordered - set(SPLITS))


def _table(table: dict[str, dict[str, int]], splits: list[str]) -> list[tuple[str, list[int], int]]:
    """name, rows in each split, rows in all."""
    counts = [(name, [table[name].get(split, 0) for split in splits]) for name in sorted(table)]
    lines = [(name, each, sum(each)) for name, each in counts]
    if len(lines) <= WORDS:
        return lines
    frequent = {name for name, *_ in sorted(lines, key=lambda line: -line[2])[:WORDS]}
    others = [line for line in lines if line[0] not in frequent]
    sums = [sum(each) for each in zip(*(each for _, each, _ in others), strict=True)]
    return [*(line for line in lines if line[0] in frequent), (f"{len(others):,} others", sums, sum(sums))]


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
