"""Text from people and from files: its Unicode form, its letters, and forms that are safe to print.

Input: any text, also hostile text.  Output: text, or a list of grapheme clusters.
"""

import unicodedata

QUOTED = 80
"""Most characters of a value that `quoted` shows."""


def nfc(text: str) -> str:
    """The text in NFC (Unicode UAX 15): marks typed in another order give the same text."""
    return unicodedata.normalize("NFC", text)


def clusters(text: str) -> list[str]:
    """Extended grapheme clusters (Unicode UAX 29): in N'Ko a letter with the tone and nasal marks on it."""
    import regex  # late: a no-op build splits no text

    return regex.findall(r"\X", text)


def printable(text: str) -> str:
    """The text on one line that cannot steer a terminal: U+FFFD for each unprintable character."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def printable_lines(text: str) -> str:
    """As `printable`, but line feeds stay."""
    return "\n".join(map(printable, text.split("\n")))


def escaped(text: str) -> str:
    """As `printable`, but an unprintable character becomes its code point, such as \\u202e, so that nothing is lost."""
    return "".join(letter if letter.isprintable() else code_point(letter) for letter in text)


def code_point(letter: str) -> str:
    """\\u07ca, or \\U0001f600 above U+FFFF."""
    return f"\\u{ord(letter):04x}" if ord(letter) < 2**16 else f"\\U{ord(letter):08x}"


def quoted(value: object) -> str:
    """A value of a file for an error message: quoted, escaped, at most QUOTED characters."""
    shown = repr(value)
    return shown if len(shown) <= QUOTED else f"{shown[:QUOTED]}..."
