"""Rows of train.jsonl or valid.jsonl as tokens, and which tokens are targets: the answers, with their end of turn.

A span (start, end) holds token positions, end excluded.

Tokens are cached on disk, in FOLDER/KEY.tokens: 32 bytes of sha256, then a safetensors file. The key is a hash of
everything that decides the tokens. A damaged file counts as missing.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import safetensors.numpy
import transformers

from thunder_train import ThunderError, raise_all
from thunder_train.core import files
from thunder_train.worker.chat import DEFAULTS, TODAY, Chat

CODE = 1
"""Part of the cache's key. Raise it when this module makes other tokens of the same row."""
DIGEST = 32
"""Bytes of the checksum of a cached file."""

Row = tuple[str, tuple[int, ...], tuple[tuple[int, int], ...]]
"""Row id, tokens, spans of targets: an Example in the cache."""


@dataclass(frozen=True)
class Example:
    """One row in tokens. spans: the answers that are targets, in order, at least one."""

    row_id: str
    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def first_target(self) -> int:
        """Position of the first target; the prompt lies before it."""
        return self.spans[0][0]

    @property
    def targets(self) -> int:
        """Number of targets."""
        return sum(end - start for start, end in self.spans)


@dataclass(frozen=True)
class Split:
    """The rows of one file. dropped: rows with an answer that is left out, too long; split: rows cut into several."""

    examples: tuple[Example, ...]
    dropped: int
    split: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(example.tokens) for example in self.examples)

    @property
    def targets(self) -> int:
        """Targets of all rows."""
        return sum(example.targets for example in self.examples)


@dataclass(frozen=True)
class Policy:
    """max_seq_len: most tokens of a row. too_long: "refuse", "drop" or "split" longer ones. train_on: "last" or "all"
    answers of a row are targets.
    """

    max_seq_len: int
    too_long: str = "refuse"
    train_on: str = "last"


def read(path: Path, chat: Chat, policy: Policy, cache: Path | None = None, may_be_empty: bool = False) -> Split:
    """The rows of a JSONL file in tokens, none longer than the policy allows. cache: folder of cached tokens.

    Raises ThunderError listing every row that cannot be trained on, and unless may_be_empty for a file without usable
    rows.
    """
    examples = read_all(path, chat, policy.train_on, cache)
    long = [each for each in examples if len(each.tokens) > policy.max_seq_len]
    if long and policy.too_long == "refuse":
        raise _too_long(long, path, policy.max_seq_len)
    split = _cut(examples, policy)
    if not split.examples and not may_be_empty:
        raise ThunderError("holds no row to use", where=str(path), hint="run `./doit data`, or raise --max-seq-len")
    return split


def read_all(path: Path, chat: Chat, train_on: str = "last", cache: Path | None = None) -> list[Example]:
    """Every row of a JSONL file in tokens, of any length. Raises ThunderError listing every unusable row."""
    place = cache_path(cache, path, chat, {"code": CODE, "train_on": train_on})
    if place and (cached := load(place)):
        return [Example(*each) for each in cached]
    examples, problems = [], []
    for number, row in enumerate(files.read_jsonl(path, hint="run `./doit data`"), start=1):
        try:
            examples.append(example(row, chat, f"{path}:{number}", train_on))
        except ThunderError as problem:
            problems.append(problem)
    raise_all(problems)
    if place and place == cache_path(cache, path, chat, {"code": CODE, "train_on": train_on}):  # not swapped since
        save(place, [(each.row_id, each.tokens, each.spans) for each in examples])
    return examples


def _too_long(rows: list[Example], path: Path, max_seq_len: int) -> ThunderError:
    listed = ", ".join(f"{row.row_id} ({len(row.tokens)} tokens)" for row in rows)
    return ThunderError(
        f"the answers of {len(rows)} rows would be cut at {max_seq_len} tokens: {listed}",
        where=str(path),
        hint=f"set max_seq_len to {max(len(row.tokens) for row in rows)}, or too_long to drop or split",
    )


def _cut(examples: list[Example], policy: Policy) -> Split:
    kept: list[Example] = []
    dropped = split = 0
    for each in examples:
        fits = len(each.tokens) <= policy.max_seq_len
        parts = [each] if fits else pieces(each, policy.max_seq_len) if policy.too_long == "split" else []
        kept += parts
        dropped += sum(part.targets for part in parts) < each.targets
        split += len(parts) > 1
    return Split(tuple(kept), dropped, split)


def pieces(row: Example, max_seq_len: int) -> list[Example]:
    """A row that is too long as rows that fit: first the answers that fit, then pieces of the answer that is cut.

    Every piece has the whole prompt; later ones also have the end of the piece before, as context. Each token is a
    target exactly once. Answers whose prompt alone does not fit are left out.
    """
    whole = tuple(span for span in row.spans if span[1] <= max_seq_len)
    parts = [(row.tokens[: whole[-1][1]], whole)] if whole else []
    for start, end in (span for span in row.spans if span[0] < max_seq_len < span[1]):
        prompt, done = row.tokens[:start], start
        while done < end:
            # Half of the room is context: with less, a piece would not know how it begins; with more, most of its
            # tokens would be computed again without being targets.
            context = min(done - start, (max_seq_len - start) // 2)
            stop = min(end, done + max_seq_len - start - context)
            first = start + context
            parts.append((prompt + row.tokens[done - context : stop], ((first, first + stop - done),)))
            done = stop
    return [Example(f"{row.row_id}#{number}", *part) for number, part in enumerate(parts, start=1)]


def example(row: Any, chat: Chat, where: str, train_on: str = "last") -> Example:
    """A row in tokens. Raises ThunderError if it has no answer or the chat template does not fit it."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not messages or not _is_chat(messages):
        raise ThunderError("has no `messages` with role and content", where=where, hint="write ChatML rows")
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise ThunderError("has no target: the last message is not an answer", where, hint="end it with an answer")
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    full = render(messages, chat, where, answer=True)
    spans = tuple(_span(messages, i, full, chat, where) for i in (turns if train_on == "all" else turns[-1:]))
    # What follows the last target has nothing to predict, so it would only cost computing.
    return Example(str(row.get("id", where)), tuple(full[: spans[-1][1]]), spans)


def _is_chat(messages: Any) -> bool:
    return isinstance(messages, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    )


def _span(messages: list[dict[str, str]], turn: int, full: list[int], chat: Chat, where: str) -> tuple[int, int]:
    """The span of an answer in the tokens of the whole row, from the end of its prompt to the end of its turn.

    Templates do not mark answers, so each is located by rendering the messages before it. That holds only if the
    template renders these as a prefix of the whole row; Qwen3's, for one, drops the thoughts of earlier answers.
    """
    prompt = render(messages[:turn], chat, where, answer=False)
    start = len(prompt)
    if full[:start] != prompt or len(full) == start:
        fact = "the chat template does not render the prompt as a prefix of the whole row"
        raise ThunderError(fact, where=where, hint="fix the chat template")
    if turn == len(messages) - 1:
        return start, _end_of_turn(full, start, len(full), chat) or len(full)
    if not messages[turn]["content"]:
        raise ThunderError("has an answer without text", where=where, hint="fill it, or set train_on to last")
    # The messages up to this answer and the whole row share a prefix; the answer's end of turn must lie in it.
    so_far = render(messages[: turn + 1], chat, where, answer=True)
    same = next((i for i, pair in enumerate(zip(so_far, full, strict=False)) if pair[0] != pair[1]), len(so_far))
    end = _end_of_turn(full, start, same, chat)
    if not end:
        fact = "the chat template changes earlier answers, or does not end them"
        raise ThunderError(fact, where=where, hint="set train_on to last, or fix the template")
    return start, end


def _end_of_turn(tokens: list[int], start: int, stop: int, chat: Chat) -> int:
    """The position after the last end of turn in start .. stop; 0 if there is none.

    The template's text after it (a newline in Gemma's) is never generated, so it is no target.
    """
    return next((i + 1 for i in range(stop - 1, start - 1, -1) if tokens[i] in chat.tokenizer.eos_token_ids), 0)


def render(messages: list[dict[str, str]], chat: Chat, where: str, answer: bool) -> list[int]:
    """Tokens of messages through the chat template.

    answer: whether the messages end with one; if not, the template opens the model's turn.
    """
    tokens = chat.encode(chat.text(messages, where, is_prompt=not answer))
    if len(tokens) > 1 and tokens[0] == tokens[1] == chat.tokenizer.bos_token_id:
        fact = "the chat template puts two begin-of-text tokens before every row"
        raise ThunderError(fact, where="--model", hint="fix the chat template")
    return tokens


def cache_path(folder: Path | None, data: Path, chat: Chat, settings: dict[str, Any]) -> Path | None:
    """The file for the tokens of a data file. None without a folder, and for a tokenizer that cannot be hashed."""
    tokenizer = chat.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    template = getattr(tokenizer, "chat_template", None)
    if folder is None or backend is None or not data.is_file():
        return None
    key = {
        "data": [str(data), files.sha256(data)],  # the path too: rows without an id are named after it
        "tokenizer": _tokenizer_digest(backend),
        "template": [chat.template or template, str(getattr(tokenizer, "_chat_template", None))],
        "arguments": [dict(DEFAULTS), dict(chat.arguments), TODAY, chat.end_answers],
        "special": [tokenizer.bos_token_id, sorted(tokenizer.eos_token_ids)],
        "versions": [jinja2.__version__, transformers.__version__],
        "settings": settings,
    }
    return folder / f"{files.digest(key)}.tokens"


@functools.lru_cache(maxsize=1)
def _tokenizer_digest(backend: Any) -> str:
    # Gemma's tokenizer is 30 MB of JSON, and several files are read with it.
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def load(path: Path) -> list[Row]:
    """The rows that `save` wrote; none when the file is missing or damaged."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
        return []
    arrays = safetensors.numpy.load(data[DIGEST:])
    ids = json.loads(arrays["ids"].tobytes())
    rows = np.split(arrays["tokens"], arrays["ends"][:-1])
    spans = np.split(arrays["spans"], arrays["span_ends"][:-1])
    return [
        (name, tuple(row.tolist()), tuple((start, end) for start, end in pairs.tolist()))
        for name, row, pairs in zip(ids, rows, spans, strict=True)
    ]


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, if any, whole or not at all. Raises ThunderError when the folder cannot be written.

    Rows of all lengths lie in one array, with the position where each ends, so that reading parses no text but the ids.
    """
    if not rows:
        return  # np.split of an empty array gives one row, not none
    ids = json.dumps([name for name, _, _ in rows]).encode()
    arrays = {
        "ids": np.frombuffer(ids, np.uint8),
        "tokens": np.array([token for _, tokens, _ in rows for token in tokens], np.int32),
        "ends": np.array(list(itertools.accumulate(len(tokens) for _, tokens, _ in rows)), np.int64),
        "spans": np.array([span for _, _, spans in rows for span in spans], np.int32).reshape(-1, 2),
        "span_ends": np.array(list(itertools.accumulate(len(spans) for _, _, spans in rows)), np.int64),
    }
    data = safetensors.numpy.save(arrays)
    files.write_bytes(path, hashlib.sha256(data).digest() + data)
