"""Statistics of a data file in tokens: lengths, targets, unusable rows, and padding in training batches.

Lengths are those of whole rows, before the training drops or splits any. The training's own functions read, cut and
batch the rows, so that the statistics are those of the training.
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
from thunder_train.worker.batching.examples import Examples
from thunder_train.worker.batching.targets import ANSWER
from thunder_train.worker.batching.tokens import Policy, Split, Tokenised
from thunder_train.worker.chat import Chat

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.loader import DataLoader

EXAMPLES_PER_PROBLEM = 5
"""Unusable rows that are named for each kind of problem."""
BINS = 10
"""Maximum number of bins of the histogram."""
BATCHED_ROWS = 20_000
"""Maximum number of rows of an epoch that are batched: more rows would not change the share of padding."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""Name in vocabularies of a token that is one byte of a character without a token."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file. contents: of the rows that can be trained on; in_tokens: all, with the training's errors."""

    contents: list[Any]
    in_tokens: Tokenised

    @property
    def examples(self) -> Examples:
        """The usable rows in tokens, whole."""
        return self.in_tokens.examples

    @property
    def problems(self) -> list[ThunderError]:
        """The error of each unusable row."""
        return [problem for _, problem in self.in_tokens.problems]


def read(path: Path, chat: Chat, train_on: str, cache: Path | None) -> Rows:
    """All rows of a file, usable or not. Raises ThunderError if the file cannot be read or the model is at fault."""
    rows = files.read_jsonl(path, hint="run `./doit data`")
    in_tokens = tokens.tokenise(path, chat, train_on, cache)
    if train_on == tokens.EVERYTHING:
        in_tokens = replace(in_tokens, examples=in_tokens.examples.whole_spans())
    return Rows([rows[line] for line in dict.fromkeys(in_tokens.lines)], in_tokens)


def statistics(rows: Rows, path: Path, tokenizer: Any, settings: Settings) -> dict[str, Any]:
    """Statistics that do not depend on what the training does with the rows."""
    examples = rows.examples
    lengths = sorted(examples.lengths)
    total, targets = sum(lengths), examples.targets
    characters = sum(len(text) for row in rows.contents for text in _texts(row))
    answer_characters = sum(len(text) for row in rows.contents for text in _answers(row, settings.train_on))
    counts: Counter[int] = Counter()
    for each in examples:
        counts.update(each.tokens)
    unknown, byte = _unknown(counts, tokenizer)
    return {
        "rows": len(rows.contents) + len(rows.problems),
        "unusable": _by_problem(rows.in_tokens.problems, path),
        "answers_lost": [f"{each.what}; {each.hint}" for each in rows.in_tokens.lost],
        "notes": list(tokens.described(rows.in_tokens.notes)),
        "tokens": quantiles(lengths) | {"total": total},
        "histogram": histogram(lengths),
        "over_max_seq_len": sum(length > settings.max_seq_len for length in lengths),
        "targets": targets,
        "supervised": _ratio(targets, total),
        "tokens_per_character": _ratio(total, characters),
        "targets_per_character": _ratio(targets, answer_characters),
        "unknown_tokens": unknown,
        "byte_tokens": byte,
    }


def _texts(row: Any) -> list[str]:
    """The contents of a row's messages, or its plain text."""
    return [row["text"]] if "text" in row else [each["content"] for each in row["messages"]]


def _answers(row: Any, train_on: str) -> list[str]:
    """The contents of a row that are trained on."""
    if "text" in row or train_on == tokens.EVERYTHING:
        return _texts(row)
    answers = [each["content"] for each in row["messages"] if each["role"] == ANSWER and each.get("weight") != 0]
    return answers if train_on == "all" else answers[-1:]


def _by_problem(problems: Sequence[tuple[int, ThunderError]], path: Path) -> list[dict[str, Any]]:
    """Number of rows for each problem, the most frequent problem first, with the places of the first rows."""
    places: dict[tuple[str, str], list[str]] = {}
    for line, problem in problems:
        places.setdefault((problem.what, problem.hint), []).append(f"{path}:{line + 1}")
    return [
        {"what": what, "hint": hint, "rows": len(lines), "first": lines[:EXAMPLES_PER_PROBLEM]}
        for (what, hint), lines in sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """min, median, p95 and max of sorted lengths, each the length of some row (nearest rank); 0 without rows."""
    fractions = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: lengths[max(0, math.ceil(p * len(lengths)) - 1)] if lengths else 0 for name, p in fractions.items()}


def histogram(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(shortest, longest, rows) of bins of equal width over sorted lengths."""
    if not lengths:
        return []
    width = -(-(lengths[-1] - lengths[0] + 1) // BINS)  # rounded up
    counts = Counter((length - lengths[0]) // width for length in lengths)
    shortest = range(lengths[0], lengths[-1] + 1, width)
    return [(low, low + width - 1, counts[i]) for i, low in enumerate(shortest)]


def _unknown(counts: Counter[int], tokenizer: Any) -> tuple[int, int]:
    """(number of unknown tokens, number of tokens that are one byte of a character)."""
    unknown = {tokenizer.unk_token_id} - set(tokenizer.eos_token_ids)  # some vocabularies use one token for both
    names = zip(counts, tokenizer.convert_ids_to_tokens(list(counts)), strict=True)
    return sum(counts[each] for each in unknown), sum(counts[each] for each, name in names if BYTE.fullmatch(str(name)))


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def training_rows(rows: Rows, path: Path, chat: Chat, settings: Settings) -> tuple[Split | None, str]:
    """(the rows that the training uses, ""), or (None, the reason why the training would stop)."""
    if not rows.examples and not rows.problems:
        return None, "holds no row to use"
    if rows.problems:
        return None, f"{len(rows.problems)} rows cannot be trained on"
    if rows.in_tokens.lost:
        return None, "the tokens of some answers are not the answers"
    long = sum(length > settings.max_seq_len for length in rows.examples.lengths)
    if long and settings.too_long == "refuse":
        return None, f"{long} rows are longer than max_seq_len, and too_long is refuse"
    if not long:
        return Split(rows.examples, 0), ""
    policy = Policy(settings.max_seq_len, settings.too_long, settings.train_on)
    try:
        return tokens.read(path, chat, policy, settings.token_cache), ""
    except ThunderError as error:
        return None, error.what


def loaders(split: Split, settings: Settings, model: "nn.Module", ranks: int, is_packed: bool) -> list["DataLoader"]:
    """The data loader of each rank. ranks: number of ranks that share the rows."""
    from thunder_train.worker.batching.loader import DataLoader, costs_of  # late: BLAS must be loaded before mlx

    costs = replace(costs_of(model, split.examples.lengths, settings.micro_tokens), is_packed=is_packed)
    rows = settings.rows_per_step(ranks)
    weights = settings.weights if len(settings.weights) == ranks else ()  # --ranks may differ from the recipe's ranks
    return [DataLoader(split.examples, rows, settings.seed, rank, ranks, costs, weights) for rank in range(ranks)]


def training_batches(split: Split, rank_loaders: Sequence["DataLoader"]) -> dict[str, Any]:
    """Rows, tokens and padding of train.jsonl in the first epoch, over all ranks."""
    first = rank_loaders[0]
    steps = max(1, min(first.steps_per_epoch, BATCHED_ROWS // first.global_batch_size))
    rows = [row for step in range(steps) for row in first.rows(step)]
    computed = sum(batch.padded_tokens for each in rank_loaders for step in range(steps) for batch in each.step(step))
    return _batch_statistics(split, first, rows, computed) | {"steps_per_epoch": first.steps_per_epoch}


def validation_batches(split: Split, rank_loaders: Sequence["DataLoader"]) -> dict[str, Any]:
    """Rows, tokens and padding of valid.jsonl, all of whose rows every validation scores."""
    computed = sum(batch.padded_tokens for each in rank_loaders for batch in each.validation())
    return _batch_statistics(split, rank_loaders[0], range(len(rank_loaders[0].examples)), computed)


def _batch_statistics(split: Split, loader: "DataLoader", rows: Sequence[int], computed: int) -> dict[str, Any]:
    """rows: indices of the batched rows; computed: tokens of their batches with padding."""
    # The model reads n - 1 of a row's n tokens: the last one is only a target.
    real = sum(len(loader.examples[row].tokens) - 1 for row in rows)
    return {
        "rows": len(split.examples),
        "dropped": split.dropped,
        "split": split.split,
        "tokens": split.tokens,
        "targets": split.targets,
        "supervised": _ratio(split.targets, split.tokens),
        "rows_laid_out": len(rows),
        "real_tokens": real,
        "computed_tokens": computed,
        "packing_efficiency": _ratio(real, computed),
    }
