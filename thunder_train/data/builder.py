"""Builds a dataset: ChatML rows without duplicates or leaks, split by group, with a manifest and an audit.

Input: the sources and prompt templates of a `config.dataset.Dataset`.
Output: the files of core.paths.DATA: splits sorted by id, decisions.jsonl, dropped.jsonl, audit.json, manifest.json.
Rows stream through: memory holds a few bytes of each, and their lines wait on disk (collect.py).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_some
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core import files
from thunder_train.data import near_duplicates, spelling, splits
from thunder_train.data.collect import Collected, LineSpool, Watch
from thunder_train.data.near_duplicates import NearDuplicates
from thunder_train.data.rows import Dropped, Ledger
from thunder_train.data.splits import SPLITS, Assignment

SCHEMA = "thunder.dataset/2"
FIRST_DROPPED = 3
"""Dropped rows that an error about too many of them names."""
Audit = Callable[[Collected, Assignment, NearDuplicates, dict[str, Any]], str]
"""Collected rows, their splits, near-duplicates, manifest -> what the audit page shows.

Handed in, so that a change of the page does not change the code hash of the rows.
"""


def build(dataset: Dataset, root: Path, out: Path, code: str, audit: Audit, watch: Watch = iter) -> dict[str, Any]:
    """Write the dataset's files into out and return its manifest. code: a hash of the code that decides the rows.

    Nothing is written if there is a leak, a repeated id, too many dropped rows, or no row in train or valid.
    """
    with LineSpool(out) as lines, LineSpool(out) as decision_lines:
        collected = Collected(dataset, root, lines, decision_lines, watch)
        assigned = splits.assign(collected.ids, collected.splits, collected.contents, collected.keys)
        for row, reason in assigned.reasons.items():
            collected.ledger.drop(*collected.place(row), reason)
        raise_some(_problems(collected, assigned))
        _write_rows(collected, assigned, out)
        near = _near_duplicates(collected, assigned)
        manifest = _manifest(collected, assigned, out, near, code)
        files.write_text(out / "audit.json", audit(collected, assigned, near, manifest))
    files.write_json(out / "manifest.json", manifest)
    return manifest


def _write_rows(collected: Collected, assigned: Assignment, out: Path) -> None:
    """The splits, decisions.jsonl and dropped.jsonl."""
    order = assigned.order
    for index, name in enumerate(SPLITS):
        rows = order[assigned.rows(index)[order]].tolist()
        files.write_lines(out / f"{name}.jsonl", map(collected.lines.read, rows))
    decisions = (collected.decisions[row] for row in order[assigned.kept[order]].tolist() if row in collected.decisions)
    files.write_lines(out / "decisions.jsonl", map(collected.decision_lines.read, decisions))
    files.write_lines(out / "dropped.jsonl", map(_dropped_line, sorted(collected.ledger.dropped)))


def _dropped_line(dropped: Dropped) -> bytes:
    row = {"file": files.portable(dropped.file), "line": dropped.line, "id": dropped.row_id, "reason": dropped.reason}
    return files.json_line(row).encode()


def _near_duplicates(collected: Collected, assigned: Assignment) -> NearDuplicates:
    """Near-duplicates between splits. Texts are numbered by id, so that the order of the input decides nothing."""
    collected.sketch.sort(assigned.order)
    rows = assigned.order.tolist()
    near = near_duplicates.pairs(
        collected.sketch, assigned.kept_splits()[assigned.order], lambda number: collected.text(rows[number])
    )
    examples = [(rows[one], rows[other], similarity) for one, other, similarity in near.examples]
    return replace(near, examples=examples)


def _problems(collected: Collected, assigned: Assignment) -> list[ThunderError]:
    """Everything for which the dataset is refused."""
    where, kept = f"thunder.toml: datasets.{collected.dataset.name}", int(assigned.kept.sum())
    hint = "give each row its own id and each source its own file name"
    problems = [
        ThunderError(f"{count} rows are called {name!r}", f"{where}.sources", hint)
        for name, count in splits.repeated_ids(collected.ids, assigned).items()
    ]
    problems += collected.composer.problems
    if table := collected.composer.table:
        for source, texts in sorted(collected.composer.spelling.items()):
            problems += spelling.contradictions(texts, table, f"{where}.orthography: source {source}")
    for index, name in enumerate(SPLITS[:2]):
        if not assigned.rows(index).any():
            hint = "add rows, or change valid, test or split_seed"
            problems.append(ThunderError(f"no row of {kept} fell into the {name} split", f"{where}.valid", hint))
    return problems + _too_many_dropped(collected.ledger, kept, collected.dataset.max_dropped, f"{where}.max_dropped")


def _too_many_dropped(ledger: Ledger, kept: int, most: float, where: str) -> list[ThunderError]:
    """most: share of all rows that may be dropped."""
    dropped = len(ledger.dropped)
    if dropped <= most * (dropped + kept):
        return []
    reasons = "; ".join(f"{reason}: {count}" for reason, count in sorted(ledger.reasons().items()))
    what = f"{dropped} of {dropped + kept} rows were dropped ({reasons}), and at most {most:.0%} may be"
    first = ", ".join(f"{each.file}:{each.line}" for each in ledger.dropped[:FIRST_DROPPED])
    return [ThunderError(what, where, f"correct them, or raise it; the first: {first}")]


def _manifest(collected: Collected, assigned: Assignment, out: Path, near: NearDuplicates, code: str) -> dict[str, Any]:
    """What the dataset was built from and what is in it: no times, no absolute paths."""
    dataset, root, statistics = collected.dataset, collected.root, collected.statistics
    counts = {
        kind: {word: sum(by_split.values()) for word, by_split in words.items()}
        for kind, words in statistics.counts(assigned).items()
    }
    rates = statistics.error_rates(assigned)
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "builder": {"module": __name__, "code": code},
        "sources": [_source(source, collected) for source in dataset.sources],
        "templates": [_file(path, root) for path in dataset.templates],
        "system": dataset.system,
        "orthography": dataset.orthography,
        "provenance": dataset.provenance,
        "split": {
            "seed": dataset.split_seed,
            "valid": dataset.valid,
            "test": dataset.test,
            "group_keys": list(dataset.group_keys),
            "rule": splits.RULE,
        },
        "splits": {
            name: {
                "rows": int(assigned.rows(index).sum()),
                "sha256": files.sha256(out / f"{name}.jsonl"),
                "characters": statistics.characters(assigned, index),
                "cer": rates[name],
            }
            for index, name in enumerate(SPLITS)
        },
        "evidence_kinds": sorted(counts["evidence_kind"]),
        "partitions": counts["partition"],
        "decisions": {word: count for word, count in counts["decision"].items() if word},
        "reason_codes": statistics.codes(assigned),
        "dropped": collected.ledger.reasons(),
        "near_duplicates": near.count,
    }


def _source(source: Source, collected: Collected) -> dict[str, Any]:
    """One source as declared, and its files as read."""
    read = [
        {**_file(path, collected.root), "rows": collected.ledger.rows_read.get(path, 0)}
        for pattern in (source.path, source.references)
        for path in files.expand(pattern, collected.root)
    ]
    declared = {"kind": source.kind, "evidence_kind": source.evidence_kind, "path": files.portable(source.path)}
    return {**declared, "files": read}


def _file(path: str, root: Path) -> dict[str, Any]:
    return {"path": files.portable(path), "sha256": files.sha256(root / path)}
