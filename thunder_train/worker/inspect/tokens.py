"""Shows how a training would see its rows: token statistics of both splits, and a few rows token by token.

Reads a model's tokenizer and config.json (no weights), train.jsonl and valid.jsonl. Prints tables and rows, or one line
of JSON (schema thunder.tokens/1).

In a preview, trained tokens are in [[ ]]. A terminal or editor may display N'Ko from right to left. So each line begins
with a Latin letter, and each letter beyond ASCII is followed by its code point: both keep the tokens in order.
"""

import math
import shutil
import signal
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import console, files
from thunder_train.core.text import code_point, escaped
from thunder_train.worker import chat
from thunder_train.worker.args import Parser, Settings, parse
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.bootstrap import enter
from thunder_train.worker.chat import Chat
from thunder_train.worker.inspect import token_statistics

if TYPE_CHECKING:
    import mlx.nn as nn

REQUIRED = ["--num-iters", "1", "--learning-rate", "1", "--adapter-path", "adapter"]
"""Values for required flags of a training that change no token."""
BAR = 40
"""Characters of the longest bar of a histogram."""
PIPE_WIDTH = 120
"""Characters per line unless the output is a terminal."""
MOST_BYTES = 4
"""Maximum number of tokens that are decoded together as one character: UTF-8 has up to 4 bytes."""
ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "|": "\\|", "[": "\\[", "]": "\\]", " ": "␣"}
"""Replacements for characters that are invisible or have a meaning in a preview."""


@dataclass(frozen=True)
class Base:
    """The parts of a model that decide tokens and batches. model: without weights."""

    chat: Chat
    model: "nn.Module"

    @property
    def tokenizer(self) -> Any:
        """The tokenizer as mlx-lm wraps it."""
        return self.chat.tokenizer


@dataclass(frozen=True)
class Piece:
    """A token, or the tokens of one character. is_trained: whether they are targets."""

    text: str
    tokens: tuple[int, ...]
    is_trained: bool


def load(settings: Settings) -> Base:
    """Tokenizer and layers of the model, as in the training. Raises ThunderError if they cannot be loaded."""
    import mlx_lm.utils  # late: BLAS must be loaded before mlx

    from thunder_train.core import model_files
    from thunder_train.worker import model

    folder = model.locate(settings.model, model.pinned_commit(settings.model_lock))
    model_files.check(folder, settings.model)
    files.require(folder / "config.json", hint="give an mlx-lm folder, or convert it first")
    with model.loading("mlx-lm cannot load its tokenizer", f"--model {settings.model}"):
        config = mlx_lm.utils.load_config(folder)
        tokenizer = mlx_lm.utils.load_tokenizer(folder, model.NO_CODE, eos_token_ids=config.get("eos_token_id"))
    return Base(chat.of(tokenizer, settings), model.build(config))


def report(settings: Settings, base: Base, ranks: int, rows: int) -> dict[str, Any]:
    """Statistics of both splits, and the first `rows` rows of the preview in pieces. Schema thunder.tokens/1."""
    import mlx.core as mx

    from thunder_train.worker.batching import batch

    not_packed = batch.packing_problem(base.model) if settings.packing == "auto" else "packing is off"
    sharing = ranks if settings.strategy == "data" else 1
    train, examples = split_report("train", settings, base, sharing, not not_packed)
    valid, _ = split_report("valid", settings, base, sharing, not not_packed)
    return {
        "schema": "thunder.tokens/1",
        "max_seq_len": settings.max_seq_len,
        "too_long": settings.too_long,
        "train_on": settings.train_on,
        "ranks": ranks,
        "strategy": settings.strategy,
        "rows_per_step": settings.rows_per_step(sharing),
        "micro_tokens": settings.micro_tokens,
        "not_packed": not_packed,
        "device": mx.default_device().type.name,
        "splits": {"train": train, "valid": valid},
        "preview": [_row_json(each, base.tokenizer) for each in preview_rows(examples, rows)],
    }


def split_report(
    name: str, settings: Settings, base: Base, ranks: int, is_packed: bool
) -> tuple[dict[str, Any], Sequence[Example]]:
    """Statistics of a split, and its rows as the training uses them, or whole rows if the training would stop.

    ranks: number of ranks that share the rows.
    """
    path = settings.train_data if name == "train" else settings.valid_data
    rows = token_statistics.read(path, base.chat, settings.train_on, settings.token_cache)
    result = token_statistics.statistics(rows, path, base.tokenizer, settings) | {"path": str(path), "training": None}
    if name == "valid" and not (rows.contents or rows.problems):
        return result | {"stop": ""}, []  # the training then validates nothing
    split, stop = token_statistics.training_rows(rows, path, base.chat, settings)
    needed = settings.rows_per_step(ranks)
    if split and name == "train" and len(split.examples) < needed:
        stop = f"has {len(split.examples)} rows, fewer than the {needed} of one step"
    elif split:
        loaders = token_statistics.loaders(split, settings, base.model, ranks, is_packed)
        is_train = name == "train"
        batches = token_statistics.training_batches if is_train else token_statistics.validation_batches
        result["training"] = batches(split, loaders)
    return result | {"stop": stop}, split.examples if split else rows.examples


def preview_rows(examples: Sequence[Example], rows: int) -> list[Example]:
    """The first, the longest and the shortest row, then the others in order: `rows` rows, each once."""
    order = range(len(examples))
    longest = sorted(order, key=lambda i: -len(examples[i].tokens))[:1]
    shortest = sorted(order, key=lambda i: len(examples[i].tokens))[:1]
    return [examples[i] for i in list(dict.fromkeys([*order[:1], *longest, *shortest, *order]))[:rows]]


def _row_json(example: Example, tokenizer: Any) -> dict[str, Any]:
    row = [asdict(piece) for piece in pieces(example, tokenizer)]
    return {"id": example.row_id, "tokens": len(example.tokens), "targets": example.targets, "pieces": row}


def pieces(example: Example, tokenizer: Any) -> list[Piece]:
    """A row in pieces, in order. A token that gives no text, alone or with the next ones, has its vocabulary name."""
    trained = [False] * len(example.tokens)
    for start, end in example.spans:
        trained[start:end] = [True] * (end - start)
    row: list[Piece] = []
    done = 0
    while done < len(trained):
        text, count = _next_piece(example.tokens[done:], trained[done:], tokenizer)
        row.append(Piece(text, example.tokens[done : done + count], trained[done]))
        done += count
    return row


def _next_piece(tokens: Sequence[int], trained: Sequence[bool], tokenizer: Any) -> tuple[str, int]:
    """(text of the first piece, number of its tokens)."""
    for count in range(1, min(MOST_BYTES, len(tokens)) + 1):
        text = tokenizer.decode(list(tokens[:count]))
        # SentencePiece leaves out the blank that a text begins with, but not one between two.
        text = tokenizer.decode(list(tokens[:count]) * 2).removeprefix(text)
        # An incomplete character decodes to U+FFFD.
        if text and "\N{REPLACEMENT CHARACTER}" not in text and len(set(trained[:count])) == 1:
            return text, count
    return str(tokenizer.convert_ids_to_tokens(tokens[0])), 1


def preview(row: Sequence[Piece], width: int) -> Iterator[str]:
    """Lines of a row: the position of the first token, then pieces separated by |, trained ones in [[ ]].

    width: maximum number of characters, unless one piece is longer.
    """
    line, position = "", 0
    for i, piece in enumerate(row):
        text = visible(piece.text) + (f"·{len(piece.tokens)}" if len(piece.tokens) > 1 else "")
        if piece.is_trained:
            text = "[[" * (i == 0 or not row[i - 1].is_trained) + text
            text += "]]" * (i + 1 == len(row) or not row[i + 1].is_trained)
        if line and len(line) + 1 + len(text) > width:
            yield line
            line = ""
        line = f"{line}|{text}" if line else f"  t{position}  {text}"
        position += len(piece.tokens)
    if line:
        yield line


def visible(text: str) -> str:
    """The text of a token with escapes for invisible characters, then the code points of letters beyond ASCII."""
    letters = "".join(ESCAPES.get(letter) or escaped(letter) for letter in text)
    codes = "".join(code_point(letter) for letter in text if not letter.isascii() and letter.isprintable())
    is_mark = bool(text) and unicodedata.category(text[0]).startswith("M")  # would combine with the separator
    return "\N{DOTTED CIRCLE}" * is_mark + letters + codes


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a report: settings, a table with a column per split, reasons why the training would stop, lengths."""
    ranks = f" on {result['ranks']} ranks" if result["ranks"] > 1 else ""
    packed = f"rows are not packed: {result['not_packed']}" if result["not_packed"] else "rows are packed"
    policy = f"max_seq_len {result['max_seq_len']}, too_long {result['too_long']}, train_on {result['train_on']}"
    yield f"{policy}; {result['rows_per_step']} rows per step{ranks}; {packed}"
    columns = [dict(_column(split, result["max_seq_len"])) for split in result["splits"].values()]
    table = [("", *result["splits"]), *((label, *(each[label] for each in columns)) for label in columns[0])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for name, split in result["splits"].items():
        if split["stop"]:
            yield f"\nthe training would stop: {split['path']}: {split['stop']}"
        yield from (
            f"  {escaped(each['what'])}: {each['rows']} rows, {', '.join(each['first'])}; {escaped(each['hint'])}"
            for each in split["unusable"]
        )
        yield from (f"  {each}" for each in split["answers_lost"])
        yield from (f"\n{split['path']}: {note}" for note in split["notes"])
        if split["histogram"]:
            yield from ("", f"{name}, rows by tokens", *bars(split["histogram"]))


def _column(split: Mapping[str, Any], max_seq_len: int) -> Iterator[tuple[str, str]]:
    """(label, text) of each cell of a split's column."""
    tokens, training = split["tokens"], split["training"]
    yield "rows", f"{split['rows']:,}"
    yield "unusable rows", f"{sum(each['rows'] for each in split['unusable']):,}"
    yield "tokens per row", f"{tokens['min']} to {tokens['max']}, median {tokens['median']}, p95 {tokens['p95']}"
    yield f"rows over {max_seq_len} tokens", f"{split['over_max_seq_len']:,}"
    yield "targets", _percent(split["targets"], tokens["total"])
    yield "answers read back", "some are lost" if split["answers_lost"] else "equal" if split["targets"] else "-"
    per_character = f"{split['tokens_per_character']:.2f}; in answers {split['targets_per_character']:.2f}"
    yield "tokens per character", per_character
    yield "unknown tokens", _percent(split["unknown_tokens"], tokens["total"])
    yield "byte tokens", _percent(split["byte_tokens"], tokens["total"])
    yield "rows trained on", f"{training['rows']:,}" if training else "-"
    yield "long rows", _long_rows(training) if training else "-"
    yield "targets trained on", _percent(training["targets"], training["tokens"]) if training else "-"
    yield "packing efficiency", _packing(training) if training else "-"


def _percent(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}, {100 * part / max(1, whole):.1f} %"


def _long_rows(training: Mapping[str, Any]) -> str:
    return f"{training['split']:,} split, {training['dropped']:,} with an answer left out"


def _packing(training: Mapping[str, Any]) -> str:
    """Row tokens among the computed tokens of the first epoch, or of the part of it that was batched."""
    part = f"; {training['rows_laid_out']:,} rows" if training["rows_laid_out"] < training["rows"] else ""
    return _percent(training["real_tokens"], training["computed_tokens"]) + part


def bars(histogram: Sequence[tuple[int, int, int]]) -> list[str]:
    """Lines of a histogram; a bin with at least one row has a bar."""
    most_rows = max(count for _, _, count in histogram)
    digits = len(str(histogram[-1][1]))
    return [
        f"  {low:>{digits}} to {high:>{digits}}  {'█' * math.ceil(BAR * count / most_rows):<{BAR}}  {count:,}"
        for low, high, count in histogram
    ]


def show(result: Mapping[str, Any]) -> None:
    """Print a report as text."""
    print(*lines(result), sep="\n")
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
    for each in result["preview"]:
        row = [Piece(**piece) for piece in each["pieces"]]
        print(f"\ntrain row of {each['tokens']} tokens, {each['targets']} targets: {escaped(each['id'])}")
        print(*preview(row, width), sep="\n")


def main(argv: list[str]) -> None:
    """Print the report of the training that the flags describe."""
    parser = Parser(
        prog="thunder_train.worker.inspect.tokens",
        description="how a training would see its rows; also takes the flags of launch.sh",
        allow_abbrev=False,
    )
    parser.add_argument("--rows", type=int, default=3, help="rows of training data to show token by token")
    parser.add_argument("--ranks", type=int, default=1, help="ranks that train together")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    flags, rest = parser.parse_known_args(argv)
    raise_all(
        [
            ThunderError(f"must be {low} or more, not {value}", where=flag)
            for flag, value, low in (("--rows", flags.rows, 0), ("--ranks", flags.ranks, 1))
            if value < low
        ]
    )
    settings = parse([*REQUIRED, *rest])
    result = report(settings, load(settings), flags.ranks, flags.rows)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends the program without an error
    if flags.json:
        console.print_json(result)
    else:
        show(result)


if __name__ == "__main__":
    enter(main)
