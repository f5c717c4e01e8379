"""What a training will see of its rows, before it runs: their tokens, what becomes of long ones, what is trained on.

Reads a model's tokenizer and config.json, no weight, and train.jsonl and valid.jsonl; prints tables and a few rows in
tokens, or one line of JSON. The training's own functions read, cut and lay out the rows.
"""

import math
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import files
from thunder_train.worker.args import Parser, Settings, parse
from thunder_train.worker.entry import enter
from thunder_train.worker.inspect.token_text import Piece, coloured, pieces, plain, safe

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.tokens import Example

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
    mend = "give an mlx-lm folder, or convert it first"
    files.require(folder / "config.json", mend=mend)
    try:
        config = mlx_lm.utils.load_config(folder)
        tokenizer = mlx_lm.utils.load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:  # tokenizers raises Exception itself
        what = f"mlx-lm cannot load its tokenizer: {error}"
        raise ThunderError(what, where=f"--model {settings.model}", mend=mend) from error
    return Base(tokenizer, model.build(config))


def report(settings: Settings, base: Base, ranks: int, rows: int) -> dict[str, Any]:
    """Facts of both splits, and so many rows of training data in pieces. Schema thunder.tokens/1."""
    import mlx.core as mx

    from thunder_train.worker.batching import packing

    not_packed = packing.why_not(base.model) if settings.packing == "auto" else "packing is off"
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
    from thunder_train.worker.inspect import token_facts

    path = settings.train_data if name == "train" else settings.valid_data
    rows = token_facts.read(path, base.tokenizer, settings.train_on, settings.token_cache)
    found: dict[str, Any] = token_facts.facts(rows, base.tokenizer, settings) | {"path": str(path), "training": None}
    split, stop = token_facts.taken(rows, path, base.tokenizer, settings)
    needed = settings.rows_per_step(ranks)
    if split and name == "train" and len(split.examples) < needed:
        stop = f"has {len(split.examples)} rows, fewer than the {needed} of one step"
    elif split:
        feeds = token_facts.feeds(split, settings, base.model, ranks, is_packed)
        counts = token_facts.training if name == "train" else token_facts.validation
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
            f"  {safe(each['what'])}: {each['rows']} rows, {', '.join(each['first'])}" for each in split["unusable"]
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
        print(f"\ntrain row of {each['tokens']} tokens, {each['targets']} targets: {safe(each['id'])}", flush=True)
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
