"""The answer in what a model wrote: without thoughts, and without the headers of a chat template's channels.

Input: the tokens of an answer, with the prompt before it and the reference.  Output: `Answer`, the text that is scored.
What a template writes around an answer is found in the rows' own answers; what a family of models may write besides, as
a base does that was not trained on them, is in THOUGHTS, CHANNELS and WRAPPERS. A mark that the reference itself holds
is text like any other, and stays.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

STOP, LENGTH, THINKING = "stop", "length", "thinking"
"""How an answer ended: by itself, at the cap, or before it began, inside the model's thoughts."""

THOUGHTS = (
    ("<think>", "</think>"),  # Qwen3, DeepSeek, GLM, Nemotron, Kimi K2, MiniMax
    ("<|channel>", "<channel|>"),  # Gemma 4; its only channel is "thought"
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command R7B
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel 1.6
)
"""Marks around thoughts, for tokenizers to which mlx-lm gives no think_start and think_end of their own."""
WRAPPERS = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "[END FINAL RESPONSE]")
"""Marks around an answer, which belong to the template: Command R7B's and Apriel's."""
PROMPT_TOKENS = 32
"""Tokens at the end of a prompt in which the template may have opened thoughts or a channel."""
EXAMPLES = 32
"""Most rows in which a template's header is looked for: those with the longest answers."""
SHORTEST_PART = 2
"""Fewest characters of a mark that was cut at the cap: a single "<" may be the text."""


@dataclass(frozen=True)
class Channels:
    """Headers of the form HEAD name BODY, each followed by text up to one of `ends` or the next header."""

    head: str
    body: str
    ends: tuple[str, ...]
    thoughts: str
    """Name of the channel that holds thoughts. The text of every other channel is the answer."""


CHANNELS = (
    Channels("<|channel|>", "<|message|>", ("<|end|>", "<|start|>", "<|return|>", "<|call|>"), "analysis"),  # gpt-oss
    Channels("<|open|>", "<|sep|>", ("<|close|>", "<|end_of_msg|>"), "think"),  # Kimi K3
)


@dataclass(frozen=True)
class Answer:
    """text: without control tokens and outer blanks. finish: STOP, LENGTH at the cap, or THINKING, with an empty text.
    special: number of control tokens that were removed, those of the template not counted. raw: the text with its
    blanks, if it has some; else None.
    """

    text: str
    finish: str
    special: int
    raw: str | None = None


@dataclass(frozen=True)
class Marks:
    """What the answers of a run may hold besides their text.

    special: ids of control tokens. header, trailer: what the chat template writes before and after each answer of the
    rows, end of sequence left out. may_open: whether a prompt that ends in thoughts leaves it to the answer to close
    them.
    """

    tokenizer: Any
    special: frozenset[int]
    header: str = ""
    trailer: str = ""
    may_open: bool = True
    thoughts: tuple[tuple[str, str], ...] = THOUGHTS
    channels: tuple[Channels, ...] = CHANNELS
    wrappers: tuple[str, ...] = WRAPPERS

    def without(self, reference: str) -> "Marks":
        """The marks that a reference does not hold: there they are text."""
        return replace(
            self,
            header="" if reference.startswith(self.header) else self.header,
            trailer="" if reference.endswith(self.trailer) else self.trailer,
            thoughts=tuple(pair for pair in self.thoughts if not any(mark in reference for mark in pair)),
            channels=tuple(each for each in self.channels if each.head not in reference and each.body not in reference),
            wrappers=tuple(each for each in self.wrappers if each not in reference),
        )


@dataclass(frozen=True)
class _Cut:
    """A text with its thoughts and headers removed. has_thoughts: it had some. is_open: it ended inside of them."""

    text: str
    has_thoughts: bool = False
    is_open: bool = False


def marks_of(tokenizer: Any, rows: Sequence[tuple[Sequence[int], str]] = ()) -> Marks:
    """The marks of a tokenizer and its chat template.

    rows: their own answers, as the template's tokens and as text; the text of one that only calls tools is "".
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    flagged = {token for token, each in added.items() if each.special}
    special = frozenset(tokenizer.all_special_ids) | flagged  # transformers 5 lists only named tokens in the former
    # A template may write a call with control tokens: they are right in an answer.
    special -= {token for tokens, text in rows if not text.strip() for token in tokens}
    own = (getattr(tokenizer, "think_start", None), getattr(tokenizer, "think_end", None))
    thoughts = (*(((own[0], own[1]),) if own[0] and own[1] and own not in THOUGHTS else ()), *THOUGHTS)
    around = [_around(tokens, text.strip(), tokenizer) for tokens, text in _longest(rows)]
    headers, trailers = [[pair[at] for pair in around if pair] for at in (0, 1)]
    header, trailer = _common(headers), _common(trailers)
    # Nemotron's prompt opens thoughts that its rows never close: their answers are no thoughts.
    may_open = not headers or any(end in header for _, end in thoughts) or any(each.body in header for each in CHANNELS)
    return Marks(tokenizer, special, header, trailer, may_open, thoughts)


def _common(texts: Sequence[str]) -> str:
    """The text that more than half of some texts are; "" if there is none."""
    text, count = max(Counter(texts).items(), key=lambda item: item[1], default=("", 0))
    return text if 2 * count > len(texts) else ""


def _longest(rows: Sequence[tuple[Sequence[int], str]]) -> list[tuple[Sequence[int], str]]:
    """The rows with the longest answers: a short one may stand in the template's own words, too."""
    return sorted((row for row in rows if row[1].strip()), key=lambda row: -len(row[1]))[:EXAMPLES]


def _around(tokens: Sequence[int], text: str, tokenizer: Any) -> tuple[str, str] | None:
    """What stands before and after a text in tokens, blanks and the end of sequence left out; None if it is not there.

    The template may have changed the text, as Qwen3's does if it holds a mark of thoughts.
    """
    ends = tokenizer.eos_token_ids
    before, has_text, after = tokenizer.decode(
        [token for token in tokens if token not in ends], skip_special_tokens=False
    ).rpartition(text)
    return (before.strip(), after.strip()) if has_text else None


def read(tokens: Sequence[int], prompt: Sequence[int], reference: str, marks: Marks, is_cut: bool = False) -> Answer:
    """The answer in tokens. reference: the marks in it are text. is_cut: the tokens end at the cap."""
    marks, tokenizer = marks.without(reference), marks.tokenizer
    whole = tokenizer.decode(list(tokens), skip_special_tokens=False)
    tail = tokenizer.decode(list(prompt[-PROMPT_TOKENS:]), skip_special_tokens=False)
    opening = _opened(tail, marks) if marks.may_open else ""
    cut = _answer_in(opening + whole, marks, reference)
    if cut.text == whole:
        raw = tokenizer.decode(list(tokens), skip_special_tokens=True)
        special = sum(token in marks.special for token in tokens)
    else:
        raw, special = _without_control(cut.text, [tokenizer.decode([each]) for each in marks.special & set(tokens)])
    text = raw.strip()
    is_thinking = not text and (cut.is_open or (is_cut and cut.has_thoughts))
    if is_thinking or (is_cut and _begins_a_mark(text, marks)):
        return Answer("", THINKING, special)
    return Answer(text, LENGTH if is_cut else STOP, special, raw if raw != text else None)


def _answer_in(whole: str, marks: Marks, reference: str) -> _Cut:
    """A text without thoughts and headers, up to the end of its turn."""
    text, has_thoughts = _after_header(whole, marks.header, reference)
    is_open = False
    for channels in marks.channels:
        if channels.head in text:
            cut = _without_channels(text, channels)
            text, has_thoughts, is_open = cut.text, has_thoughts or cut.has_thoughts, is_open or cut.is_open
    for start, end in marks.thoughts:
        cut = _without_thoughts(text, start, end)
        text, has_thoughts, is_open = cut.text, has_thoughts or cut.has_thoughts, is_open or cut.is_open
    for mark in marks.wrappers:
        text = text.replace(mark, "")
    if text != whole:
        text = text.lstrip()  # line breaks between a header and the answer are the template's
    return _Cut(_before_trailer(text, marks.trailer, reference), has_thoughts, is_open)


def _after_header(text: str, header: str, reference: str) -> tuple[str, bool]:
    """(text after a header, whether something stands before it).

    Words, such as "all", and marks that the reference holds are a header at the start only.
    """
    if _is_mark(header) and header in text and header not in reference:
        before, _, after = text.rpartition(header)
        return after, bool(before.strip())
    start = text.lstrip()
    return (start.removeprefix(header) if header and start.startswith(header) else text), False


def _before_trailer(text: str, trailer: str, reference: str) -> str:
    """The text before a trailer and its blanks. Words, and marks that the reference holds, are one at the end only."""
    if not trailer:
        return text
    if _is_mark(trailer) and trailer not in reference:
        before, is_there, _ = text.partition(trailer)
        return before.rstrip() if is_there else text
    end = text.rstrip()
    return end.removesuffix(trailer).rstrip() if end.endswith(trailer) else text


def _is_mark(text: str) -> bool:
    """Whether a text can hardly be a part of an answer."""
    return any(sign in text for sign in "<[|")


def _without_channels(text: str, channels: Channels) -> _Cut:
    """The text of each channel but the thoughts. A header that lacks its body token has no text."""
    first, *pieces = text.split(channels.head)
    kept, name, has_thoughts = [_up_to(first, channels.ends)], "", False
    for piece in pieces:
        name, has_body, content = piece.partition(channels.body)
        name = name.strip()
        if has_body and name.partition(" ")[0] == channels.thoughts:
            has_thoughts = True
        elif has_body:
            recipient = name.partition(" ")[2]  # of a call of a tool
            kept.append(f" {recipient} " * bool(recipient) + _up_to(content, channels.ends))
    # The cap may have cut the last header in its name: "anal".
    return _Cut("".join(kept), has_thoughts, bool(name) and channels.thoughts.startswith(name))


def _without_thoughts(text: str, start: str, end: str) -> _Cut:
    """A text without the blocks from start to end. An end without a start closes thoughts that the prompt opened."""
    first, *pieces = re.split(f"({re.escape(start)}|{re.escape(end)})", text)
    kept, is_open = [first], False
    for mark, piece in zip(pieces[::2], pieces[1::2], strict=True):
        if mark == end and not is_open:
            kept.clear()
        is_open = mark == start
        if not is_open:
            kept.append(piece)
    return _Cut("".join(kept), bool(pieces), is_open)


def _opened(tail: str, marks: Marks) -> str:
    """The mark or header that a prompt ends with, "" if it ends with none. tail: the end of the prompt as text."""
    starts = [re.escape(start) + r"\w*" for start, _ in marks.thoughts]
    headers = [f"{re.escape(each.head)}[^<]*(?:{re.escape(each.body)})?" for each in marks.channels]
    match = re.search(rf"({'|'.join([*starts, *headers])})\s*$", tail) if starts or headers else None
    return match[1] if match else ""


def _begins_a_mark(text: str, marks: Marks) -> bool:
    """Whether a text is the beginning of a mark before thoughts, which the cap cut."""
    return len(text) >= SHORTEST_PART and any(start.startswith(text) for start, _ in marks.thoughts)


def _up_to(text: str, ends: Sequence[str]) -> str:
    """The text before the first of some marks."""
    return min((text.partition(end)[0] for end in ends), key=len)


def _without_control(text: str, control: Sequence[str]) -> tuple[str, int]:
    """(text without control tokens, how many it held)."""
    if not control:
        return text, 0
    return re.subn("|".join(map(re.escape, sorted(control, key=len, reverse=True))), "", text)
