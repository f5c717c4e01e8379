"""Tokens as people read them: one by one in the order the model sees them, those that are trained on marked.

A terminal or editor may lay out N'Ko from the right. So each line begins with a Latin letter, and each letter beyond
ASCII is followed by its code point, which keeps tokens in their order without a control character in the output.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

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
    letters = "".join(ESCAPES.get(letter) or safe(letter) for letter in text)
    codes = "".join(_escape(letter) for letter in text if not letter.isascii() and letter.isprintable())
    is_mark = bool(text) and unicodedata.category(text[0]).startswith("M")  # it would sit on the separator
    return "\N{DOTTED CIRCLE}" * is_mark + letters + codes


def safe(text: str) -> str:
    """Text of a file on one line, unable to steer a terminal."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 2**16 else f"\\U{ord(letter):08x}"


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
