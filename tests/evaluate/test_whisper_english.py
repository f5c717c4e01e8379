"""Whisper's English normaliser: what openai-whisper gives, to the byte."""

import random
from collections.abc import Iterator

import pytest

from thunder_train.core import files
from thunder_train.evaluate.whisper_english import WORDS, normalised
from thunder_train.evaluate.whisper_spellings import SPELLINGS

OTHERS = (
    "the cat saw a half , . ! ? ... — ' \" mr mr. Dr won't can't I'm it's she's got he'd been they'd done n't 'tis "
    "o'clock dogs' y'all gonna colour theatre naïve œuvre Straße ﬁ ½ x2 2x é e\u0301 k'a İ ſ ² １２ ߊ߫ ߁߂ N'Ko "
    "3 42 3.5 1,000 007 0 00 1. .5 -5 +3 $5 £2.50 ¢7 $0.07 € 20% % 1960s 274th st one's [noise] <b> (aside) um hmm"
)


def texts(count: int) -> Iterator[str]:
    """Texts of words that the normaliser reads as numbers, amounts and contractions, and of others, at random."""
    draw, words = random.Random(0), [*sorted(WORDS), *OTHERS.split(" "), "and a half", "32 nd", "( a"]  # noqa: S311
    for _ in range(count):
        text = draw.choice([" ", " ", " ", "", "  "]).join(draw.choice(words) for _ in range(draw.randint(1, 8)))
        yield text.upper() if draw.random() < 0.2 else text


def test_three_thousand_texts_come_out_as_in_openai_whisper() -> None:
    """Published rates are comparable only if nothing differs; the hash is of what version 20250625 gave."""
    assert "b1f932faf92198b8dc3288718ca006d90b8b6b58961d5a64769567dd284c4b09" == files.digest(
        [normalised(text) for text in texts(3000)]
    )


def test_the_spellings_are_those_of_openai_whisper() -> None:
    """The hash is of its english.json without "flyer / flier", which no single word is."""
    assert "095e8e35c920aedfa2c6de2e14955068ea7820f60e47bfe4ceaf5abcc4824bd0" == files.digest(SPELLINGS)


@pytest.mark.slow
def test_transformers_agrees() -> None:
    """A second implementation, on texts that the hash above does not cover."""
    other = pytest.importorskip("transformers.models.whisper.english_normalizer").EnglishTextNormalizer(SPELLINGS)

    assert [] == [text for text in texts(30_000) if other(text) != normalised(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith won't colour it, um, twice!", "mister smith will not color it twice"),
        ("twenty one thousand and five", "21005"),
        ("one oh one", "101"),
        ("double oh seven", "007"),
        ("two and a half million", "2500000"),
        ("ten thousand dollars", "$10000"),
        ("$2 and ¢7", "$2.07"),
        ("fifty percent of them", "50% of them"),
        ("per cent", "per cent"),
        ("the nineteen sixties", "the 1960s"),
        ("minus three point one four", "-3.14"),
        ("the one", "the one"),
        ("naïve [noise] (aside) œuvre", "naive oeuvre"),
    ],
)
def test_rules_by_hand(text: str, expected: str) -> None:
    """Each rule of the paper's appendix C once, for whoever reads the hash above."""
    assert expected == normalised(text)


def test_a_number_that_python_cannot_convert_is_a_word() -> None:
    """Whisper ends with an error at 5,000 digits; an answer that is a loop of them must only score badly."""
    assert "7" * 5000 == normalised("7" * 5000)
    assert "9" * 4001 + " 1000" == normalised("9" * 4001 + " thousand")
