"""Rows -> ChatML that is free of duplicates and leaks, split by group, with a manifest and an audit.

Input: the sources and the prompt templates of a `config.Dataset`.
Output: layout.DATA: the splits sorted by id, decisions.jsonl, dropped.jsonl, the audit pages, then manifest.json.
Rows stream through: memory holds a few bytes of each, and the lines wait on disk (shelf.py).
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_some
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core import code_hash, files, paths
from thunder_train.data import (
    asr_rows,
    audit,
    correction_reports,
    field_map,
    formats,
    near_duplicates,
    orthography,
    readers,
    rows,
    sources,
    splits,
)
from thunder_train.data import examples as compose
from thunder_train.data.collect import Gathered, Shelf, Watch
from thunder_train.data.near_duplicates import Neighbours
from thunder_train.data.rows import Dropped, Ledger
from thunder_train.data.splits import SPLITS, Parted

SCHEMA = "thunder.dataset/2"
BUILDERS = (
    rows,
    formats,
    formats,
    formats,
    readers,
    field_map,
    asr_rows,
    correction_reports,
    sources,
    orthography,
    orthography,
    compose,
    splits,
    sys.modules[__name__],
)
"""The modules that decide what a row says."""
TOLD = 3
"""Dropped rows of each reason that an error about too many of them tells."""


def build(dataset: Dataset, root: Path, out: Path, watch: Watch = iter) -> dict[str, Any]:
    """Write the dataset's files into out and return its manifest. watch: sees each row pass.

    Nothing is written unless everything holds: no leak, unique ids, rows in train and valid, few rows dropped.
    """
    with Shelf(out) as shelf, Shelf(out) as decided:
        made = Gathered(dataset, root, shelf, decided, watch)
        parted = splits.part(made.ids, made.splits, made.contents, made.keys)
        for number, reason in parted.reasons.items():
            made.ledger.drop(*made.place(number), reason)
        raise_some(_problems(made, parted))
        for index, name in enumerate(SPLITS):
            mine = parted.kept & (parted.splits == index)
            files.write_lines(
                out / f"{name}.jsonl", (shelf.get(row) for row in parted.order[mine[parted.order]].tolist())
            )
        told = (made.decisions[row] for row in parted.order.tolist() if row in made.decisions and parted.kept[row])
        files.write_lines(out / "decisions.jsonl", map(decided.get, told))
        files.write_lines(out / "dropped.jsonl", map(_dropped_line, sorted(made.ledger.dropped)))
        near = _near(made, parted)
        manifest = _manifest(made, parted, out, near)
        files.write_text(out / paths.AUDIT, audit.page(audit.facts(made, parted, near, manifest)))
    files.write_json(out / "manifest.json", manifest)
    return manifest


def _near(made: Gathered, parted: Parted) -> Neighbours:
    """Near-duplicates between splits. Texts are numbered by id, so that the order of the input decides nothing."""
    made.sketch.sort(parted.order)
    rows = parted.order.tolist()
    found = near_duplicates.pairs(made.sketch, parted.placed()[parted.order], lambda number: made.text(rows[number]))
    examples = [(rows[one], rows[other], share) for one, other, share in found.examples]
    return replace(found, examples=examples)


def _dropped_line(dropped: Dropped) -> bytes:
    told = {"file": files.portable(dropped.file), "line": dropped.line, "id": dropped.row_id, "reason": dropped.reason}
    return files.json_line(told).encode()


def _problems(made: Gathered, parted: Parted) -> list[ThunderError]:
    """Everything for which the dataset is refused."""
    where, kept = f"thunder.toml: datasets.{made.dataset.name}", int(parted.kept.sum())
    hint = "give each row its own id and each source its own file name"
    problems = [
        ThunderError(f"{count} rows are called {name!r}", f"{where}.sources", hint)
        for name, count in splits.repeated(made.ids, parted).items()
    ]
    problems += made.composer.problems
    if table := made.composer.table:
        for source, census in sorted(made.composer.census.items()):
            problems += orthography.verdict(census, table, f"{where}.orthography: source {source}")
    for index, name in enumerate(SPLITS[:2]):
        if not (parted.kept & (parted.splits == index)).any():
            hint = "add rows, or change valid, test or split_seed"
            problems.append(ThunderError(f"no row of {kept} fell into the {name} split", f"{where}.valid", hint))
    lost = len(made.ledger.dropped)
    if lost > made.dataset.max_dropped * (lost + kept):
        reasons = "; ".join(f"{reason}: {count}" for reason, count in sorted(made.ledger.reasons().items()))
        what = (
            f"{lost} of {lost + kept} rows were dropped ({reasons}), and at most {made.dataset.max_dropped:.0%} may be"
        )
        hint = f"mend them, or raise it; the first: {_examples_of(made.ledger)}"
        problems.append(ThunderError(what, f"{where}.max_dropped", hint))
    return problems


def _examples_of(ledger: Ledger) -> str:
    return ", ".join(f"{each.file}:{each.line}" for each in ledger.dropped[:TOLD])


def _manifest(made: Gathered, parted: Parted, out: Path, near: Neighbours) -> dict[str, Any]:
    """What made the dataset and what is in it: no times, no absolute paths."""
    dataset, root = made.dataset, made.root
    counts = {
        kind: {word: sum(each.values()) for word, each in words.items()}
        for kind, words in made.tally.counts(parted).items()
    }
    rates = made.tally.error_rates(parted)
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "builder": {"module": __name__, "code": _code()},
        "sources": [_source(source, made) for source in dataset.sources],
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
                "rows": int((parted.kept & (parted.splits == index)).sum()),
                "sha256": files.sha256(out / f"{name}.jsonl"),
                "characters": made.tally.characters(parted, index),
                "cer": rates[name],
            }
            for index, name in enumerate(SPLITS)
        },
        "evidence_kinds": sorted(counts["evidence_kind"]),
        "partitions": counts["partition"],
        "decisions": {word: count for word, count in counts["decision"].items() if word},
        "reason_codes": made.tally.codes(parted),
        "dropped": made.ledger.reasons(),
        "near_duplicates": near.count,
    }


def _code() -> str:
    """One digest of the code that decides what a row says."""
    return files.digest([code_hash.code_digest(Path(module.__file__ or "")) for module in BUILDERS])


def _source(source: Source, made: Gathered) -> dict[str, Any]:
    """One source as declared, and its files as read."""
    found = [
        {**_file(path, made.root), "rows": made.ledger.rows_read.get(path, 0)}
        for pattern in (source.path, source.references)
        for path in files.expand(pattern, made.root)
    ]
    told = {"kind": source.kind, "evidence_kind": source.evidence_kind, "path": files.portable(source.path)}
    return {**told, "files": found}


def _file(path: str, root: Path) -> dict[str, Any]:
    return {"path": files.portable(path), "sha256": files.sha256(root / path)}
