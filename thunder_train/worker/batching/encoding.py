"""Passages of text as tokens: each text is encoded once, and the tokens of its targets are found by their characters.

The tokens before a target are those of its prompt alone, which a generation begins with.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from thunder_train import ThunderError
from thunder_train.core.text import escaped
from thunder_train.worker.batching.targets import Passage
from thunder_train.worker.chat import Chat

ANCHORS = ("\n", "a", ".", "0")
"""Texts before a text, so that a tokenizer does not take it for the beginning of a line."""

Tokens = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""Tokens of a passage, up to the end of its last target, and the (start, end) of each target among them."""


def encode(passages: Sequence[Passage], chat: Chat) -> list[Tokens]:
    """The tokens of each passage. Raises ThunderError if the vocabulary lacks the token that must end an answer.

    And for a token that the model has no embedding for: MLX would read whatever lies behind them in memory.
    """
    if not passages:
        return []
    return [
        _finished(_placed(passage, encoded, chat), passage, chat)
        for passage, encoded in zip(passages, _encoded([each.text for each in passages], chat), strict=True)
    ]


def is_fast(chat: Chat) -> bool:
    """Whether the tokenizer tells which characters a token stands for, and encodes many texts at a time."""
    tokenizer = chat.wrapped
    return bool(getattr(tokenizer, "is_fast", False)) and type(tokenizer).encode is PreTrainedTokenizerBase.encode


def _encoded(texts: list[str], chat: Chat) -> list[Any]:
    """Of each text an Encoding of the library tokenizers, or its tokens alone."""
    if not is_fast(chat):
        return [chat.encode(text) for text in texts]
    batch = chat.wrapped(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return list(batch.encodings)


def _placed(passage: Passage, encoded: Any, chat: Chat) -> Tokens:
    """Tokens and spans of a passage without what is added at its ends."""
    text = passage.text
    if isinstance(encoded, list):
        ids, starts = encoded, [_same_prefix(encoded, text[:start], chat) for start, _ in passage.targets]
        ends = [len(ids) if end == len(text) else _same_prefix(ids, text[:end], chat) for _, end in passage.targets]
    else:
        ids = encoded.ids
        starts = [_boundary(encoded, ids, text, start, chat) for start, _ in passage.targets]
        ends = [_end_boundary(encoded, ids, text, end, chat) for _, end in passage.targets]
    if -1 in starts or -1 in ends:
        return _in_pieces(passage, chat)
    return tuple(ids[: ends[-1]]), tuple(zip(starts, ends, strict=True))


def _boundary(encoded: Any, ids: list[int], text: str, position: int, chat: Chat) -> int:
    """How many tokens stand for the text before a position; -1 if one lies across it, or if they are not its tokens.

    Where no token lies across, merges of byte pairs never crossed the position, so the tokens before it are those of
    the text before alone. But how blanks are parted into words depends on what follows them.
    """
    if position in (0, len(text)):
        return len(ids) if position else 0
    token = encoded.char_to_token(position)
    if token is None:
        return _same_prefix(ids, text[:position], chat)
    is_clean = encoded.token_to_chars(token)[0] == position and (
        token == 0 or encoded.token_to_chars(token - 1)[1] <= position
    )
    has_blanks = text[position - 2 : position].isspace() or " " in text[position - 1 : position + 1]
    if not has_blanks:
        return token if is_clean else -1
    if is_clean and _is_tail(encoded, ids, token, text[:position], chat):
        return int(token)
    return _same_prefix(ids, text[:position], chat)


def _is_tail(encoded: Any, ids: list[int], token: int, before: str, chat: Chat) -> bool:
    """Whether the tokens before `token` are those of the text before, as far back as an added token parts the text."""
    added = chat.added_tokens
    first = next((i + 1 for i in range(token - 1, -1, -1) if ids[i] in added), 0)
    start = encoded.token_to_chars(first - 1)[1] if first else 0
    return ids[first:token] == chat.encode_tail(before[start:])


def _end_boundary(encoded: Any, ids: list[int], text: str, position: int, chat: Chat) -> int:
    """The same for the end of a target. Mostly an end of turn lies before it, which no other text is joined to."""
    token = None if position in (0, len(text)) else encoded.char_to_token(position - 1)
    if token is not None and ids[token] in chat.tokenizer.eos_token_ids:
        return int(token) + 1
    return _boundary(encoded, ids, text, position, chat)


def _same_prefix(ids: list[int], before: str, chat: Chat) -> int:
    alone = chat.encode(before)
    return len(alone) if ids[: len(alone)] == alone else -1


def _in_pieces(passage: Passage, chat: Chat) -> Tokens:
    """Tokens of prompts and targets, each encoded alone, where the tokens of the whole text lie across a border.

    A generation begins with the tokens of the prompt, so it never writes a token that begins in the prompt.
    """
    ids, spans, done = list[int](), list[tuple[int, int]](), 0
    for start, end in passage.targets:
        ids += _continued(passage.text[done:start], chat, is_first=done == 0)
        first = len(ids)
        ids += _continued(passage.text[start:end], chat, is_first=start == 0)
        spans.append((first, len(ids)))
        done = end
    return tuple(ids), tuple(spans)


def _continued(text: str, chat: Chat, is_first: bool) -> list[int]:
    """Tokens of a text that continues another. SentencePiece would put a blank before it."""
    if is_first or not text:
        return chat.encode(text) if text else []
    for anchor in ANCHORS:
        before, both = chat.encode(anchor), chat.encode(anchor + text)
        if both[: len(before)] == before:
            return both[len(before) :]
    return chat.encode(text)


def _finished(placed: Tokens, passage: Passage, chat: Chat) -> Tokens:
    """Tokens and spans with the first token of a plain text, and the end-of-sequence token."""
    ids, spans = placed
    if passage.is_plain:
        first = first_tokens(chat)
        # Without one, the first token of the text has nothing to be predicted from, so it is no target.
        start = len(first) or 1
        ids, spans = first + ids, ((start, len(first) + len(ids)),)
    needs_end = passage.adds_end or (chat.end_answers and bool(ids) and ids[-1] not in chat.tokenizer.eos_token_ids)
    if needs_end:
        ids, spans = (*ids, _end(chat)), (*spans[:-1], (spans[-1][0], spans[-1][1] + 1))
    if chat.vocabulary and ids and (token := max(ids)) >= chat.vocabulary:
        word = escaped(chat.tokenizer.decode([token]))
        what = f"the tokenizer writes {word} as token {token}, and the model's vocabulary has {chat.vocabulary} tokens"
        raise ThunderError(what, "--model", "use the tokenizer that belongs to the model, or a template without it")
    if len(ids) > 1 and ids[0] == ids[1] == chat.tokenizer.bos_token_id:
        fact = "the chat template puts two begin-of-text tokens before every row"
        raise ThunderError(fact, where="--model", hint="fix the chat template")
    return ids, spans


def first_tokens(chat: Chat) -> tuple[int, ...]:
    """The token that the tokenizer puts before every text, if it does."""
    bos = chat.tokenizer.bos_token_id
    return (bos,) if bos is not None and chat.tokenizer.encode("a")[:1] == [bos] else ()


def _end(chat: Chat) -> int:
    token = chat.tokenizer.eos_token_id
    if token is None:
        token = min(chat.tokenizer.eos_token_ids, default=None)
    if token is None:
        hint = "set end_answers to false in [models.NAME], or name eos_token in tokenizer_config.json"
        raise ThunderError("the tokenizer has no end-of-sequence token to end answers with", "--model", hint)
    return int(token)
