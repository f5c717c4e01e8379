"""Whisper's normaliser of English texts, under which most English word error rates are published.

Radford and others 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", appendix C: no brackets, fillers
or punctuation; contractions written out; numbers and amounts of money in digits; American spellings.  Every text gives
what EnglishTextNormalizer of openai-whisper 20250625 gives, its oddities included: scores are comparable only then.
That package cannot be a dependency, because it brings PyTorch; docs/decisions/0019 has the reasons.
"""

import re
import unicodedata
from fractions import Fraction
from functools import cache

from thunder_train.evaluate.whisper_spellings import SPELLINGS

BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]")
PARENTHESES = re.compile(r"\(([^)]+?)\)")
FILLERS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um)\b")
WORDS_IN_FULL = {
    "won't": "will not",
    "can't": "can not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "wanna": "want to",
    "gotta": "got to",
    "gonna": "going to",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "ma'am": "madam",
    "mr": "mister ",
    "mrs": "missus ",
    "st": "saint ",
    "dr": "doctor ",
    "prof": "professor ",
    "capt": "captain ",
    "gov": "governor ",
    "ald": "alderman ",
    "gen": "general ",
    "sen": "senator ",
    "rep": "representative ",
    "pres": "president ",
    "rev": "reverend ",
    "hon": "honorable ",
    "asst": "assistant ",
    "assoc": "associate ",
    "lt": "lieutenant ",
    "col": "colonel ",
    "jr": "junior ",
    "sr": "senior ",
    "esq": "esquire ",
}
ENDS_IN_FULL = {
    "'d been": " had been",
    "'s been": " has been",
    "'d gone": " had gone",
    "'s gone": " has gone",
    "'d done": " had done",
    "'s got": " has got",
    "n't": " not",
    "'re": " are",
    "'s": " is",
    "'d": " would",
    "'ll": " will",
    "'t": " not",
    "'ve": " have",
    "'m": " am",
}
IN_FULL = tuple(
    (short, re.compile(rf"{start}{short}\b"), full)
    for start, table in ((r"\b", WORDS_IN_FULL), ("", ENDS_IN_FULL))
    for short, full in table.items()
)
"""What is written in full, in the order in which it is: as text, as pattern, and in full."""
KEPT_SYMBOLS = ".%$¢€£"
LETTERS = {"œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ß": "ss", "ẞ": "SS", "đ": "d", "Đ": "D"} | {
    "ð": "d",
    "Ð": "D",
    "þ": "th",
    "Þ": "th",
    "ł": "l",
    "Ł": "L",
}
"""Letters that NFKD leaves whole."""

ZEROS = frozenset(("o", "oh", "zero"))
_ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_THOUSANDS = (
    "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion"
)
ONES = {name: number for number, name in enumerate(_ONES.split(), start=1)}
TENS = {name: 10 * number for number, name in enumerate(_TENS.split(), start=2)}
MULTIPLIERS = {"hundred": 100} | {name: 1000**power for power, name in enumerate(_THOUSANDS.split(), start=1)}
ORDINALS = {"zeroth": 0, "first": 1, "second": 2, "third": 3, "fifth": 5, "twelfth": 12}
ENDED = {
    **{"sixes" if name == "six" else f"{name}s": (number, "s") for name, number in ONES.items()},
    **{name: (number, {1: "st", 2: "nd", 3: "rd"}.get(number, "th")) for name, number in ORDINALS.items()},
    **{
        f"{name}h" if name.endswith("t") else f"{name}th": (number, "th")
        for name, number in ONES.items()
        if number > 3 and number not in (5, 12)
    },
    **{name.replace("y", "ies"): (number, "s") for name, number in TENS.items()},
    **{name.replace("y", "ieth"): (number, "th") for name, number in TENS.items()},
}
"""Plurals and ordinals: {word: (number, end)}."""
ENDED_MULTIPLIERS = {f"{name}{end}": (number, end) for name, number in MULTIPLIERS.items() for end in ("s", "th")}
SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
"""Words whose sign goes before the number after them."""
CURRENCIES = {"pound": "£", "euro": "€", "dollar": "$", "cent": "¢"}
CURRENCIES |= {f"{name}s": sign for name, sign in CURRENCIES.items()}
"""Words whose sign goes before the number before them."""
SYMBOLS = frozenset((*SIGNS.values(), *CURRENCIES.values()))
SPECIAL = frozenset(("and", "double", "triple", "point"))
DECIMALS = ZEROS | {*ONES, *TENS}
WORDS = DECIMALS | SPECIAL | {*ENDED, *MULTIPLIERS, *ENDED_MULTIPLIERS, *SIGNS, *CURRENCIES, "per", "percent"}
NUMBER = re.compile(r"\d+(\.\d+)?")
MOST_DIGITS = 4000
"""Python converts no longer texts to numbers."""
HALF = re.compile(r"\band\s+a\s+half\b")


def normalised(text: str) -> str:
    """The text as Whisper's English normaliser writes it. A blank at its ends may stay."""
    text = FILLERS.sub("", PARENTHESES.sub("", BRACKETS.sub("", text.lower())))
    text = re.sub(r"\s+'", "'", text)
    for short, pattern, full in IN_FULL:
        if short in text:  # most are not, and the pattern is slower
            text = pattern.sub(full, text)
    text = re.sub(r"(\d),(\d)", r"\1\2", text)
    text = re.sub(r"\.([^0-9]|$)", r" \1", text)
    text = _in_digits(_without_symbols(text))
    text = " ".join(SPELLINGS.get(word, word) for word in text.split())
    text = re.sub(r"[.$¢€£]([^0-9])", r" \1", text)
    text = re.sub(r"([^0-9])%", r"\1 ", text)
    return re.sub(r"\s+", " ", text)


def _without_symbols(text: str) -> str:
    """The text without diacritics, a blank for each symbol that belongs to no number."""
    return "".join(map(_letter, unicodedata.normalize("NFKD", text)))


@cache
def _letter(letter: str) -> str:
    if letter in KEPT_SYMBOLS or letter in LETTERS:
        return LETTERS.get(letter, letter)
    category = unicodedata.category(letter)
    return "" if category == "Mn" else " " if category[0] in "MSP" else letter


def _in_digits(text: str) -> str:
    """The text with its numbers, ordinals, percentages and amounts of money in digits."""
    text = " ".join(_with_halves(HALF.split(text)))
    text = re.sub(r"([a-z])([0-9])", r"\1 \2", text)
    text = re.sub(r"([0-9])([a-z])", r"\1 \2", text)
    text = re.sub(r"([0-9])\s+(st|nd|rd|th|s)\b", r"\1\2", text)
    text = _Reader(text.split()).read()
    text = re.sub(
        r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})\b", lambda amount: "{}{}.{:0>2}".format(*amount.groups()), text
    )
    text = re.sub(r"[€£$]0.([0-9]{1,2})\b", lambda cents: f"¢{int(cents.group(1))}", text)
    return re.sub(r"\b1(s?)\b", r"one\1", text)


def _with_halves(parts: list[str]) -> list[str]:
    """What stands between the parts of a text where it said "and a half"; blank parts are left out."""
    written: list[str] = []
    for at, part in enumerate(parts):
        if not part.strip():
            continue
        written.append(part)
        if at < len(parts) - 1:
            is_number = part.split()[-1] in (DECIMALS | MULTIPLIERS.keys())
            written.append("point five" if is_number else "and a half")
    return written


class _Reader:
    """Reads words from the left and writes numbers in digits.

    value: the number that the last words gave: a whole number that may still grow, or digits that others follow.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.value: int | str | None = None
        self.prefix = ""
        self.written: list[str] = []

    def read(self) -> str:
        """The text."""
        at = 0
        while at < len(self.words):
            before = self.words[at - 1] if at else ""
            after = self.words[at + 1] if at + 1 < len(self.words) else ""
            at += 2 if self._reads_two(self.words[at], before, after) else 1
        self._end()
        return " ".join(self.written)

    def _write(self, text: int | str) -> None:
        self.written.append(f"{self.prefix}{text}")
        self.prefix, self.value = "", None

    def _end(self) -> None:
        """Write the number that the last words gave, if any."""
        if self.value is not None:
            self._write(self.value)

    def _reads_two(self, word: str, before: str, after: str) -> bool:
        """Read a word. Whether the word after it is read, too."""
        has_symbol = word[0] in SYMBOLS
        if NUMBER.fullmatch(word[1:] if has_symbol else word):
            self._digits(word, has_symbol)
        elif word not in WORDS:
            self._end()
            self._write(word)
        elif word in SPECIAL or word in SIGNS:
            return self._special(word, before, after)
        elif word in ("per", "percent"):
            return self._percent(word, after)
        elif word in CURRENCIES and self.value is not None:
            self.prefix = CURRENCIES[word]
            self._write(self.value)
        elif word in CURRENCIES:
            self._write(word)
        else:
            self._number(word, before)
        return False

    def _digits(self, word: str, has_symbol: bool) -> None:
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word
            return
        self._end()
        if has_symbol:
            self.prefix, word = word[0], word[1:]
        number = _fraction(word)
        self.value = number.numerator if number is not None and number.denominator == 1 else word

    def _number(self, word: str, before: str) -> None:
        """A word that is a number or a part of one."""
        if word in ZEROS:
            self.value = f"{self.value or ''}0"
        elif word in ONES or word in TENS:
            self.value = self._followed_by(ONES.get(word) or TENS[word], before)
        elif word in ENDED:
            number, end = ENDED[word]
            self._write(f"{self._followed_by(number, before)}{end}")
        elif word in MULTIPLIERS:
            self.value = self._times(MULTIPLIERS[word])
        else:
            number, end = ENDED_MULTIPLIERS[word]
            self._write(f"{self._times(number)}{end}")

    def _followed_by(self, number: int, before: str) -> int | str:
        """The value followed by a number below 100: twenty one is 21, one twenty is 120."""
        value = self.value
        if value is None:
            return number
        if isinstance(value, str) or before in ONES:
            text = str(value)
            return f"{text[:-1] if before in TENS and number < 10 else text}{number}"
        return value + number if value % (10 if number < 10 else 100) == 0 else f"{value}{number}"

    def _times(self, multiplier: int) -> int | str:
        """The value times a power of ten; a value that gives no whole number is written first."""
        if self.value is None:
            return multiplier
        if isinstance(self.value, int):
            return self.value // 1000 * 1000 + self.value % 1000 * multiplier
        number = _fraction(self.value)
        product = None if number is None else number * multiplier
        if product is not None and product.denominator == 1:
            return product.numerator
        self._end()
        return multiplier

    def _percent(self, word: str, after: str) -> bool:
        """`percent`, or `per`, which with `cent` after it is the same."""
        is_percent = word == "percent" or after == "cent"
        if self.value is None:
            self._write(word)
        elif is_percent:
            self._write(f"{self.value}%")
            return word == "per"
        else:
            self._end()
            self._write(word)
        return False

    def _special(self, word: str, before: str, after: str) -> bool:
        """A word that is part of a number only if a number follows. Whether the word after it is read, too."""
        is_number_next = after in WORDS or bool(NUMBER.fullmatch(after))
        is_repeated = word in ("double", "triple") and (after in ONES or after in ZEROS)
        if word in SIGNS and is_number_next:
            self._end()
            self.prefix = SIGNS[word]
        elif not is_number_next or (word == "and" and before not in MULTIPLIERS):
            self._end()
            self._write(word)
        elif word == "point" and (after in DECIMALS or after not in WORDS):
            self.value = f"{self.value or ''}."
        elif is_repeated:
            self.value = f"{self.value or ''}{str(ONES.get(after, 0)) * (2 if word == 'double' else 3)}"
            return True
        elif word not in ("and", "point"):
            self._end()
            self._write(word)
        return False


def _fraction(text: str) -> Fraction | None:
    """The number that digits are; None if they are none, or too long."""
    try:
        return Fraction(text) if len(text) <= MOST_DIGITS else None
    except ValueError:
        return None
