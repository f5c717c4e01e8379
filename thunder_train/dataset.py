"""Rows -> ChatML that is free of duplicates and leaks, split by group, with a manifest.

Input: the sources and the prompt template of a `config.Dataset`.
Output: train.jsonl, valid.jsonl and test.jsonl (rows sorted by id), then manifest.json.
"""

import hashlib
import re
import statistics
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from jinja2.sandbox import SandboxedEnvironment

from thunder_train import ThunderError, files, reports, rows, sources
from thunder_train.config import Dataset, Source
from thunder_train.rows import Loaded, Row, raise_some

SCHEMA = "thunder.dataset/1"
BUILDERS = (rows, reports, sources, sys.modules[__name__])
"""The modules that decide what a row says."""
SPLITS = ("train", "valid", "test")
FILES = (*(f"{name}.jsonl" for name in SPLITS), "manifest.json")
"""What build writes."""
RULE = "sha256('{seed}:{group}') as a fraction: below valid is valid, below valid + test is test, the rest is train"

Example = dict[str, Any]
"""One row of a split, as it is written."""


def build(dataset: Dataset, root: Path, out: Path) -> dict[str, Any]:
    """Write the dataset's files into out and return its manifest.

    Nothing is written unless everything holds: no leak, unique ids, rows in train and valid.
    """
    loaded = [sources.read(source, root) for source in dataset.sources]
    template = _template(dataset, root)
    examples, dropped = _examples(dataset, template, [row for each in loaded for row in each.rows])
    splits = _split(dataset, examples)
    texts = {name: "".join(map(files.json_line, splits[name])) for name in SPLITS}
    manifest = _manifest(dataset, root, loaded, splits, texts, dropped)
    for name, text in texts.items():
        files.write_text(out / f"{name}.jsonl", text)
    files.write_json(out / "manifest.json", manifest)
    return manifest


def fraction(seed: int, group: str) -> float:
    """Where a group falls in [0, 1): fixed by seed and name alone, so appended rows move nobody."""
    return int(hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()[:13], 16) / 16**13


def _template(dataset: Dataset, root: Path) -> jinja2.Template:
    """The prompt template, compiled in a sandbox where an undefined name is an error."""
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
    try:
        return environment.from_string(rows.text(dataset.template, root))
    except jinja2.TemplateSyntaxError as error:
        where = f"{dataset.template}:{error.lineno}"
        raise ThunderError(f"is not a Jinja template: {error.message}", where=where, mend="mend the line") from None


def _examples(dataset: Dataset, template: jinja2.Template, found: list[Row]) -> tuple[list[Example], Counter[str]]:
    """The rows as written, sorted by id, and the count of those left out by reason."""
    dropped = Counter[str]()
    kept: dict[tuple[str, ...], Example] = {}
    problems = []
    for row in sorted(map(_composed, found), key=lambda row: row.row_id):
        example = _example(dataset, template, row)
        key = (*(message["content"] for message in example["messages"]), row.reference_text)
        if not row.target_text.strip():
            dropped["empty target"] += 1
        elif not row.messages and not row.asr_text.strip():
            dropped["empty hypothesis"] += 1
        elif key in kept:
            dropped["exact duplicate"] += 1
        else:
            kept[key] = example
            problems += _leaks(dataset, example)
    raise_some([*_repeated(dataset, found), *problems])
    return list(kept.values()), dropped


def _composed(row: Row) -> Row:
    """The row with every text in NFC: N'Ko marks typed in another order are the same text."""
    texts = {
        name: unicodedata.normalize("NFC", getattr(row, name)) for name in ("asr_text", "reference_text", "target_text")
    }
    messages = [message | {"content": unicodedata.normalize("NFC", message["content"])} for message in row.messages]
    return msgspec.structs.replace(row, **texts, messages=tuple(messages))


def _example(dataset: Dataset, template: jinja2.Template, row: Row) -> Example:
    """One row as it is written."""
    return {
        "id": row.row_id,
        "messages": list(row.messages) or _messages(dataset, template, row),
        "partition": row.partition,
        "asr_text": row.asr_text,
        "reference_text": row.reference_text,
        "source": row.source,
        "group": row.group,
    }


def _messages(dataset: Dataset, template: jinja2.Template, row: Row) -> list[dict[str, str]]:
    """System, user and assistant turns. The template sees hypothesis-side fields only."""
    try:
        user = template.render(asr_text=row.asr_text, partition=row.partition, telemetry=row.telemetry)
    except Exception as error:  # a template is the user's code: whatever it raises is theirs to mend
        mend = "a prompt may use asr_text, partition and telemetry"
        raise ThunderError(f"row {row.row_id}: {error}", where=dataset.template, mend=mend) from None
    turns = [("system", dataset.system)] if dataset.system else []
    turns += [("user", user), ("assistant", row.target_text)]
    return [{"role": role, "content": unicodedata.normalize("NFC", text)} for role, text in turns]


def _repeated(dataset: Dataset, found: list[Row]) -> list[ThunderError]:
    """One problem per id that two rows share."""
    counts = Counter(row.row_id for row in found)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    return [
        ThunderError(
            f"{counts[name]} rows are called {name!r}",
            where=_where(dataset, "sources"),
            mend="give each row its own id and each source its own file name",
        )
        for name in repeated
    ]


def _leaks(dataset: Dataset, example: Example) -> list[ThunderError]:
    """A problem if the prompt says the reference anywhere but in the hypothesis itself."""
    reference, hypothesis = example["reference_text"].strip(), example["asr_text"]
    prompt = "\n".join(message["content"] for message in example["messages"][:-1])
    if hypothesis:
        prompt = prompt.replace(hypothesis, "\n")
    if not reference or not re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", prompt):
        return []
    mend = "take it out of the system text, the template or the telemetry"
    return [
        ThunderError(f"the prompt of {example['id']} holds its reference", where=_where(dataset, "template"), mend=mend)
    ]


def _split(dataset: Dataset, examples: list[Example]) -> dict[str, list[Example]]:
    """Examples by split; one group is never in two. Raises ThunderError when train or valid would be empty."""
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for example in examples:
        place = fraction(dataset.split_seed, example["group"])
        name = "valid" if place < dataset.valid else "test" if place < dataset.valid + dataset.test else "train"
        splits[name].append(example)
    mend = "add rows, or change valid, test or split_seed"
    empty = [name for name in ("train", "valid") if not splits[name]]
    raise_some(
        [
            ThunderError(
                f"no row of {len(examples)} fell into the {name} split", where=_where(dataset, "valid"), mend=mend
            )
            for name in empty
        ]
    )
    return splits


def _where(dataset: Dataset, key: str) -> str:
    """The place of a key of this dataset in the project file."""
    return f"thunder.toml: datasets.{dataset.name}.{key}"


def _manifest(
    dataset: Dataset,
    root: Path,
    loaded: list[Loaded],
    splits: dict[str, list[Example]],
    texts: dict[str, str],
    dropped: Counter[str],
) -> dict[str, Any]:
    """What made the dataset and what is in it: no times, no absolute paths."""
    examples = [example for name in SPLITS for example in splits[name]]
    used = {example["id"] for example in examples}
    taught = [row for each in loaded for row in each.rows if row.row_id in used]
    for each in loaded:
        dropped.update(each.dropped)
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "builder": {"module": __name__, "code": _code()},
        "sources": [_source(source, root, each) for source, each in zip(dataset.sources, loaded, strict=True)],
        "template": {"path": _shown(dataset.template), "sha256": files.sha256(root / dataset.template)},
        "system": dataset.system,
        "orthography": dataset.orthography,
        "split": {"seed": dataset.split_seed, "valid": dataset.valid, "test": dataset.test, "rule": RULE},
        "splits": {name: _statistics(splits[name], texts[name]) for name in SPLITS},
        "evidence_kinds": sorted({row.evidence_kind for row in taught}),
        "partitions": dict(Counter(row.partition for row in taught)),
        "decisions": dict(Counter(row.decision for row in taught if row.decision)),
        "reason_codes": dict(Counter(code for row in taught for code in row.reason_codes)),
        "dropped": dict(dropped),
    }


def _code() -> str:
    """One digest of the code that decides what a row says."""
    return files.digest([files.code_digest(Path(module.__file__ or "")) for module in BUILDERS])


def _source(source: Source, root: Path, loaded: Loaded) -> dict[str, Any]:
    """One source's files as read."""
    parts = [
        {"path": _shown(path), "sha256": files.sha256(root / path), "rows": rows_read}
        for path, rows_read in loaded.rows_read.items()
    ]
    entry = {**parts[0], "kind": source.kind, "evidence_kind": source.evidence_kind, "rows_used": len(loaded.rows)}
    return entry if len(parts) == 1 else entry | {"references": parts[1]}


def _statistics(examples: list[Example], text: str) -> dict[str, Any]:
    """One split in numbers. characters: code points of all messages of a row."""
    lengths = [sum(len(message["content"]) for message in example["messages"]) for example in examples] or [0]
    spread = {"min": min(lengths), "median": statistics.median(lengths), "max": max(lengths), "total": sum(lengths)}
    return {"rows": len(examples), "sha256": hashlib.sha256(text.encode()).hexdigest(), "characters": spread}


def _shown(path: str) -> str:
    """A path as the manifest may tell it: one outside the project tells its name only."""
    return Path(path).name if Path(path).is_absolute() else path
