"""Text from people and from files: its Unicode form, its letters, and forms that are safe to print.

Input: any text, also hostile text.  Output: text, or a list of grapheme clusters.
"""

import json
import re
import unicodedata

QUOTED = 80
"""Most characters of a value that `quoted` shows."""
_UNSEEN = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f"
)
UNSEEN = re.compile(f"([\x00-\x1f{_UNSEEN}])")
"""Controls, bidi marks, zero-width spaces, surrogates. Not the joiners U+200C and U+200D, which words need."""
UNSEEN_IN_LINES = re.compile(f"([\x00-\x08\x0b-\x1f{_UNSEEN}])")
"""The same for text of several lines, which may hold tabs and line feeds."""


def nfc(text: str) -> str:
    """The text in NFC (Unicode UAX 15): marks typed in another order give the same text."""
    return unicodedata.normalize("NFC", text)


def clusters(text: str) -> list[str]:
    """Extended grapheme clusters (Unicode UAX 29): in N'Ko a letter with the tone and nasal marks on it."""
    import regex  # late: a no-op build splits no text

    return regex.findall(r"\X", text)


def printable(text: str) -> str:
    """The text on one line that cannot steer a terminal: U+FFFD for each character that hides or moves others."""
    return UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_lines(text: str) -> str:
    """As `printable`, but line feeds and tabs stay."""
    return UNSEEN_IN_LINES.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_json(text: str) -> str:
    """JSON of the same value that cannot steer a terminal: such a character stands in a string, and is escaped."""
    return UNSEEN_IN_LINES.sub(lambda match: json.dumps(match.group())[1:-1], text)


def escaped(text: str) -> str:
    """The text with each character that Python calls unprintable as its code point, such as \\u202e."""
    return "".join(letter if letter.isprintable() else code_point(letter) for letter in text)


def code_point(letter: str) -> str:
    """\\u07ca, or \\U0001f600 above U+FFFF."""
    return f"\\u{ord(letter):04x}" if ord(letter) < 2**16 else f"\\U{ord(letter):08x}"


def quoted(value: object) -> str:
    """A value of a file for an error message: quoted, escaped, at most QUOTED characters."""
    shown = repr(value)
    return shown if len(shown) <= QUOTED else f"{shown[:QUOTED]}..."
