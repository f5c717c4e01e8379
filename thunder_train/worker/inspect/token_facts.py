"""A file's rows in numbers: their tokens, which cannot be trained on, and what the training makes of the others.

Lengths are those of whole rows, before anything is dropped or split; a row ends with its last answer, as in training.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.args import Settings
from thunder_train.worker.batching import tokens
from thunder_train.worker.batching.tokens import Example, Policy, Split

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.loader import Feed

NAMED = 5
"""Unusable rows of a kind that are named."""
BINS = 10
"""Most bins of the histogram."""
LAID_OUT = 20_000
"""Most rows of an epoch that are laid out: a share of padding needs no million."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""What vocabularies call a byte of a character that they do not know."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file. usable: each with its tokens; problems: what the training says of the others."""

    usable: list[tuple[Any, Example]]
    problems: list[ThunderError]

    @property
    def examples(self) -> list[Example]:
        """The usable rows in tokens, whole."""
        return [example for _, example in self.usable]


def read(path: Path, tokenizer: Any, train_on: str, cache: Path | None) -> Rows:
    """Every row of a file, usable or not. Raises ThunderError for a file or a model that gives no row at all."""
    rows = files.read_jsonl(path, mend="run `./doit data`")
    if not rows:
        return Rows([], [])
    try:
        return Rows(list(zip(rows, tokens.read_all(path, tokenizer, train_on, cache), strict=True)), [])
    except ThunderError as error:
        found = _one_by_one(rows, path, tokenizer, train_on)
        if not found.problems:
            raise error
        return found


def _one_by_one(rows: Sequence[Any], path: Path, tokenizer: Any, train_on: str) -> Rows:
    found = Rows([], [])
    for number, row in enumerate(rows, start=1):
        try:
            found.usable.append((row, tokens.example(row, tokenizer, f"{path}:{number}", train_on)))
        except ThunderError as problem:
            if problem.where == "--model":  # no row is at fault
                raise
            found.problems.append(problem)
    return found


def facts(rows: Rows, tokenizer: Any, settings: Settings) -> dict[str, Any]:
    """What the rows are, whatever the training makes of them."""
    examples = rows.examples
    lengths = sorted(len(each.tokens) for each in examples)
    total, targets = sum(lengths), sum(each.targets for each in examples)
    characters = sum(len(each["content"]) for row, _ in rows.usable for each in row["messages"])
    taught = sum(len(each["content"]) for row, _ in rows.usable for each in _answers(row, settings.train_on))
    counts: Counter[int] = Counter()
    for each in examples:
        counts.update(each.tokens)
    unknown, byte = _unknown(counts, tokenizer)
    return {
        "rows": len(rows.usable) + len(rows.problems),
        "unusable": _kinds(rows.problems),
        "tokens": quantiles(lengths) | {"total": total},
        "histogram": histogram(lengths),
        "over_max_seq_len": sum(length > settings.max_seq_len for length in lengths),
        "targets": targets,
        "supervised": _share(targets, total),
        "tokens_per_character": _share(total, characters),
        "targets_per_character": _share(targets, taught),
        "unknown_tokens": unknown,
        "byte_tokens": byte,
    }


def _answers(row: Any, train_on: str) -> list[dict[str, str]]:
    messages = row["messages"]
    return messages[-1:] if train_on == "last" else [each for each in messages if each["role"] == "assistant"]


def _kinds(problems: Sequence[ThunderError]) -> list[dict[str, Any]]:
    """Problems by what they say, the most frequent first, each with the places of a few."""
    counts = Counter(problem.what for problem in problems)
    return [
        {"what": what, "rows": count, "first": [each.where for each in problems if each.what == what][:NAMED]}
        for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """min, median, p95 and max of sorted lengths, each the length of some row; 0 without rows."""
    places = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: lengths[max(0, math.ceil(p * len(lengths)) - 1)] if lengths else 0 for name, p in places.items()}


def histogram(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(lowest, highest, rows) of bins of equal width over sorted lengths."""
    if not lengths:
        return []
    width = -(-(lengths[-1] - lengths[0] + 1) // BINS)
    counts = Counter((length - lengths[0]) // width for length in lengths)
    lows = range(lengths[0], lengths[-1] + 1, width)
    return [(low, low + width - 1, counts[i]) for i, low in enumerate(lows)]


def _unknown(counts: Counter[int], tokenizer: Any) -> tuple[int, int]:
    """Tokens that stand for anything unknown, and tokens that are a byte of a character without a token of its own."""
    unknown = {tokenizer.unk_token_id} - set(tokenizer.eos_token_ids)  # some vocabularies have one token for both
    names = zip(counts, tokenizer.convert_ids_to_tokens(list(counts)), strict=True)
    return sum(counts[each] for each in unknown), sum(counts[each] for each, name in names if BYTE.fullmatch(str(name)))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def taken(rows: Rows, path: Path, tokenizer: Any, settings: Settings) -> tuple[Split | None, str]:
    """The rows as the training takes them; or none, and why it would stop."""
    if not rows.usable and not rows.problems:
        return None, "holds no row to use"
    if rows.problems:
        return None, f"{len(rows.problems)} rows cannot be trained on"
    long = sum(len(each.tokens) > settings.max_seq_len for each in rows.examples)
    if long and settings.too_long == "refuse":
        return None, f"{long} rows are longer than max_seq_len, and too_long is refuse"
    if not long:
        return Split(tuple(rows.examples), 0), ""
    policy = Policy(settings.max_seq_len, settings.too_long, settings.train_on)
    try:
        return tokens.read(path, tokenizer, policy, settings.token_cache), ""
    except ThunderError as error:
        return None, error.what


def training(split: Split, feeds: Sequence["Feed"]) -> dict[str, Any]:
    """The rows of train.jsonl over one epoch, as all ranks take them. feeds: one for each rank."""
    feed = feeds[0]
    steps = max(1, min(feed.steps_per_epoch, LAID_OUT // feed.global_batch_size))
    rows = [row for step in range(steps) for row in feed.rows(step)]
    computed = sum(batch.padded_tokens for each in feeds for step in range(steps) for batch in each.step(step))
    return _counts(split, feed, rows, computed) | {"steps_per_epoch": feed.steps_per_epoch}


def validation(split: Split, feeds: Sequence["Feed"]) -> dict[str, Any]:
    """The rows of valid.jsonl, all of them scored each time."""
    computed = sum(batch.padded_tokens for each in feeds for batch in each.validation())
    return _counts(split, feeds[0], range(len(feeds[0].examples)), computed)


def _counts(split: Split, feed: "Feed", rows: Sequence[int], computed: int) -> dict[str, Any]:
    """rows: those laid out. One of n tokens is n - 1 to the model: its last is a target and nothing else."""
    real = sum(len(feed.examples[row].tokens) - 1 for row in rows)
    return {
        "rows": len(split.examples),
        "dropped": split.dropped,
        "split": split.split,
        "tokens": split.tokens,
        "targets": split.targets,
        "supervised": _share(split.targets, split.tokens),
        "rows_laid_out": len(rows),
        "real_tokens": real,
        "computed_tokens": computed,
        "packing_efficiency": _share(real, computed),
    }


def feeds(split: Split, settings: Settings, model: "nn.Module", ranks: int, is_packed: bool) -> list["Feed"]:
    """What each rank is fed from. ranks: those that rows are spread over."""
    from thunder_train.worker.batching.loader import Feed, costs_of

    costs = replace(costs_of(model, split.examples, settings.micro_tokens), is_packed=is_packed)
    rows = settings.rows_per_step(ranks)
    weights = settings.weights if len(settings.weights) == ranks else ()  # --ranks may ask for another number
    return [Feed(split.examples, rows, settings.seed, rank, ranks, costs, weights) for rank in range(ranks)]
