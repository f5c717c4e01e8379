"""Tokens as people read them: one by one in the order the model sees them, those that are trained on marked.

A terminal or editor may lay out N'Ko from the right. So each line begins with a Latin letter, and each letter beyond
ASCII is followed by its code point, which keeps tokens in their order without a control character in the output.

A file's rows in numbers: their tokens, which cannot be trained on, and what the training makes of the others.

Lengths are those of whole rows, before anything is dropped or split; a row ends with its last answer, as in training.

What a training will see of its rows, before it runs: their tokens, what becomes of long ones, what is trained on.

Reads a model's tokenizer and config.json, no weight, and train.jsonl and valid.jsonl; prints tables and a few rows in
tokens, or one line of JSON. The training's own functions read, cut and lay out the rows.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from thunder_train.worker.batching.tokens import Example

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.core.text import code_point, escaped
from thunder_train.worker.args import Settings
from thunder_train.worker.batching import tokens
from thunder_train.worker.batching.tokens import Example, Policy, Split

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.loader import DataLoader

import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from thunder_train import raise_all
from thunder_train.worker.args import Parser, parse
from thunder_train.worker.bootstrap import enter

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.tokens import Example


MOST_BYTES = 4
"""Tokens that may make up one character, each a byte of it."""
TRAINED, REST = "bold underline black on bright_green", "dim"
ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "|": "\\|", "[": "\\[", "]": "\\]", " ": "␣"}
"""What stands for a character that would be unseen, or be taken for one of ours."""


@dataclass(frozen=True)
class Piece:
    """A token, or the few tokens that are one character together. is_trained: whether they are targets."""

    text: str
    tokens: tuple[int, ...]
    is_trained: bool


def pieces(example: "Example", tokenizer: Any) -> list[Piece]:
    """A row in pieces, in order. A token that is no text, nor with those after it, is called as the vocabulary does."""
    trained = [False] * len(example.tokens)
    for start, end in example.spans:
        trained[start:end] = [True] * (end - start)
    found: list[Piece] = []
    done = 0
    while done < len(trained):
        text, count = _next(example.tokens[done:], trained[done:], tokenizer)
        found.append(Piece(text, example.tokens[done : done + count], trained[done]))
        done += count
    return found


def _next(tokens: Sequence[int], trained: Sequence[bool], tokenizer: Any) -> tuple[str, int]:
    """The text of the first piece, and its tokens."""
    for count in range(1, min(MOST_BYTES, len(tokens)) + 1):
        text = tokenizer.decode(list(tokens[:count]))
        if text and "\N{REPLACEMENT CHARACTER}" not in text and len(set(trained[:count])) == 1:
            return text, count
    return str(tokenizer.convert_ids_to_tokens(tokens[0])), 1


def shown(text: str) -> str:
    """The text of a token: what cannot be seen as escapes, and after it the code points of letters beyond ASCII."""
    letters = "".join(ESCAPES.get(letter) or escaped(letter) for letter in text)
    codes = "".join(code_point(letter) for letter in text if not letter.isascii() and letter.isprintable())
    is_mark = bool(text) and unicodedata.category(text[0]).startswith("M")  # it would sit on the separator
    return "\N{DOTTED CIRCLE}" * is_mark + letters + codes


def lines(row: Sequence[Piece], width: int, brackets: bool) -> Iterator[list[tuple[str, bool]]]:
    """Lines of a row, each as parts with whether they are trained on; the first part tells which token follows.

    width: letters of a line, unless one piece is longer. brackets: [[ ]] around what is trained on.
    """
    line: list[tuple[str, bool]] = []
    room = position = 0
    for i, piece in enumerate(row):
        text = shown(piece.text) + (f"·{len(piece.tokens)}" if len(piece.tokens) > 1 else "")
        if brackets and piece.is_trained:
            text = "[[" * (i == 0 or not row[i - 1].is_trained) + text
            text += "]]" * (i + 1 == len(row) or not row[i + 1].is_trained)
        if line and 1 + len(text) > room:
            yield line
            line = []
        if line:
            line.append(("|", False))
        else:
            line, room = [(f"  t{position}  ", False)], width - len(f"  t{position}  ") + 1
        line.append((text, piece.is_trained))
        room -= 1 + len(text)
        position += len(piece.tokens)
    if line:
        yield line


def plain(row: Sequence[Piece], width: int) -> str:
    """A row for a pipe: trained tokens in [[ ]]."""
    return "\n".join("".join(text for text, _ in line) for line in lines(row, width, brackets=True))


def coloured(row: Sequence[Piece], width: int) -> "Text":
    """A row for a terminal: trained tokens stand out, without colour too."""
    from rich.text import Text  # late: only a terminal needs it

    made = Text(no_wrap=True, overflow="ignore")
    for line in lines(row, width, brackets=False):
        for text, is_trained in line:
            made.append(text, TRAINED if is_trained else REST)
        made.append("\n")
    return made


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
    rows = files.read_jsonl(path, hint="run `./doit data`")
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


def training(split: Split, feeds: Sequence["DataLoader"]) -> dict[str, Any]:
    """The rows of train.jsonl over one epoch, as all ranks take them. feeds: one for each rank."""
    feed = feeds[0]
    steps = max(1, min(feed.steps_per_epoch, LAID_OUT // feed.global_batch_size))
    rows = [row for step in range(steps) for row in feed.rows(step)]
    computed = sum(batch.padded_tokens for each in feeds for step in range(steps) for batch in each.step(step))
    return _counts(split, feed, rows, computed) | {"steps_per_epoch": feed.steps_per_epoch}


def validation(split: Split, feeds: Sequence["DataLoader"]) -> dict[str, Any]:
    """The rows of valid.jsonl, all of them scored each time."""
    computed = sum(batch.padded_tokens for each in feeds for batch in each.validation())
    return _counts(split, feeds[0], range(len(feeds[0].examples)), computed)


def _counts(split: Split, feed: "DataLoader", rows: Sequence[int], computed: int) -> dict[str, Any]:
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


def feeds_of(split: Split, settings: Settings, model: "nn.Module", ranks: int, is_packed: bool) -> list["DataLoader"]:
    """What each rank is fed from. ranks: those that rows are spread over."""
    from thunder_train.worker.batching.loader import DataLoader, costs_of

    costs = replace(costs_of(model, split.examples, settings.micro_tokens), is_packed=is_packed)
    rows = settings.rows_per_step(ranks)
    weights = settings.weights if len(settings.weights) == ranks else ()  # --ranks may ask for another number
    return [DataLoader(split.examples, rows, settings.seed, rank, ranks, costs, weights) for rank in range(ranks)]


UNUSED = ["--num-iters", "1", "--learning-rate", "1", "--adapter-path", "adapter"]
"""Flags that a training cannot do without, and that change no token."""
BAR = 40
"""Letters of the histogram's longest bar."""
WIDTH = 120
"""Letters of a line, in a pipe."""


@dataclass(frozen=True)
class Base:
    """What of a model decides tokens and layouts. model: without weights."""

    tokenizer: Any
    model: "nn.Module"


def load(settings: Settings) -> Base:
    """Tokenizer and shape of the flags' model, as the training has them. Raises ThunderError when there are none."""
    import mlx_lm.utils

    from thunder_train.worker import model

    folder = model.locate(settings.model, model.pinned_commit(settings.model_lock))
    hint = "give an mlx-lm folder, or convert it first"
    files.require(folder / "config.json", hint=hint)
    try:
        config = mlx_lm.utils.load_config(folder)
        tokenizer = mlx_lm.utils.load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # tokenizers raises Exception itself
        what = f"mlx-lm cannot load its tokenizer: {error}"
        raise ThunderError(what, where=f"--model {settings.model}", hint=hint) from error
    return Base(tokenizer, model.build(config))


def report(settings: Settings, base: Base, ranks: int, rows: int) -> dict[str, Any]:
    """Facts of both splits, and so many rows of training data in pieces. Schema thunder.tokens/1."""
    import mlx.core as mx

    from thunder_train.worker.batching import batch

    not_packed = batch.packing_problem(base.model) if settings.packing == "auto" else "packing is off"
    spread = ranks if settings.strategy == "data" else 1
    found, examples = split_facts("train", settings, base, spread, not not_packed)
    splits = {"train": found, "valid": split_facts("valid", settings, base, spread, not not_packed)[0]}
    return {
        "schema": "thunder.tokens/1",
        "max_seq_len": settings.max_seq_len,
        "too_long": settings.too_long,
        "train_on": settings.train_on,
        "ranks": ranks,
        "strategy": settings.strategy,
        "rows_per_step": settings.rows_per_step(spread),
        "micro_tokens": settings.micro_tokens,
        "not_packed": not_packed,
        "device": mx.default_device().type.name,
        "splits": splits,
        "preview": [in_pieces(each, base.tokenizer) for each in picked(examples, rows)],
    }


def split_facts(
    name: str, settings: Settings, base: Base, ranks: int, is_packed: bool
) -> tuple[dict[str, Any], Sequence["Example"]]:
    """Facts of a split, and its rows as they are trained on; as they are, when the training would stop.

    ranks: those that rows are spread over.
    """

    path = settings.train_data if name == "train" else settings.valid_data
    rows = read(path, base.tokenizer, settings.train_on, settings.token_cache)
    found: dict[str, Any] = facts(rows, base.tokenizer, settings) | {"path": str(path), "training": None}
    split, stop = taken(rows, path, base.tokenizer, settings)
    needed = settings.rows_per_step(ranks)
    if split and name == "train" and len(split.examples) < needed:
        stop = f"has {len(split.examples)} rows, fewer than the {needed} of one step"
    elif split:
        feeds = feeds_of(split, settings, base.model, ranks, is_packed)
        counts = training if name == "train" else validation
        found["training"] = counts(split, feeds)
    return found | {"stop": stop}, split.examples if split else rows.examples


def picked(examples: Sequence["Example"], rows: int) -> list["Example"]:
    """The first, the longest and the shortest row, then others from the second on: so many, each once."""
    order = range(len(examples))
    longest = sorted(order, key=lambda i: -len(examples[i].tokens))[:1]
    shortest = sorted(order, key=lambda i: len(examples[i].tokens))[:1]
    return [examples[i] for i in list(dict.fromkeys([*order[:1], *longest, *shortest, *order]))[:rows]]


def in_pieces(example: "Example", tokenizer: Any) -> dict[str, Any]:
    """A row as JSON holds it."""
    made = [asdict(piece) for piece in pieces(example, tokenizer)]
    return {"id": example.row_id, "tokens": len(example.tokens), "targets": example.targets, "pieces": made}


def tell(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a report: the settings, a table with a column for each split, what would stop the training, lengths."""
    many = f" on {found['ranks']} ranks" if found["ranks"] > 1 else ""
    packed = f"rows are not packed: {found['not_packed']}" if found["not_packed"] else "rows are packed"
    policy = f"max_seq_len {found['max_seq_len']}, too_long {found['too_long']}, train_on {found['train_on']}"
    yield f"{policy}; {found['rows_per_step']} rows a step{many}; {packed}"
    columns = [dict(_cells(split, found["max_seq_len"])) for split in found["splits"].values()]
    table = [("", *found["splits"]), *((label, *(each[label] for each in columns)) for label in columns[0])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for name, split in found["splits"].items():
        if split["stop"]:
            yield f"\nthe training would stop: {split['path']}: {split['stop']}"
        yield from (
            f"  {escaped(each['what'])}: {each['rows']} rows, {', '.join(each['first'])}" for each in split["unusable"]
        )
        if split["histogram"]:
            yield from ("", f"{name}, rows by tokens", *bars(split["histogram"]))


def _cells(split: Mapping[str, Any], max_seq_len: int) -> Iterator[tuple[str, str]]:
    """A split's column, with the label of each line."""
    tokens, training = split["tokens"], split["training"]
    yield "rows", f"{split['rows']:,}"
    yield "that cannot be trained on", f"{sum(each['rows'] for each in split['unusable']):,}"
    yield "tokens of a row", f"{tokens['min']} to {tokens['max']}, median {tokens['median']}, p95 {tokens['p95']}"
    yield f"rows over {max_seq_len} tokens", f"{split['over_max_seq_len']:,}"
    yield "targets", _of(split["targets"], tokens["total"])
    yield (
        "tokens per character",
        f"{split['tokens_per_character']:.2f}; of answers {split['targets_per_character']:.2f}",
    )
    yield "unknown tokens", _of(split["unknown_tokens"], tokens["total"])
    yield "bytes of characters", _of(split["byte_tokens"], tokens["total"])
    yield "rows trained on", f"{training['rows']:,}" if training else "-"
    yield "long rows", _long(training) if training else "-"
    yield "targets trained on", _of(training["targets"], training["tokens"]) if training else "-"
    yield "packing efficiency", _packing(training) if training else "-"


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}, {100 * part / max(1, whole):.1f} %"


def _long(training: Mapping[str, Any]) -> str:
    return f"{training['split']:,} split, {training['dropped']:,} with an answer left out"


def _packing(training: Mapping[str, Any]) -> str:
    """Tokens of rows among those computed, over an epoch, or as much of it as was laid out."""
    part = f"; {training['rows_laid_out']:,} rows" if training["rows_laid_out"] < training["rows"] else ""
    return _of(training["real_tokens"], training["computed_tokens"]) + part


def bars(histogram: Sequence[tuple[int, int, int]]) -> list[str]:
    """Lines of a histogram; a bin with any row has a bar."""
    most = max(count for _, _, count in histogram)
    digits = len(str(histogram[-1][1]))
    return [
        f"  {low:>{digits}} to {high:>{digits}}  {'█' * math.ceil(BAR * count / most):<{BAR}}  {count:,}"
        for low, high, count in histogram
    ]


def show(found: Mapping[str, Any]) -> None:
    """Print a report for people. On a terminal, trained tokens stand out; in a pipe they are in [[ ]]."""
    from rich.console import Console  # late: only people need it

    print(*tell(found), sep="\n")
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    console = Console(width=width)
    for each in found["preview"]:
        row = [Piece(**piece) for piece in each["pieces"]]
        print(f"\ntrain row of {each['tokens']} tokens, {each['targets']} targets: {escaped(each['id'])}", flush=True)
        if console.is_terminal and not console.is_dumb_terminal:
            console.print(coloured(row, width), end="")
        else:
            print(plain(row, width))


def main(argv: list[str]) -> None:
    """Print what the flags' training will see."""
    parser = Parser(
        prog="thunder_train.worker.inspect.tokens",
        description="what a training will see of its rows; takes launch.sh's flags, too",
        allow_abbrev=False,
    )
    parser.add_argument("--rows", type=int, default=3, help="rows of training data shown token by token")
    parser.add_argument("--ranks", type=int, default=1, help="ranks that train together")
    parser.add_argument("--json", action="store_true", help="one line for machines")
    flags, rest = parser.parse_known_args(argv)
    raise_all(
        [
            ThunderError(f"must be {low} or more, not {value}", where=flag)
            for flag, value, low in (("--rows", flags.rows, 0), ("--ranks", flags.ranks, 1))
            if value < low
        ]
    )
    settings = parse([*UNUSED, *rest])
    found = report(settings, load(settings), flags.ranks, flags.rows)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    if flags.json:
        sys.stdout.write(files.json_line(found))
    else:
        show(found)


if __name__ == "__main__":
    enter(main)
