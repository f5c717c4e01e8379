"""Rows to tokens, and which rows each rank takes at each step.

Reads train.jsonl or valid.jsonl. Only the last assistant message is trained on, up to the token that ends its turn.
Shapes: B rows of a rank, T tokens of the longest of them.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import mlx.core as mx

from thunder_train import ThunderError, files, raise_all


@dataclass(frozen=True)
class Example:
    """One row in tokens; those from first_target on are trained on."""

    row_id: str
    tokens: tuple[int, ...]
    first_target: int

    @property
    def targets(self) -> int:
        """How many tokens are trained on."""
        return len(self.tokens) - self.first_target


@dataclass(frozen=True)
class Split:
    """The rows of one file. dropped: rows left out because they are too long."""

    examples: tuple[Example, ...]
    dropped: int

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(example.tokens) for example in self.examples)

    @property
    def targets(self) -> int:
        """Tokens that are trained on or scored."""
        return sum(example.targets for example in self.examples)


def read(path: Path, tokenizer: Any, max_seq_len: int, too_long: str) -> Split:
    """Every row of a JSONL file in tokens. too_long: "refuse" or "drop" rows of more than max_seq_len tokens.

    Raises ThunderError listing every row that cannot be trained on, and for a file without rows.
    """
    examples = read_all(path, tokenizer)
    fitting = tuple(each for each in examples if len(each.tokens) <= max_seq_len)
    if too_long == "refuse" and len(fitting) < len(examples):
        raise _too_long([each for each in examples if len(each.tokens) > max_seq_len], path, max_seq_len)
    if not fitting:
        raise ThunderError("holds no row to use", where=str(path), mend="run `./doit data`, or raise --max-seq-len")
    return Split(fitting, dropped=len(examples) - len(fitting))


def read_all(path: Path, tokenizer: Any) -> list[Example]:
    """Every row of a JSONL file in tokens, whatever its length. Raises ThunderError listing every unusable row."""
    examples, problems = [], []
    for number, row in enumerate(files.read_jsonl(path, mend="run `./doit data`"), start=1):
        try:
            examples.append(example(row, tokenizer, where=f"{path}:{number}"))
        except ThunderError as problem:
            problems.append(problem)
    raise_all(problems)
    return examples


def _too_long(rows: list[Example], path: Path, max_seq_len: int) -> ThunderError:
    listed = ", ".join(f"{row.row_id} ({len(row.tokens)} tokens)" for row in rows)
    return ThunderError(
        f"the answers of {len(rows)} rows would be cut at {max_seq_len} tokens: {listed}",
        where=str(path),
        mend=f"set max_seq_len to {max(len(row.tokens) for row in rows)}, or too_long to drop",
    )


def example(row: Any, tokenizer: Any, where: str) -> Example:
    """A row in tokens. Raises ThunderError if it has no answer or the chat template does not fit it."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not messages or not _is_chat(messages):
        raise ThunderError("has no `messages` with role and content", where=where, mend="write ChatML rows")
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise ThunderError("has no target: the last message is no answer", where=where, mend="end it with an answer")
    prompt, full = (
        render(messages[:-1], tokenizer, where, answer=False),
        render(messages, tokenizer, where, answer=True),
    )
    if full[: len(prompt)] != prompt or len(full) == len(prompt):
        raise ThunderError("the prompt is no beginning of the whole row", where=where, mend="mend the chat template")
    return Example(str(row.get("id", where)), tuple(_until_end_of_turn(full, len(prompt), tokenizer)), len(prompt))


def _is_chat(messages: Any) -> bool:
    return isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    )


def render(messages: list[dict[str, str]], tokenizer: Any, where: str, answer: bool) -> list[int]:
    """Tokens of messages through the chat template, straight: rendering to text first would add a second <bos>.

    answer: whether the messages end with one; if not, the template opens the model's turn.
    """
    if not tokenizer.has_chat_template:
        raise ThunderError("the tokenizer has no chat template", where="--model", mend="use an instruction-tuned model")
    try:
        tokens = list(tokenizer.apply_chat_template(messages, add_generation_prompt=not answer))
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise ThunderError(f"the chat template refuses it: {error}", where=where, mend="change its roles") from error
    if len(tokens) > 1 and tokens[0] == tokens[1] == tokenizer.bos_token_id:
        raise ThunderError("the chat template begins every row twice", where="--model", mend="mend the chat template")
    return tokens


def _until_end_of_turn(tokens: list[int], start: int, tokenizer: Any) -> list[int]:
    """What follows the end of the answer's turn, a newline in Gemma, is never generated, so it teaches nothing."""
    ends = [i for i in range(start, len(tokens)) if tokens[i] in tokenizer.eos_token_ids]
    return tokens[: ends[-1] + 1] if ends else tokens


@functools.lru_cache(maxsize=2)
def order(seed: int, epoch: int, rows: int) -> tuple[int, ...]:
    """The rows' order in an epoch: a permutation that depends on nothing but the arguments."""
    indices = list(range(rows))
    random.Random(f"{seed}:{epoch}").shuffle(indices)  # noqa: S311  (order, not secrecy)
    return tuple(indices)


def shares(rows: int, step: int, seed: int, batch_size: int, rank: int, ranks: int) -> tuple[int, ...]:
    """The rows that a rank takes at a step (counted from 0); together the ranks take each row once per epoch.

    The last batch of an epoch may be short: some ranks then get fewer rows, or none.
    """
    whole = batch_size * ranks
    steps_per_epoch = -(-rows // whole)
    epoch, position = divmod(step, steps_per_epoch)
    start = position * whole + rank * batch_size
    return order(seed, epoch, rows)[start : min(start + batch_size, (position + 1) * whole)]


def check_batch(rows: int, batch_size: int, ranks: int, path: Path) -> None:
    """Raise ThunderError when one step would need more rows than there are."""
    if batch_size * ranks > rows:
        raise ThunderError(
            f"has {rows} rows, fewer than the {batch_size} x {ranks} ranks of one step",
            where=str(path),
            mend=f"set batch_size to {max(1, rows // ranks)} or use fewer ranks",
        )


def pad(examples: Sequence[Example]) -> tuple[mx.array, mx.array]:
    """(B, T) tokens and the (B, T - 1) mask of targets: column j of the mask stands for token j + 1.

    Padding is masked by its position, never by its value, which is a real token.
    """
    width = max(len(each.tokens) for each in examples)
    tokens = [[*each.tokens, *([0] * (width - len(each.tokens)))] for each in examples]
    mask = [[int(each.first_target <= j < len(each.tokens)) for j in range(1, width)] for each in examples]
    return mx.array(tokens, mx.int32), mx.array(mask, mx.float32)
