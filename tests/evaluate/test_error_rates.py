"""What each error rate counts, by hand."""

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
"""(text, reference): rows on which the definitions disagree."""


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
def test_one_data_set_has_as_many_rates_as_definitions(name: str, expected: float):
    """The users' repository held three of these under the one name CER: a decision could flip on the choice."""
    assert pytest.approx(expected, abs=1e-15) == counted(name, PAIRS)


def test_default_is_pooled_code_points_in_nfc_with_spaces():
    """The headline must keep its meaning: its fields are fixed here."""
    assert Profile(
        name="cer-codepoint-nfc-pooled",
        unit="code point",
        spaces="kept",
        normalisation="NFC",
        marks="kept",
        average="pooled",
        clamp=False,
    ) == next(iter(PROFILES.values()))


def test_recipes_may_name_exactly_these():
    """Every profile that a recipe may name is defined, in the same order."""
    assert evaluate.PROFILES == tuple(PROFILES)


def test_hash_tells_every_field():
    """Two rates compare only if they count alike; a changed field must change the hash."""
    hashes = {described(each)["sha256"] for each in PROFILES.values()}
    told = described(DEFAULT)

    assert len(PROFILES) == len(hashes)
    assert told.pop("sha256") == files.digest(told)


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
def test_spaces_and_letters_count_one_edit_each(text: str, reference: str, expected: tuple[int, int]):
    """The default keeps spaces: words run together are errors like any other."""
    assert Counted(*expected) == count(text, reference, DEFAULT)


@pytest.mark.parametrize(("name", "expected"), [(DEFAULT.name, 0), ("cer-codepoint-raw-per-row", 2)])
def test_marks_typed_in_another_order_are_no_error_after_nfc(name: str, expected: int):
    """Tone before nasal mark is the same text as nasal before tone; the historical profiles count two edits."""
    tone_first, nasal_first = "ߊ\u07eb\u07f2", "ߊ\u07f2\u07eb"

    assert expected == count(tone_first, nasal_first, PROFILES[name]).edits


@pytest.mark.parametrize(
    ("name", "expected"),
    [(DEFAULT.name, (2, 5)), ("cer-cluster-nfc-pooled", (1, 2)), ("cer-toneless-nfc-pooled", (0, 2))],
)
def test_a_letter_without_its_two_marks(name: str, expected: tuple[int, int]):
    """Two code points are lost, one cluster is wrong, and without marks nothing is."""
    assert Counted(*expected) == count("ߊߓ\u07eb", "ߊ\u07f2\u07ebߓ\u07eb", PROFILES[name])


def test_toneless_also_strips_the_mark_of_a_composed_letter():
    """French words in Bambara have letters whose accent NFC puts into the letter."""
    assert Counted(0, 4) == count("cafe", "café", PROFILES["cer-toneless-nfc-pooled"])


def test_errors_are_pooled_over_all_characters():
    """A one-letter answer cannot swing the score: errors are pooled, not averaged per answer."""
    pairs = [("ߊ", "ߋ"), ("ߊߋߌߍߎߏߐߓߔ", "ߊߋߌߍߎߏߐߓߔ")]

    assert (0.1, 0.5) == (counted(DEFAULT.name, pairs), counted("cer-codepoint-raw-per-row", pairs))


def test_rate_can_exceed_one():
    """A rate is not clamped: runaway output must show."""
    assert 2.0 == counted(DEFAULT.name, [("ߊߋ", "ߌ")])


@pytest.mark.parametrize("name", PROFILES)
def test_no_row_means_no_rate(name: str):
    """A rate over nothing is unknown, not zero."""
    assert counted(name, []) is None


def test_a_row_with_nothing_to_say_is_right_when_nothing_is_said():
    """The historical per-row rates of an empty reference are 0 and 1."""
    name = "cer-codepoint-raw-per-row"

    assert (0.0, 1.0) == (counted(name, [("", "")]), counted(name, [("ߊߋߌ", "")]))


def test_pooled_rates_equal_jiwer():
    """A second implementation, by others, agrees to the last bit."""
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
