"""Builds a dataset: ChatML rows without duplicates or leaks, split by group, with a manifest and an audit.

Input: the sources and prompt templates of a `config.dataset.Dataset`.
Output: the files of core.paths.DATA: splits sorted by id, decisions.jsonl, dropped.jsonl, audit.json, manifest.json.
Rows stream through: memory holds a few bytes of each, and their lines wait on disk (collect.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_some
from thunder_train.config.dataset import Dataset, Source
from thunder_train.core import files, shipped
from thunder_train.data import given_splits, kinds, near_duplicates, parallel, sources, spelling, splits
from thunder_train.data.collect import Collected, LineSpool, Watch
from thunder_train.data.given_splits import Plan
from thunder_train.data.near_duplicates import NearDuplicates
from thunder_train.data.rows import Dropped, Ledger
from thunder_train.data.splits import SPLITS, TEST, TRAIN, VALID, Assignment

SCHEMA = "thunder.dataset/3"
FIRST_NAMED = 3
"""Dropped rows, or ids of several rows, that an error about them names."""
Audit = Callable[[Collected, Assignment, NearDuplicates, dict[str, Any]], str]
"""Collected rows, their splits, near-duplicates, manifest -> what the audit page shows.

Handed in, so that a change of the page does not change the code hash of the rows.
"""


def build(
    dataset: Dataset,
    root: Path,
    out: Path,
    code: str,
    audit: Audit,
    watch: Watch = iter,
    places: Mapping[Source, sources.Place] | None = None,
) -> dict[str, Any]:
    """Write the dataset's files into out and return its manifest. code: a hash of the code that decides the rows.

    places: where the files of each source lie; below root if not given.
    Nothing is written if there is a leak, a repeated id, too many dropped rows, or no row in train or a wanted valid.
    """
    with LineSpool(out) as lines, LineSpool(out) as decision_lines:
        collected = Collected(dataset, root, lines, decision_lines, places)
        parallel.read(collected, watch)
        plan = given_splits.plan(collected.columns, dataset)
        assigned, moves = given_splits.filled(plan, lambda rows: _assigned(collected, rows, plan))
        collected.rename(assigned.new_ids)
        for row, reason in assigned.reasons.items():
            partner = assigned.partners.get(row)
            also_at = "" if partner is None else _at(collected, partner)
            collected.ledger.drop(*collected.place(row), reason, also_at)
        raise_some(_problems(collected, plan, assigned))
        _write_rows(collected, assigned, out)
        near = _near_duplicates(collected, assigned)
        manifest = _manifest(collected, assigned, out, near, code)
        manifest["split"] |= _split_facts(plan, assigned, moves)
        notes = [*plan.notes, *moves, *_notes(collected, plan, assigned)]
        manifest |= {name: value for name, value in _remarks(collected, notes).items() if value}
        files.write_text(out / "audit.json", audit(collected, assigned, near, manifest))
    files.write_json(out / "manifest.json", manifest)
    return manifest


def _assigned(collected: Collected, rows: "splits.Numbers", plan: Plan) -> Assignment:
    """rows: (n,) the split of each."""
    return splits.assign(collected.ids, rows, collected.contents, collected.keys, plan.given, collected.unfit)


def _at(collected: Collected, row: int) -> str:
    """data/rows.jsonl:12."""
    file, line, _ = collected.place(row)
    return f"{files.portable(file)}:{line}"


def _write_rows(collected: Collected, assigned: Assignment, out: Path) -> None:
    """The splits, decisions.jsonl and dropped.jsonl."""
    order = assigned.order
    for index, name in enumerate(SPLITS):
        rows = order[assigned.rows(index)[order]].tolist()
        files.write_lines(out / f"{name}.jsonl", map(collected.line, rows))
    files.write_lines(out / "decisions.jsonl", _decision_lines(collected, assigned))
    files.write_lines(out / "dropped.jsonl", map(_dropped_line, sorted(collected.ledger.dropped)))


def _decision_lines(collected: Collected, assigned: Assignment) -> Iterator[bytes]:
    """decisions.jsonl, sorted by id."""
    for row in assigned.order[assigned.kept[assigned.order]].tolist():
        decision = collected.decision(row, is_test=bool(assigned.splits[row] == TEST))
        if decision is not None:
            yield files.json_line(decision).encode()


def _dropped_line(dropped: Dropped) -> bytes:
    row = {"file": files.portable(dropped.file), "line": dropped.line, "id": dropped.row_id, "reason": dropped.reason}
    return files.json_line(row | ({"also_at": dropped.also_at} if dropped.also_at else {})).encode()


def _near_duplicates(collected: Collected, assigned: Assignment) -> NearDuplicates:
    """Near-duplicates between splits. Texts are numbered by id, so that the order of the input decides nothing."""
    collected.sketch.sort(assigned.order)
    rows = assigned.order.tolist()
    near = near_duplicates.pairs(
        collected.sketch, assigned.kept_splits()[assigned.order], lambda number: collected.text(rows[number])
    )
    examples = [(rows[one], rows[other], similarity) for one, other, similarity in near.examples]
    return replace(near, examples=examples)


def _problems(collected: Collected, plan: Plan, assigned: Assignment) -> list[ThunderError]:
    """Everything for which the dataset is refused. Where no row is left, only why they were dropped."""
    where, kept = f"thunder.toml: datasets.{collected.dataset.name}", int(assigned.kept.sum())
    too_many = _too_many_dropped(collected.ledger, kept, collected.dataset.max_dropped, f"{where}.max_dropped")
    if not kept:
        return [*collected.composer.problems, *too_many]
    problems = _repeated(splits.repeated_ids(collected.ids, assigned), f"{where}.sources")
    problems += [*plan.problems, *collected.composer.problems]
    if table := collected.composer.table:
        for source, texts in sorted(collected.composer.spelling.items()):
            problems += spelling.contradictions(texts, table, f"{where}.orthography: source {source}")
    is_given = 'rows were given to valid and test: add others, or set split = "train" or "divide" in a source'
    hints = {TRAIN: is_given if plan.given.any() else "add rows of another group"}
    hints[VALID] = "add rows of another group, or set valid = 0: then there is no best adapter and no early stopping"
    for split, hint in hints.items():
        if split in plan.shares and not assigned.rows(split).any():
            what = f"no row of {kept} fell into the {SPLITS[split]} split"
            problems.append(ThunderError(what, f"{where}.valid", hint))
    return problems + too_many


def _repeated(count_of: Mapping[str, int], where: str) -> list[ThunderError]:
    """One problem for all ids that several rows have. count_of: id -> its rows."""
    if not count_of:
        return []
    shown = ", ".join(map(repr, [*count_of][:FIRST_NAMED]))
    more = f" and {len(count_of) - FIRST_NAMED:,} more ids" if len(count_of) > FIRST_NAMED else ""
    hint = "give each row its own id and each source its own file name"
    return [ThunderError(f"{sum(count_of.values()):,} rows are called {shown}{more}", where, hint)]


def left_out(manifest: dict[str, Any]) -> Iterator[str]:
    """What rows and fields are not used, a sentence each."""
    if dropped := manifest["dropped"]:
        rows = counted(sum(dropped.values()), "row")
        yield f"dropped: {rows} ({_listed(dropped)}); dropped.jsonl names each"
    if unused := manifest.get("unused_fields"):
        frequent = sorted(unused, key=lambda name: (-unused[name], name))
        yield f"fields that are not used: {kinds.shown(frequent, ', ')}"


def _listed(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {count:,}" for reason, count in sorted(reasons.items()))


def _too_many_dropped(ledger: Ledger, kept: int, most: float, where: str) -> list[ThunderError]:
    """most: share of all rows that may be dropped."""
    dropped = len(ledger.dropped)
    if kept and dropped <= most * (dropped + kept):
        return []
    reasons, allowed = _listed(ledger.reasons()), f", and at most {most:.0%} may be" if kept else ""
    what = f"{dropped} of {dropped + kept} rows were dropped ({reasons}){allowed}"
    first = ", ".join(f"{each.file}:{each.line}" for each in ledger.dropped[:FIRST_NAMED])
    return [ThunderError(what, where, f"correct them{', or raise it' if kept else ''}; the first: {first}")]


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
        "templates": [_file(path, shipped.root_of(path, root)) for path in dataset.templates],
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
        **_near_facts(near),
    }


def _near_facts(near: NearDuplicates) -> dict[str, Any]:
    """Pairs of nearly equal texts in different splits: all, and those that make a test row easy."""
    train_and_test = near.between.get((TRAIN, TEST), 0)
    return {"near_duplicates": near.count, "near_duplicates_of_train_and_test": train_and_test}


def _split_facts(plan: Plan, assigned: Assignment, moves: list[str]) -> dict[str, Any]:
    """What the manifest says of rows that are in a split for another reason than their hash."""
    facts: dict[str, Any] = {"rule": "; ".join([splits.RULE, *moves])}
    is_given = assigned.kept & (plan.given | (plan.spare & assigned.rows(TRAIN)))
    if is_given.any():
        facts["given"] = {name: int((is_given & assigned.rows(index)).sum()) for index, name in enumerate(SPLITS)}
    return facts


def _notes(collected: Collected, plan: Plan, assigned: Assignment) -> list[str]:
    """What a person should know of the dataset besides its figures, a sentence each."""
    notes = [f"{what} ({counted(count, 'row')})" for what, count in sorted(collected.ledger.notes.items())]
    if leaks := sum(bool(plan.given[other]) for other in assigned.partners.values()):
        is_one = "was" if leaks == 1 else "were"
        notes.append(
            f"{counted(leaks, 'row')} that a given split has too {is_one} dropped; dropped.jsonl names both places"
        )
    shared = Counter(key for key, _ in assigned.overlaps.values())
    for key, count in sorted(shared.items()):
        row, other = next((row, other) for row, (each, other) in assigned.overlaps.items() if each == key)
        notes.append(
            f"{counted(count, 'row')} given to valid {'has' if count == 1 else 'have'} the {key} of rows given to test "
            f"and stay{'s' if count == 1 else ''}; the first: {_at(collected, row)} and {_at(collected, other)}"
        )
    if assigned.new_ids:
        ids = counted(len(assigned.new_ids), "id")
        notes.append(f"equal rows inside a given split stay: {ids} got #2, #3 or higher at the end")
    if not assigned.rows(VALID).any():
        notes.append("valid has no row: there is no best adapter and no early stopping")
    if not assigned.rows(TEST).any():
        notes.append("test has no row: nothing is scored")
    return notes


def _remarks(collected: Collected, notes: list[str]) -> dict[str, Any]:
    """Members of the manifest that are there only if they hold something."""
    unused: Counter[str] = sum(collected.ledger.unused.values(), Counter())
    texts = collected.composer.spelling
    return {
        "notes": notes,
        "unused_fields": {name: unused[name] for name in sorted(unused)},
        "invisible_characters": {
            source: {
                spelling.described(each): texts[source].invisible[each] for each in sorted(texts[source].invisible)
            }
            for source in sorted(texts)
            if texts[source].invisible
        },
    }


def counted(count: int, what: str) -> str:
    """1 row, 1,200 rows."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _source(source: Source, collected: Collected) -> dict[str, Any]:
    """One source as declared, and its files as read."""
    place = collected.places[source]
    read = [
        {
            "path": files.portable_below(source.path, path),
            "sha256": files.sha256(place.folder / path),
            "rows": collected.ledger.rows_read.get(path, 0),
        }
        for path in sources.files(source, place.folder)
    ]
    declared = {"kind": source.kind, "evidence_kind": source.evidence_kind, "path": files.portable(source.path)}
    return {**declared, **place.declared(source), "files": read}


def _file(path: str, root: Path) -> dict[str, Any]:
    return {"path": files.portable(path), "sha256": files.sha256(root / path)}
