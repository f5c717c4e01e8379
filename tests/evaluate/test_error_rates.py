"""Error rates counted by hand."""

import random

import pytest

from thunder_train.config import evaluate
from thunder_train.core import files
from thunder_train.evaluate.error_rates import PROFILES, Counted, Profile, count, described, rate

DEFAULT = PROFILES["cer-codepoint-nfc-pooled"]
PAIRS = [
    ("ߊߓߞߏ", "ߊߓ ߞߏ"),  # a lost space: 1 edit in 5, 0 in 4 without spaces
    ("ߞߏߞߏߞߏ", "ߞߏ"),  # a loop: 4 edits in 2
    ("ߛߊߓߊߛߊߓߊ", "ߛߊߓߊߛߊߓߊ"),  # right: 0 in 8
]
"""(text, reference): rows on which the definitions differ."""


def counted(name: str, pairs: list[tuple[str, str]]) -> float | None:
    """The rate of pairs under a profile."""
    return rate([count(text, reference, PROFILES[name]) for text, reference in pairs], PROFILES[name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cer-codepoint-nfc-pooled", (1 + 4 + 0) / (5 + 2 + 8)),
        ("cer-spaceless-raw-pooled", (0 + 4 + 0) / (4 + 2 + 8)),
        ("cer-codepoint-raw-clamped-per-row", (1 / 5 + 1 + 0) / 3),
        ("cer-codepoint-raw-per-row", (1 / 5 + 4 / 2 + 0) / 3),
        ("wer-nfc-pooled", (2 + 1 + 0) / (2 + 1 + 1)),
    ],
)
def test_one_data_set_has_as_many_rates_as_definitions(name: str, expected: float) -> None:
    """The users' repository used three of these under the one name CER: a decision could depend on the choice."""
    assert pytest.approx(expected, abs=1e-15) == counted(name, PAIRS)


def test_default_is_pooled_code_points_in_nfc_with_spaces() -> None:
    """The main figure must keep its meaning, so this test fixes its fields."""
    assert Profile(
        name="cer-codepoint-nfc-pooled",
        unit="code point",
        spaces="kept",
        normalisation="NFC",
        marks="kept",
        average="pooled",
        clamp=False,
    ) == next(iter(PROFILES.values()))


def test_recipes_may_name_exactly_these() -> None:
    """Every profile that a recipe may name is defined, in the same order."""
    assert evaluate.PROFILES == tuple(PROFILES)


def test_the_hash_covers_every_field() -> None:
    """Rates of different definitions are not comparable: a changed field must change the hash."""
    hashes = {described(each)["sha256"] for each in PROFILES.values()}
    fields = described(DEFAULT)

    assert len(PROFILES) == len(hashes)
    assert fields.pop("sha256") == files.digest(fields)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("ߊ ߓߐ", "ߊߓߐ", (1, 3)),
        ("ߓߊ", "ߓߊߣ", (1, 3)),
        ("ߞߏ", "ߞߋ", (1, 2)),
        ("", "ߞߋ", (2, 2)),
        ("ߞߋ", "", (2, 0)),
        ("ߞߋ", "ߞߋ", (0, 2)),
    ],
)
def test_spaces_and_letters_count_one_edit_each(text: str, reference: str, expected: tuple[int, int]) -> None:
    """The default keeps spaces: a missing space is an error like any other."""
    assert Counted(*expected) == count(text, reference, DEFAULT)


@pytest.mark.parametrize(("name", "expected"), [(DEFAULT.name, 0), ("cer-codepoint-raw-per-row", 2)])
def test_marks_typed_in_another_order_are_no_error_after_nfc(name: str, expected: int) -> None:
    """Tone before nasal mark is the same text as nasal before tone; the historical profiles count two edits."""
    tone_first, nasal_first = "ߊ\u07eb\u07f2", "ߊ\u07f2\u07eb"

    assert expected == count(tone_first, nasal_first, PROFILES[name]).edits


@pytest.mark.parametrize(
    ("name", "expected"),
    [(DEFAULT.name, (2, 5)), ("cer-cluster-nfc-pooled", (1, 2)), ("cer-toneless-nfc-pooled", (0, 2))],
)
def test_a_letter_without_its_two_marks(name: str, expected: tuple[int, int]) -> None:
    """Two code points are missing, one cluster is wrong, and without marks there is no error."""
    assert Counted(*expected) == count("ߊߓ\u07eb", "ߊ\u07f2\u07ebߓ\u07eb", PROFILES[name])


def test_toneless_also_strips_the_mark_of_a_composed_letter() -> None:
    """French words in Bambara text have letters that NFC composes with their accent."""
    assert Counted(0, 4) == count("cafe", "café", PROFILES["cer-toneless-nfc-pooled"])


def test_errors_are_pooled_over_all_characters() -> None:
    """A one-letter answer has little weight: errors are pooled, not averaged per answer."""
    pairs = [("ߊ", "ߋ"), ("ߊߋߌߍߎߏߐߓߔ", "ߊߋߌߍߎߏߐߓߔ")]

    assert (0.1, 0.5) == (counted(DEFAULT.name, pairs), counted("cer-codepoint-raw-per-row", pairs))


def test_rate_can_exceed_one() -> None:
    """The rate of a text much longer than its reference is not limited to 1."""
    assert 2.0 == counted(DEFAULT.name, [("ߊߋ", "ߌ")])


@pytest.mark.parametrize("name", PROFILES)
def test_no_row_means_no_rate(name: str) -> None:
    """A rate over nothing is unknown, not zero."""
    assert counted(name, []) is None


def test_an_empty_reference_has_rate_0_or_1() -> None:
    """As in the historical definitions: 0 for an empty text, 1 for any other."""
    name = "cer-codepoint-raw-per-row"

    assert (0.0, 1.0) == (counted(name, [("", "")]), counted(name, [("ߊߋߌ", "")]))


def test_pooled_rates_equal_jiwer() -> None:
    """An independent implementation gives the same numbers to the last bit."""
    jiwer = pytest.importorskip("jiwer", reason="jiwer is a development dependency: pip install -e '.[dev]'")
    draw = random.Random(0)  # noqa: S311
    words = [
        "".join(draw.choices("ߊߋߌߍߎߏߐߓߔߕߖߗ\u07eb", k=draw.randint(1, 6))).lstrip("\u07eb") or "ߊ" for _ in range(60)
    ]
    pairs = [
        (" ".join(draw.choices(words, k=6)), " ".join(draw.choices(words, k=draw.randint(1, 8)))) for _ in range(200)
    ]
    texts, references = map(list, zip(*pairs, strict=True))

    assert jiwer.cer(references, texts) == counted(DEFAULT.name, pairs)
    assert jiwer.wer(references, texts) == counted("wer-nfc-pooled", pairs)
